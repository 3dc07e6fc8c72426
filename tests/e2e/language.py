"""What the whole pipeline language does with real programs: child pipelines, environments, releases,
pages, id tokens, caches, reports, confirmations."""
import base64
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
import xml.etree.ElementTree

from commands import Tree, davit, on
from stack import ApiError, Stack, main, wait_for


def start(stack, files, project="e2e/test", **fields):
    """Submits a root file with those that its pipelines include."""
    text = files[".gitlab-ci.yml"]
    return stack.submit(text, project=project, files=files, paths=sorted(files), **fields)["id"]


def ends(stack, ident, status):
    pipeline = stack.wait_pipeline(ident)
    assert pipeline["status"] == status, json.dumps(pipeline, indent=1)
    return pipeline


def job_of(pipeline, name):
    return next(j for j in pipeline["jobs"] if j["name"] == name)


def log_of(stack, pipeline, name):
    return stack.log(job_of(pipeline, name)["id"]).decode()


def refused(status, call):
    try:
        call()
    except ApiError as e:
        assert e.status == status, e
        return e.problem
    raise AssertionError("not refused")


# --- child pipelines ---

CHILD = "child: {script: ['echo \"mode $MODE from $CI_PIPELINE_SOURCE of $ABOVE\"']}\n"


def a_child_gets_variables_and_its_parent_waits(build):
    root = """
stages: [deploy, after]
start:
  stage: deploy
  variables: {MODE: fast, ABOVE: $CI_PIPELINE_ID}
  trigger: {include: child.yml, strategy: depend}
after: {stage: after, script: [echo after]}
"""
    with Stack(build) as stack:
        parent = ends(stack, start(stack, {".gitlab-ci.yml": root, "child.yml": CHILD}), "success")
        trigger = job_of(parent, "start")
        child = ends(stack, trigger["child_pipeline_id"], "success")
        assert trigger["trigger"] == "depend" and trigger["worker"] is None, trigger
        assert child["parent_pipeline_id"] == parent["id"] and child["origin"] == "parent_pipeline", child
        text = f"mode fast from parent_pipeline of {parent['id']}"
        assert text in log_of(stack, child, "child"), log_of(stack, child, "child")
        assert job_of(parent, "after")["started_at"] >= child["finished_at"]


def a_child_that_fails_fails_its_trigger(build):
    root = """
waits: {trigger: {include: child.yml, strategy: depend}}
goes: {trigger: {include: child.yml}}
wrong: {trigger: {include: wrong.yml}}
"""
    files = {".gitlab-ci.yml": root, "child.yml": "bad: {script: [exit 3]}\n", "wrong.yml": "bad: {scirpt: x}\n"}
    with Stack(build) as stack:
        parent = ends(stack, start(stack, files), "failed")
        assert job_of(parent, "waits")["reason"] == "child_failed", parent
        assert job_of(parent, "goes")["status"] == "success", parent
        wrong = stack.get(f"/jobs/{job_of(parent, 'wrong')['id']}")
        assert wrong["reason"] == "config_error" and wrong["child_pipeline_id"] is None, wrong
        assert wrong["attempts"][0]["detail"].startswith("wrong.yml:1:"), wrong


def a_child_is_made_of_what_a_job_generated(build):
    root = """
stages: [make, run]
generate:
  stage: make
  script: ['mkdir -p out', 'echo "made: {script: [echo generated]}" > out/child.yml']
  artifacts: {paths: [out]}
run:
  stage: run
  needs: [generate]
  trigger: {include: [{artifact: out/child.yml, job: generate}], strategy: depend}
missing:
  stage: run
  needs: [generate]
  trigger: {include: [{artifact: out/none.yml, job: generate}]}
"""
    with Stack(build) as stack:
        parent = ends(stack, start(stack, {".gitlab-ci.yml": root}), "failed")
        child = ends(stack, job_of(parent, "run")["child_pipeline_id"], "success")
        assert "generated" in log_of(stack, child, "made")
        missing = stack.get(f"/jobs/{job_of(parent, 'missing')['id']}")
        assert "none.yml" in missing["attempts"][0]["detail"], missing


def children_have_children_and_cancel_goes_down(build):
    root = "top: {trigger: {include: middle.yml, strategy: depend}}\n"
    middle = "middle: {trigger: {include: leaf.yml, strategy: depend}}\n"
    leaf = "leaf: {script: [sleep 300]}\n"
    with Stack(build) as stack:
        ident = start(stack, {".gitlab-ci.yml": root, "middle.yml": middle, "leaf.yml": leaf})
        below = wait_for("the middle is there", lambda: stack.job(ident, "top")["child_pipeline_id"])
        lowest = wait_for("the leaf is there", lambda: stack.job(below, "middle")["child_pipeline_id"])
        stack.wait_job(lowest, "leaf", "running")
        stack.post(f"/pipelines/{ident}/cancel")
        ends(stack, lowest, "canceled")
        ends(stack, below, "canceled")
        ends(stack, ident, "canceled")


def a_killed_broker_makes_each_child_once(build):
    names = [f"t{i}" for i in range(12)]
    root = "".join(f"{n}: {{trigger: {{include: child.yml, strategy: depend}}}}\n" for n in names)
    with Stack(build) as stack:
        idents = []
        for _ in range(4):
            idents.append(start(stack, {".gitlab-ci.yml": root, "child.yml": CHILD}))
            stack.broker.kill()
            stack.broker.start()
        stack.wait_broker()
        for ident in idents:
            parent = ends(stack, ident, "success")
            children = {j["child_pipeline_id"] for j in parent["jobs"]}
            assert len(children) == len(names) and None not in children, parent
        listed = stack.get("/pipelines?limit=200")["items"]
        assert len(listed) == len(idents) * (len(names) + 1), len(listed)
        stack.stop()
        stack.fsck()


def run_follows_children(build):
    root = """
start: {trigger: {include: child.yml, strategy: depend}}
loose: {trigger: {include: slow.yml}}
"""
    with Tree(root) as tree:
        tree.write("child.yml", "child: {script: [echo hello from below]}\n")
        tree.write("slow.yml", "slow: {script: [sleep 1, echo hello from the slow one]}\n")
        done = davit(os.path.abspath(build), "run", cwd=tree.dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "start/child | hello from below" in done.stdout, done.stdout
        assert "loose/slow | hello from the slow one" in done.stdout, done.stdout
        tree.write("child.yml", "child: {script: [exit 3]}\n")
        done = davit(os.path.abspath(build), "run", cwd=tree.dir)
        assert done.returncode == 1 and "child_failed" in done.stdout, done.stdout + done.stderr


def run_ends_where_only_a_manual_job_is_left(build):
    root = "a: {script: [echo x]}\nb: {script: [echo y], rules: [{when: manual}]}\n"
    with Tree(root) as tree:
        done = davit(os.path.abspath(build), "run", cwd=tree.dir)
        assert done.returncode == 0 and "manual job" in done.stderr, done.stdout + done.stderr
        tree.write("child.yml", root)
        tree.write(".gitlab-ci.yml", "start: {trigger: {include: child.yml, strategy: depend}}\n")
        done = davit(os.path.abspath(build), "run", cwd=tree.dir)
        assert done.returncode == 0 and "manual job" in done.stderr, done.stdout + done.stderr


# --- environments, releases, pages ---

ENVIRONMENT = """
deploy:
  script: [echo URL=https://$CI_ENVIRONMENT_SLUG.example >> deploy.env]
  artifacts: {reports: {dotenv: deploy.env}}
  environment: {name: review/$CI_COMMIT_REF_NAME, url: $URL, on_stop: stop, auto_stop_in: 1 day}
stop:
  script: ['echo "stopping $CI_ENVIRONMENT_NAME"']
  environment: {name: review/$CI_COMMIT_REF_NAME, action: stop}
  rules: [{when: manual, allow_failure: true}]
"""


def an_environment_lives_until_its_stop_job_ran(build):
    with Tree(ENVIRONMENT) as tree, Stack(build) as stack:
        env = on(stack)
        done = davit(stack.build, "submit", "--follow", "--project", "e2e/test", cwd=tree.dir, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
        listed = stack.get("/environments?project=e2e/test")["items"]
        assert [(e["name"], e["state"]) for e in listed] == [("review/main", "available")], listed
        assert listed[0]["url"].startswith("https://review-main") and listed[0]["auto_stop_at"], listed
        status = davit(stack.build, "status", str(stack.get("/pipelines")["items"][0]["id"]), env=env)
        assert "environment review/main" in status.stdout, status
        shown = davit(stack.build, "environments", "--project", "e2e/test", env=env)
        assert "review/main" in shown.stdout and "available" in shown.stdout, shown
        stopped = davit(stack.build, "environments", "stop", "review/main", "--project", "e2e/test", env=env)
        assert stopped.returncode == 0, stopped
        ident = listed[0]["id"]
        wait_for("it is stopped", lambda: stack.get(f"/environments/{ident}")["state"] == "stopped")
        whole = stack.get(f"/environments/{ident}")
        assert [d["status"] for d in whole["deployments"]] == ["success"], whole
        none = davit(stack.build, "environments", "--project", "e2e/test", env=env)
        assert "no environments" in none.stdout, none
        stack.stop()
        stack.fsck()


def an_environment_stops_by_itself(build):
    text = ENVIRONMENT.replace("1 day", "2 seconds")
    with Stack(build) as stack:
        ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        ident = stack.get("/environments?project=e2e/test")["items"][0]["id"]
        wait_for("it is stopped", lambda: stack.get(f"/environments/{ident}")["state"] == "stopped", 30)


def a_release_is_listed(build):
    text = """
release:
  script: [echo "all that is new" > NOTES.md]
  release:
    tag_name: v1.$CI_PIPELINE_IID
    name: Release $CI_PIPELINE_IID
    description: NOTES.md
    assets: {links: [{name: binary, url: https://example.com/b}]}
"""
    with Stack(build) as stack:
        ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        releases = stack.get("/releases?project=e2e/test")["items"]
        assert [r["tag"] for r in releases] == ["v1.1"], releases
        assert releases[0]["name"] == "Release 1", releases
        assert "all that is new" in releases[0]["description"], releases
        assert releases[0]["links"][0]["url"] == "https://example.com/b", releases
        shown = davit(stack.build, "releases", "--project", "e2e/test", env=on(stack))
        assert "v1.1" in shown.stdout and "binary: https://example.com/b" in shown.stdout, shown


def fetch(stack, path):
    """Without a token."""
    try:
        with urllib.request.urlopen(stack.url + path, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.headers, e.read().decode()


def pages_are_published(build):
    text = """
pages:
  script:
    - mkdir -p public/docs
    - echo top > public/index.html
    - echo '{}' > public/docs/data.json
  pages: true
  artifacts: {paths: [public]}
"""
    with Stack(build) as stack:
        assert fetch(stack, "/pages/e2e/test/")[0] == 404
        ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        status, headers, body = fetch(stack, "/pages/e2e/test/")
        assert (status, body) == (200, "top\n"), (status, body)
        assert headers["Content-Security-Policy"] == "sandbox allow-scripts"
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert fetch(stack, "/pages/e2e/test/docs/data.json")[2] == "{}\n"
        assert fetch(stack, "/pages/e2e/test/%2e%2e/jwt.key")[0] in (400, 404)
        ends(stack, start(stack, {".gitlab-ci.yml": text.replace("echo top", "echo newer")}), "success")
        assert fetch(stack, "/pages/e2e/test/")[2] == "newer\n"


# --- id tokens ---

def base64url(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def der(tag, content):
    n = len(content)
    size = bytes([n]) if n < 128 else bytes([0x82]) + n.to_bytes(2, "big")
    return bytes([tag]) + size + content


def public_key_pem(jwk):
    """The RSAPublicKey of RFC 8017, as openssl reads it."""
    numbers = b"".join(der(2, b"\0" + base64url(jwk[k]) if base64url(jwk[k])[0] > 127 else base64url(jwk[k]))
                       for k in ("n", "e"))
    body = base64.encodebytes(der(0x30, numbers)).decode()
    return f"-----BEGIN RSA PUBLIC KEY-----\n{body}-----END RSA PUBLIC KEY-----\n"


def an_id_token_that_cannot_be_made_fails_its_job_alone(build):
    """Neither an audience without end, nor tokens above what a message holds, disturbs the worker."""
    many = ", ".join("T%d: {aud: [%s]}" % (i, ", ".join(f'"{k}$BIG"' for k in range(20))) for i in range(16))
    for size, tokens in ((5000, "T: {aud: $BIG}"), (4000, many)):
        text = f"""
variables: {{BIG: "{'a' * size}"}}
tokens:
  id_tokens: {{{tokens}}}
  script: [echo not run]
other:
  script: [sleep 1]
"""
        with Stack(build) as stack:
            ended = ends(stack, start(stack, {".gitlab-ci.yml": text}), "failed")
            bad, good = job_of(ended, "tokens"), job_of(ended, "other")
            assert (bad["reason"], bad["attempt"]) == ("config_error", 1), bad
            assert (good["status"], good["attempt"]) == ("success", 1), good
            assert b"id_tokens cannot be made" in stack.log(bad["id"])


def an_id_token_is_believed_by_the_published_key(build):
    text = """
stages: [a]
show:
  stage: a
  id_tokens:
    TOKEN: {aud: "https://vault.example/$CI_PROJECT_PATH"}
  script: ['printf %s "$TOKEN" > token']
  artifacts: {paths: [token]}
  environment: production
"""
    tmp = tempfile.mkdtemp(prefix="davit-jwt-")
    with Stack(build) as stack:
        parent = ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        done = davit(stack.build, "artifacts", "show", "-o", tmp, env=on(stack))
        assert done.returncode == 0, done
        with open(os.path.join(tmp, "token"), encoding="ascii") as f:
            token = f.read()
        assert token.encode() not in stack.log(job_of(parent, "show")["id"])
        head, claims, signature = token.split(".")
        config = json.loads(fetch(stack, "/.well-known/openid-configuration")[2])
        key = json.loads(fetch(stack, config["jwks_uri"].removeprefix(stack.url))[2])["keys"][0]
        assert json.loads(base64url(head)) == {"alg": "RS256", "kid": key["kid"], "typ": "JWT"}
        said = json.loads(base64url(claims))
        assert said["iss"] == config["issuer"] == stack.url, said
        assert said["aud"] == "https://vault.example/e2e/test", said
        assert said["sub"] == "project_path:e2e/test:ref_type:branch:ref:main", said
        assert said["environment"] == "production" and said["pipeline_id"] == str(parent["id"]), said
        for name, content in (("key", public_key_pem(key).encode()), ("signature", base64url(signature)),
                              ("said", f"{head}.{claims}".encode())):
            with open(os.path.join(tmp, name), "wb") as f:
                f.write(content)
        subprocess.run(["openssl", "rsa", "-RSAPublicKey_in", "-in", "key", "-pubout", "-out", "pub"], cwd=tmp,
                       check=True, capture_output=True)
        subprocess.run(["openssl", "dgst", "-sha256", "-verify", "pub", "-signature", "signature", "said"],
                       cwd=tmp, check=True, capture_output=True)
    shutil.rmtree(tmp)


# --- caches, reports, confirmations ---

def a_cache_goes_from_one_pipeline_to_the_next(build):
    text = """
work:
  cache: {key: deps-$CI_COMMIT_REF_SLUG, paths: [deps]}
  script: ['cat deps/old || echo nothing yet', mkdir -p deps, echo kept > deps/old]
"""
    with Stack(build) as stack:
        first = ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        assert "nothing yet" in log_of(stack, first, "work")
        caches = stack.get("/caches?project=e2e/test")["items"]
        assert len(caches) == 1 and "deps-main" in caches[0]["key"], caches
        second = ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        log = log_of(stack, second, "work")
        assert "\nkept" in log and "nothing yet" not in log.replace("echo nothing yet", ""), log


def reports_are_kept_by_type_and_dotenv_reaches_later_jobs(build):
    text = """
stages: [a, b]
make:
  stage: a
  script:
    - echo "VERSION=1.2.3" > build.env
    - echo '<testsuite name="t" tests="1"><testcase name="x"/></testsuite>' > junit.xml
    - echo "lines......... 87.5% of all"
  coverage: '/lines\\.+ (\\d+\\.\\d+)%/'
  artifacts: {reports: {dotenv: build.env, junit: junit.xml}}
use: {stage: b, script: ['echo "version is $VERSION"']}
without: {stage: b, needs: [], script: ['echo "version is [$VERSION]"']}
"""
    tmp = tempfile.mkdtemp(prefix="davit-junit-")
    with Stack(build) as stack:
        done = ends(stack, start(stack, {".gitlab-ci.yml": text}), "success")
        assert "version is 1.2.3" in log_of(stack, done, "use")
        assert "version is []" in log_of(stack, done, "without")
        assert job_of(done, "make")["coverage"] == 87.5 and done["coverage"] == 87.5, done
        shown = davit(stack.build, "status", str(done["id"]), env=on(stack))
        assert "coverage 87.50 %" in shown.stdout, shown
        types = {a["type"] for a in stack.get(f"/jobs/{job_of(done, 'make')['id']}")["artifacts"]}
        assert types == {"dotenv", "junit"}, types
        got = davit(stack.build, "artifacts", "make", "--type", "junit", "-o", tmp, env=on(stack))
        assert got.returncode == 0, got
        tree = xml.etree.ElementTree.parse(os.path.join(tmp, "junit.xml"))
        assert tree.getroot().tag == "testsuite"
    shutil.rmtree(tmp)


def a_manual_job_may_want_to_be_confirmed(build):
    text = "deploy: {script: [echo x], when: manual, manual_confirmation: Really deploy?}\n"
    with Stack(build) as stack:
        env = on(stack)
        ident = start(stack, {".gitlab-ci.yml": text})
        job = stack.job(ident, "deploy")
        assert job["manual_confirmation"] == "Really deploy?", job
        problem = refused(409, lambda: stack.post(f"/jobs/{job['id']}/play"))
        assert "Really deploy?" in problem["detail"], problem
        done = davit(stack.build, "play", "deploy", env=env)
        assert done.returncode == 73 and "Really deploy?" in done.stderr, done
        done = davit(stack.build, "play", "deploy", "--yes", env=env)
        assert done.returncode == 0, done
        stack.wait_job(ident, "deploy", "success")


if __name__ == "__main__":
    main([a_child_gets_variables_and_its_parent_waits, a_child_that_fails_fails_its_trigger,
          a_child_is_made_of_what_a_job_generated, children_have_children_and_cancel_goes_down,
          a_killed_broker_makes_each_child_once, run_follows_children,
          run_ends_where_only_a_manual_job_is_left, an_environment_lives_until_its_stop_job_ran,
          an_environment_stops_by_itself, a_release_is_listed, pages_are_published,
          an_id_token_is_believed_by_the_published_key, an_id_token_that_cannot_be_made_fails_its_job_alone,
          a_cache_goes_from_one_pipeline_to_the_next,
          reports_are_kept_by_type_and_dotenv_reaches_later_jobs, a_manual_job_may_want_to_be_confirmed])
