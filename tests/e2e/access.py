"""Who may do what: roles, tokens of some projects, tokens that end, and what is written down of it."""
import json
import os
import subprocess
import time
import urllib.error
import urllib.request

from stack import ApiError, Stack, main, wait_for

ECHO = "a: {script: ['echo here']}\n"


def davit(stack, *args, check=True, token=None, value=None):
    env = {**os.environ, "DAVIT_DATA": stack.data}
    if token:
        env["DAVIT_TOKEN"] = token
    done = subprocess.run([stack.program("davit"), *args], capture_output=True, text=True, timeout=60, env=env,
                          check=False, input=value)
    if check and done.returncode != 0:
        raise AssertionError(f"davit {args}: {done.returncode} {done.stdout}{done.stderr}")
    return done


def create(stack, name, role, *args):
    return davit(stack, "token", "create", name, "--role", role, *args).stdout.strip()


def ask(stack, token, method, path, body=None, key=None):
    """The status of one request, and its answer."""
    data = None if body is None else json.dumps(body).encode()
    req = urllib.request.Request(stack.url + "/api/v1" + path, data=data, method=method)
    if token is not None:
        req.add_header("Authorization", "Bearer " + token)
    if key is not None:
        req.add_header("Idempotency-Key", key)
    try:
        with urllib.request.urlopen(req, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def submit_body(project, ref="main"):
    return {"project": project, "ref": ref, "files": {".gitlab-ci.yml": ECHO}}


def roles_are_as_far_as_they_reach(build):
    with Stack(build, workers=0) as stack:
        submitted = stack.submit(ECHO, project="g/p")
        pipeline, job = submitted["id"], submitted["jobs"][0]["id"]
        elsewhere = stack.request("POST", "/api/v1/pipelines", submit_body("g/p", "feature"))
        tokens = {role: create(stack, f"a {role}", role) for role in ("maintainer", "developer", "reporter", "user")}
        tokens["admin"] = stack.token()
        rows = [
            # method, path, body, who is let in
            ("GET", f"/pipelines/{pipeline}", None, "admin maintainer developer user reporter"),
            ("GET", "/workers", None, "admin maintainer developer user reporter"),
            ("POST", "/pipelines", submit_body("g/p"), "admin maintainer user"),
            ("POST", "/pipelines", submit_body("g/p", "feature"), "admin maintainer developer user"),
            ("POST", f"/pipelines/{pipeline}/cancel", {}, "admin maintainer developer user"),
            ("POST", f"/pipelines/{pipeline}/retry", {}, "admin maintainer user"),
            ("POST", f"/jobs/{job}/retry", {}, "admin maintainer user"),
            ("POST", f"/jobs/{job}/play", {}, "admin maintainer user"),
            ("POST", f"/pipelines/{elsewhere['id']}/retry", {}, "admin maintainer developer user"),
            ("POST", f"/jobs/{elsewhere['jobs'][0]['id']}/retry", {}, "admin maintainer developer user"),
            ("PUT", "/variables?project=g/p", {"variables": [{"name": "X", "value": "1"}]}, "admin maintainer"),
            ("GET", "/variables?project=g/p", None, "admin maintainer"),
            ("PUT", "/variables", {"variables": [{"name": "X", "value": "1"}]}, "admin"),
            ("PUT", "/pools/fast", {}, "admin"),
            ("GET", "/tokens", None, "admin"),
            ("GET", "/audit", None, "admin"),
            ("GET", "/master-keys", None, "admin"),
            ("GET", "/token", None, "admin maintainer developer user reporter"),
        ]
        for method, path, body, allowed in rows:
            for role, token in tokens.items():
                status, answer = ask(stack, token, method, path, body)
                good = role in allowed.split()
                assert (status < 300 or status == 409) if good else status == 403, (role, method, path, status, answer)
        assert ask(stack, None, "GET", "/pipelines")[0] == 401


def what_a_submit_claims_of_its_ref_opens_nothing(build):
    job = "a: {script: ['echo is $CI_COMMIT_REF_PROTECTED, $CI_DEFAULT_BRANCH; echo secret [$KEY]']}\n"
    with Stack(build) as stack:
        tokens = {role: create(stack, role, role) for role in ("developer", "user")}
        davit(stack, "variables", "set", "KEY", "--protected", "yes", "--project", "g/p", value="opened")

        def body(**fields):
            return {"project": "g/p", "files": {".gitlab-ci.yml": job}, **fields}

        def said(role, **fields):
            status, answer = ask(stack, tokens[role], "POST", "/pipelines", body(**fields))
            if status == 403:
                return "refused"
            assert status == 201, (status, answer)
            assert stack.wait_pipeline(answer["id"])["status"] == "success"
            log = stack.log(answer["jobs"][0]["id"]).decode()
            assert ("secret [opened]" in log) == ("is true" in log), log
            assert ("secret []" in log) == ("is false" in log), log
            return "protected" if "is true" in log else "open"
        # Nobody has set anything: whoever may submit for all refs is believed, a developer is not.
        assert said("user", ref="trunk", default_branch="trunk") == "protected"
        assert said("developer", ref="trunk", default_branch="trunk") == "refused"
        assert said("developer", ref="trunk", default_branch="main") == "refused"  # pipelines know it already
        assert said("developer", default_branch="trunk") == "refused"
        assert said("developer", ref="topic") == "open"
        davit(stack, "projects", "set", "g/p", "--default-branch", "trunk", "--protected-branches", "release/*,stable",
              "--protected-tags", "v*")
        shown = davit(stack, "projects").stdout
        assert "protected: trunk, release/*, stable; tags v*" in shown, shown
        for ref, tag in (("trunk", False), ("release/1/x", False), ("stable", False), ("v1", True)):
            for claim in ("main", ref):
                assert said("developer", ref=ref, tag=tag, default_branch=claim) == "refused", (ref, claim)
            assert said("user", ref=ref, tag=tag, default_branch="main") == "protected", ref
        assert said("developer", ref="trunk", tag=True) == "refused"
        for origin in ("merge_request_event", "schedule"):
            assert said("developer", ref="trunk", origin=origin) == "refused"
        # What is not protected cannot be made so: not by a claim, not by variables.
        for ref, tag in (("main", False), ("v1", False), ("unstable", False)):
            assert said("developer", ref=ref, tag=tag, default_branch=ref) == "open", ref
        assert said("developer", ref="main", default_branch="main",
                    variables=[{"name": "CI_DEFAULT_BRANCH", "value": "main"}]) == "open"
        status, answer = ask(stack, tokens["developer"], "POST", "/pipelines", body(
            ref="main", variables=[{"name": "CI_COMMIT_REF_PROTECTED", "value": "true"}]))
        assert status == 201, answer
        stack.wait_pipeline(answer["id"])
        assert b"secret []" in stack.log(answer["jobs"][0]["id"])  # a word in its own script, no more
        for field, value, words in (("protected_branches", ["a"] * 201, "protected_branches"),
                                    ("protected_tags", [""], "protected_tags[0]"),
                                    ("default_branch", 1, "default_branch")):
            status, answer = ask(stack, stack.token(), "PUT", "/projects/g/p", {field: value})
            assert status in (400, 422) and words in answer.decode(), (status, answer)
        davit(stack, "projects", "set", "g/p", "--protected-branches", "")
        assert said("developer", ref="stable") == "open"


def a_developer_stops_no_environment_of_a_protected_ref_by_its_job(build):
    with Stack(build) as stack:
        p = stack.submit("""
deploy: {script: ['true'], environment: {name: production, on_stop: stop}}
stop: {script: ['true'], when: manual, environment: {name: production, action: stop}}
""", project="g/p")["id"]
        stack.wait_pipeline(p)
        developer, maintainer = (create(stack, f"a {role}", role) for role in ("developer", "maintainer"))
        path = f"/environments/{stack.get('/environments?project=g/p')['items'][0]['id']}/stop"
        status, answer = ask(stack, developer, "POST", path, {})
        assert status == 403 and b"is protected" in answer, (status, answer)
        assert stack.job(p, "stop")["status"] == "manual", stack.job(p, "stop")
        assert ask(stack, maintainer, "POST", path, {})[0] == 202


def artifacts_are_for_whom_their_access_names(build):
    text = """
all: {script: ['echo all > f'], artifacts: {paths: [f]}}
developer: {script: ['echo developer > f'], artifacts: {paths: [f], access: developer}}
maintainer: {script: ['echo maintainer > f'], artifacts: {paths: [f], access: maintainer}}
none: {script: ['echo none > f'], artifacts: {paths: [f], access: none}}
"""
    def fetch(stack, token, job):
        req = urllib.request.Request(f"{stack.url}/api/v1/jobs/{job}/artifacts", headers={"Authorization": "Bearer " + token})
        try:
            with urllib.request.urlopen(req, timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as e:
            return e.code

    with Stack(build) as stack:
        p = stack.submit(text, project="g/p")["id"]
        stack.wait_pipeline(p)
        tokens = {role: create(stack, f"a {role}", role) for role in ("reporter", "developer", "user", "maintainer")}
        tokens["admin"] = stack.token()
        for access, roles in (("all", "reporter developer user maintainer admin"), ("developer", "developer user maintainer admin"),
                              ("maintainer", "maintainer admin"), ("none", "")):
            job = stack.job(p, access)["id"]
            got = [role for role, token in tokens.items() if fetch(stack, token, job) == 200]
            assert got == roles.split(), (access, got)
            shown = ask(stack, tokens["reporter"], "GET", f"/jobs/{job}")[1]["artifacts"][0]
            assert shown["access"] == access and (shown["digest"] is not None) == (access == "all"), shown


def an_idempotency_key_opens_no_other_project_to_a_token_of_the_same_name(build):
    with Stack(build, workers=0) as stack:
        broad = create(stack, "ci", "user")
        narrow = create(stack, "ci", "user", "--projects", "x/y")
        assert ask(stack, broad, "POST", "/pipelines", submit_body("g/p"), key="k")[0] == 201
        assert ask(stack, broad, "POST", "/pipelines", submit_body("g/p"), key="k")[0] == 200
        assert ask(stack, narrow, "POST", "/pipelines", submit_body("g/p"), key="k")[0] == 404


def a_developer_cannot_say_that_a_protected_ref_is_none(build):
    with Stack(build, workers=0) as stack:
        stack.submit(ECHO, project="g/p")
        stack.request("POST", "/api/v1/pipelines", submit_body("h/q") | {"default_branch": "trunk"})
        developer = create(stack, "dev", "developer")
        for body, expected in ((submit_body("g/p") | {"default_branch": "other"}, 403),
                               (submit_body("g/p") | {"tag": True}, 403),
                               (submit_body("g/p") | {"tag": True, "default_branch": "other"}, 403),
                               (submit_body("g/p", "feature"), 201), (submit_body("g/p", "feature") | {"tag": True}, 201),
                               (submit_body("h/q") | {"default_branch": "trunk"}, 201)):
            status, answer = ask(stack, developer, "POST", "/pipelines", body)
            assert status == expected, (body, status, answer)


def a_job_takes_no_artifacts_of_projects_that_its_submitter_does_not_see(build):
    text = "make: {script: ['echo theirs > out'], artifacts: {paths: [out]}}"
    taking = "take: {script: ['cat out'], needs: [{project: h/q, job: make, ref: main, artifacts: true}]}"
    with Stack(build) as stack:
        assert stack.wait_pipeline(stack.submit(text, project="h/q")["id"])["status"] == "success"
        for projects, expected in (("g/*", "failed"), ("g/*,h/q", "success")):
            token = create(stack, "of " + projects, "maintainer", "--projects", projects)
            status, answer = ask(stack, token, "POST", "/pipelines", submit_body("g/p") | {"files": {".gitlab-ci.yml": taking}})
            assert status == 201, (status, answer)
            assert stack.wait_pipeline(answer["id"])["status"] == expected, projects
            if expected == "failed":
                assert stack.job(answer["id"], "take")["reason"] == "artifact_missing"


def lint_tells_a_developer_no_protected_variable(build):
    body = {"project": "g/p", "explain": True, "files": {".gitlab-ci.yml": """
workflow: {name: 'it is $PROTECTED'}
a: {script: ['true'], rules: [{if: '$PROTECTED == "only for main"'}]}
b: {script: ['true'], rules: [{if: '$OPEN == "for all"'}]}
"""}}
    with Stack(build, workers=0) as stack:
        stack.request("PUT", "/api/v1/variables?project=g/p", {"variables": [
            {"name": "PROTECTED", "value": "only for main", "protected": True}, {"name": "OPEN", "value": "for all"}]})
        for role, expected in (("maintainer", ["a", "b"]), ("developer", ["b"])):
            status, answer = ask(stack, create(stack, f"a {role}", role), "POST", "/lint", body)
            assert status == 200 and [j["name"] for j in answer["jobs"]] == expected, (role, status, answer)


def a_token_of_some_projects_sees_no_others(build):
    with Stack(build) as stack:
        mine = stack.submit(ECHO, project="g/p")
        other = stack.submit(ECHO, project="h/q")
        stack.wait_pipeline(mine["id"])
        stack.wait_pipeline(other["id"])
        token = create(stack, "mine", "maintainer", "--projects", "g/*,x/y")
        job, foreign = mine["jobs"][0]["id"], other["jobs"][0]["id"]
        for path in ("/pipelines/{p}", "/pipelines/{p}/events", "/jobs/{j}", "/jobs/{j}/log", "/jobs/{j}/why"):
            if "events" not in path and "log" not in path:
                assert ask(stack, token, "GET", path.format(p=mine["id"], j=job))[0] == 200, path
            assert ask(stack, token, "GET", path.format(p=other["id"], j=foreign))[0] == 404, path
        for path in (f"/pipelines/{other['id']}/cancel", f"/jobs/{foreign}/retry", f"/jobs/{foreign}/play"):
            assert ask(stack, token, "POST", path, {})[0] == 404, path
        assert {p["project"] for p in ask(stack, token, "GET", "/pipelines")[1]["items"]} == {"g/p"}
        assert {j["project"] for j in ask(stack, token, "GET", "/jobs")[1]["items"]} == {"g/p"}
        assert [p["name"] for p in ask(stack, token, "GET", "/projects")[1]["items"]] == ["g/p"]
        assert ask(stack, token, "GET", "/jobs?project=h/q")[0] == 404
        assert ask(stack, token, "POST", "/pipelines", submit_body("h/q"))[0] == 404
        assert ask(stack, token, "POST", "/lint", submit_body("h/q") | {})[0] in (400, 404)
        assert ask(stack, token, "POST", "/jobs", {"project": "h/q", "jobs": [{"script": "true"}]})[0] == 404
        assert ask(stack, token, "POST", "/jobs", {"project": "g/p", "jobs": [{"script": "true"}]})[0] == 201
        assert ask(stack, token, "GET", "/variables?project=h/q")[0] == 404
        assert ask(stack, token, "GET", "/variables?project=g/p")[0] == 200
        assert ask(stack, token, "GET", "/variables?group=g/sub")[0] == 200
        assert ask(stack, token, "GET", "/variables?group=x")[0] == 403
        for path in ("/variables", "/workers", "/events", "/blobs/" + "0" * 64, "/pools"):
            assert ask(stack, token, "GET", path)[0] == 403, path


def a_token_ends_when_its_time_is_over_or_it_is_revoked(build):
    with Stack(build, workers=0) as stack:
        long = create(stack, "long", "reporter")
        short = create(stack, "short", "reporter", "--expires", "2s")
        assert ask(stack, short, "GET", "/pipelines")[0] == 200
        wait_for("it expires", lambda: ask(stack, short, "GET", "/pipelines")[0] == 401)
        shown = json.loads(davit(stack, "token", "show", "--json", token=long).stdout)
        assert shown["name"] == "long" and shown["role"] == "reporter" and shown["last_used_at"], shown
        listed = {t["name"]: t for t in stack.get("/tokens")["items"]}
        assert listed["short"]["expired"] and not listed["long"]["expired"]
        assert all("token" not in t for t in listed.values())
        davit(stack, "token", "revoke", shown["id"])
        assert ask(stack, long, "GET", "/pipelines")[0] == 401
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        assert ask(stack, long, "GET", "/pipelines")[0] == 401
        admin = next(t["id"] for t in stack.get("/tokens")["items"] if t["role"] == "admin")
        assert davit(stack, "token", "revoke", admin, check=False).returncode == 73
        stack.stop()
        for folder, _, names in os.walk(stack.data):
            for name in names:
                with open(os.path.join(folder, name), "rb") as f:
                    content = f.read()
                assert long.encode() not in content and short.encode() not in content, name


def a_jobs_token_opens_its_own_pipeline_and_dies_with_the_job(build):
    text = """
make: {stage: build, script: ['echo secret of %s > out'], artifacts: {paths: [out]}}
use:
  script:
    - tr '\\0' '\\n' < /proc/$PPID/environ > /dev/null
    - sleep 30
"""
    with Stack(build) as stack:
        other = stack.submit(text % "other", project="h/q")
        stack.wait_job(other["id"], "make", "success")
        mine = stack.submit(text % "mine", project="g/p")
        stack.wait_job(mine["id"], "use", "running")

        def digest(p):
            return stack.get(f"/jobs/{stack.job(p['id'], 'make')['id']}")["artifacts"][0]["digest"]

        folder = next(folder for _, folder in stack.shims()
                      if os.path.exists(os.path.join(folder, "spec.pb")) and b"g/p" in open(os.path.join(folder, "spec.pb"), "rb").read())
        with open(os.path.join(folder, "spec.pb"), "rb") as f:
            spec = f.read()
        at = spec.index(b"djt-")
        token = spec[at:at + spec[at - 1]].decode() if spec[at - 1] < 128 else \
            spec[at:at + (spec[at - 2] & 127) + 128 * spec[at - 1]].decode()

        def blob(d):
            req = urllib.request.Request(f"{stack.url}/api/v1/blobs/{d}")
            req.add_header("Authorization", "Bearer " + token)
            try:
                with urllib.request.urlopen(req, timeout=20) as answer:
                    return answer.status
            except urllib.error.HTTPError as e:
                return e.code

        mine_digest, other_digest = digest(mine), digest(other)
        assert blob(mine_digest) == 200
        assert blob(other_digest) in (403, 404)
        for path in ("/pipelines", "/variables", f"/pipelines/{mine['id']}", "/tokens", "/token"):
            assert ask(stack, token, "GET", path)[0] == 403, path
        stack.post(f"/pipelines/{mine['id']}/cancel")
        stack.wait_pipeline(mine["id"])
        assert blob(mine_digest) == 401
        stack.post(f"/pipelines/{other['id']}/cancel")


def what_people_change_is_written_down(build):
    with Stack(build, workers=0) as stack:
        stack.submit(ECHO, project="g/p")
        create(stack, "deploy bot", "developer", "--projects", "g/p")
        stack.request("PUT", "/api/v1/variables?project=g/p", {"variables": [{"name": "X", "value": "not to be told"}]})
        stack.request("PUT", "/api/v1/pools/fast", {})
        stack.request("DELETE", "/api/v1/pools/fast")
        try:
            stack.request("DELETE", "/api/v1/pools/fast")
        except ApiError as e:
            assert e.status == 404
        rows = stack.get("/audit")["items"]
        assert [r["action"] for r in rows] == ["pool_delete", "pool_set", "variables_set", "token_add", "pipeline_create"]
        assert rows[2]["project"] == "g/p" and rows[2]["target"] == "X"
        assert rows[3]["target"] == "deploy bot (developer)"
        assert all(r["actor"] == "admin" and r["from"] == "127.0.0.1" and r["time"] for r in rows), rows
        assert "not to be told" not in json.dumps(rows)
        page = stack.get("/audit?limit=2")
        assert [r["id"] for r in page["items"]] == [r["id"] for r in rows[:2]]
        rest = stack.get(f"/audit?limit=3&after={page['next']}")
        assert [r["id"] for r in rest["items"]] == [r["id"] for r in rows[2:]] and rest["next"] is None
        assert "variables_set" in davit(stack, "audit").stdout
        stack.stop()
        stack.fsck()


def an_option_of_another_kind_of_token_makes_none(build):
    with Stack(build, workers=0) as stack:
        before = stack.get("/tokens")["items"]
        for args, option in ((["create", "x", "--role", "user", "--ttl", "1h"], "--ttl"),
                             (["create", "x", "--role", "user", "--pool", "p"], "--pool"),
                             (["create", "x", "--role", "user", "--tags", "a"], "--tags"),
                             (["create", "--worker", "--role", "user"], "--role"),
                             (["create", "--worker", "--expires", "1h"], "--expires"),
                             (["create", "--worker", "--projects", "g/p"], "--projects"),
                             (["list", "--worker"], "--worker"), (["--role", "user"], "--role")):
            done = davit(stack, "token", *args, check=False)
            assert done.returncode == 64 and f"{option} is for davit token create" in done.stderr, (args, done)
        done = davit(stack, "token", "create", "x", "--role", "user", "--projects", "*", check=False)
        assert done.returncode == 65 and "project" in done.stderr, done
        now = stack.get("/tokens")["items"]
        assert [t["id"] for t in now] == [t["id"] for t in before], now


if __name__ == "__main__":
    main([roles_are_as_far_as_they_reach, what_a_submit_claims_of_its_ref_opens_nothing,
          a_developer_stops_no_environment_of_a_protected_ref_by_its_job,
          artifacts_are_for_whom_their_access_names, a_developer_cannot_say_that_a_protected_ref_is_none,
          an_idempotency_key_opens_no_other_project_to_a_token_of_the_same_name, lint_tells_a_developer_no_protected_variable,
          a_job_takes_no_artifacts_of_projects_that_its_submitter_does_not_see,
          a_token_of_some_projects_sees_no_others,
          a_token_ends_when_its_time_is_over_or_it_is_revoked, a_jobs_token_opens_its_own_pipeline_and_dies_with_the_job,
          what_people_change_is_written_down, an_option_of_another_kind_of_token_makes_none])
