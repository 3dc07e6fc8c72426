"""The command line as a user types it: run, submit, status, logs, cancel, lint, doctor, up."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

from stack import Stack, main, wait_for


class Tree:
    """A small git repository with a pipeline file."""

    def __init__(self, text, git=True):
        self.dir = tempfile.mkdtemp(prefix="davit-tree-")
        self.write(".gitlab-ci.yml", text)
        self.write(".gitignore", "ignored\n")
        self.write("ignored", "no")
        self.write("src/file", "yes")
        if git:
            self.git("init", "-q", "-b", "main")
            self.git("add", "-A")
            self.git("commit", "-qm", "first")

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)

    def git(self, *args):
        subprocess.run(["git", "-C", self.dir, "-c", "user.name=t", "-c", "user.email=t@t", *args],
                       check=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)


def davit(build, *args, cwd=None, env=None, timeout=60):
    return subprocess.run([os.path.join(build, "davit"), *args], cwd=cwd, capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **(env or {})}, check=False)


def on(stack):
    return {"DAVIT_DATA": stack.data}


GOOD = """
stages: [build, test]
make:
  stage: build
  script: [test "$(cat src/file)" = yes, test ! -e ignored, git log -1 --format=%s, echo hello from make, mkdir out, echo x > out/x]
  artifacts: {paths: [out]}
check: {stage: test, script: [cat out/x, cat untracked]}
"""


def run_shows_the_logs_and_ends_with_the_pipelines_result(build):
    build = os.path.abspath(build)
    with Tree(GOOD) as tree:
        tree.write("untracked", "new")
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "make | hello from make" in done.stdout, done.stdout
        assert "pipeline success" in done.stdout, done.stdout
        tree.write(".gitlab-ci.yml", "bad: {script: [exit 3]}\n")
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "script_failure" in done.stdout, done.stdout
        tree.write(".gitlab-ci.yml", "bad: {scirpt: x}\n")
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 65 and ".gitlab-ci.yml:1:" in done.stderr, done.stderr


def run_works_without_git(build):
    build = os.path.abspath(build)
    with Tree("job: {script: [test -e src/file, test ! -e ignored]}\n", git=False) as tree:
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 0, done.stdout + done.stderr


PARTS = """
stages: [build, test, deploy]
make: {stage: build, script: ['echo "$CI_COMMIT_TAG, $CI_COMMIT_BRANCH"'], artifacts: {paths: [.gitlab-ci.yml]}}
unit: {stage: test, script: [exit 1]}
ship: {stage: deploy, when: manual, script: ["true"]}
other: {stage: deploy, needs: [], script: [exit 1]}
"""


def run_takes_names_of_jobs_and_refs(build):
    build = os.path.abspath(build)
    with Tree(PARTS) as tree:
        done = davit(build, "run", "ship", "--json", cwd=tree.dir)
        assert done.returncode == 0, done.stdout + done.stderr
        jobs = {j["name"]: j["status"] for j in json.loads(done.stdout)["jobs"]}
        assert jobs == {"make": "success", "ship": "success"}, jobs
        for ref, printed in (("refs/tags/v1", "make | v1, \n"), ("refs/heads/topic", "make | , topic\n"),
                             ("topic", "make | , topic\n")):
            done = davit(build, "run", "make", "--ref", ref, cwd=tree.dir)
            assert done.returncode == 0 and printed in done.stdout, (ref, done.stdout, done.stderr)
        tree.write("changed", "x")
        tree.git("add", "-A")
        tree.git("commit", "-qm", "second")
        tree.write(".gitlab-ci.yml", PARTS + "on change: {script: [x], rules: [{changes: [nothing]}]}\n")
        for args, there in (([], False), (["--ref", "refs/tags/v1"], True), (["--origin", "schedule"], True)):
            jobs = json.loads(davit(build, "lint", "--json", *args, cwd=tree.dir).stdout)["jobs"]
            assert ("on change" in [j["name"] for j in jobs]) == there, (args, jobs)
        done = davit(build, "run", "shpi", cwd=tree.dir)
        assert done.returncode == 65 and "did you mean `ship`" in done.stderr, done


def run_says_what_it_cannot_do(build):
    build = os.path.abspath(build)
    with Tree("""
a: {tags: [gpu, big], script: ["true"]}
b: {tags: [later], when: manual, script: ["true"]}
""") as tree:
        done = davit(build, "run", "--tags", "big", cwd=tree.dir)
        assert done.returncode == 64 and "--tags 'big,gpu'" in done.stderr, done
        assert davit(build, "run", "--tags", "big,gpu", cwd=tree.dir).returncode == 0
        tree.write(".gitlab-ci.yml", "a: {when: manual, script: [x]}\n")
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 1 and "davit run JOB starts one" in done.stderr, done
        tree.write(".gitlab-ci.yml", "b: {secrets: {A: {vault: a/b/c}}, script: [x]}\n")
        done = davit(build, "run", cwd=tree.dir)
        assert done.returncode == 1 and "\nb: nothing acts on `secrets`" in done.stdout, done
        tree.write(".gitlab-ci.yml", "a: {image: debian, script: [x]}\n")
        nowhere = {"DOCKER_HOST": "unix://" + os.path.join(tree.dir, "none")}
        done = davit(build, "run", cwd=tree.dir, env=nowhere)
        assert done.returncode == 1 and "executor `docker` cannot be used here" in done.stderr, done
        done = davit(build, "run", "--executors", "shell", cwd=tree.dir, env=nowhere)
        assert done.returncode == 64 and "job `a` has an image or services" in done.stderr, done


def leftovers(mark):
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/environ", "rb") as e:
                if mark in f.read() or mark in e.read():
                    found.append(int(pid))
        except OSError:
            pass
    return [pid for pid in found if pid != os.getpid()]


def ctrl_c_cancels_and_leaves_no_process(build):
    build = os.path.abspath(build)
    tmp = tempfile.mkdtemp(prefix="davit-ctrlc-")
    mark = f"ctrlc-mark-{os.getpid()}"
    with Tree(f"job: {{variables: {{MARK: {mark}}}, script: [setsid sleep 1000 & sleep 1000]}}\n") as tree:
        child = subprocess.Popen([os.path.join(build, "davit"), "run"], cwd=tree.dir,
                                 env={**os.environ, "TMPDIR": tmp}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for("the job runs", lambda: leftovers(mark.encode()))
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=40)
        assert child.returncode == 130, (child.returncode, out)
        assert "canceled" in out, out
        wait_for("nothing is left", lambda: not leftovers(mark.encode()), 5)
        wait_for("no private broker is left",
                 lambda: not [p for p in leftovers(tmp.encode()) if p != child.pid], 5)
    shutil.rmtree(tmp)


def submit_status_logs_and_artifacts(build):
    with Tree(GOOD) as tree, Stack(build) as stack:
        build = stack.build
        tree.write("untracked", "new")
        done = davit(build, "submit", "--follow", cwd=tree.dir, env=on(stack))
        assert done.returncode == 0 and "hello from make" in done.stdout, done.stdout + done.stderr
        listed = json.loads(davit(build, "status", "--json", env=on(stack)).stdout)
        assert listed["items"][0]["status"] == "success"
        ident = str(listed["items"][0]["id"])
        assert "make" in davit(build, "status", ident, env=on(stack)).stdout
        logs = davit(build, "logs", "make", env=on(stack))
        assert "hello from make" in logs.stdout, logs
        assert davit(build, "logs", "-f", "make", env=on(stack)).stdout == logs.stdout
        got = davit(build, "artifacts", "make", "-o", "got", cwd=tree.dir, env=on(stack))
        assert got.returncode == 0 and os.path.exists(os.path.join(tree.dir, "got/out/x")), got
        assert "w0" in davit(build, "workers", env=on(stack)).stdout
        missing = davit(build, "logs", "nothing", env=on(stack))
        assert missing.returncode == 66 and "nothing" in missing.stderr, missing
        doctor = davit(build, "doctor", env=on(stack))
        assert doctor.returncode == 0, doctor.stdout


def json_is_all_that_stdout_holds(build):
    with Tree("a: {script: ['printf \\\\377A']}\nb: {script: [exit 3], allow_failure: true}\n") as tree, \
            Stack(build) as stack:
        env = on(stack)
        done = davit(stack.build, "submit", "--follow", "--json", cwd=tree.dir, env=env)
        ident = json.loads(done.stdout)["id"]
        assert done.returncode == 0, done
        assert json.loads(davit(stack.build, "follow", str(ident), "--json", env=env).stdout)["id"] == ident
        for args in (["logs", "a"], ["logs", "-f", "a"]):
            log = json.loads(davit(stack.build, *args, "--json", env=env).stdout)["log"]
            assert log.endswith("?A"), log
        assert json.loads(davit(stack.build, "run", "--json", cwd=tree.dir).stdout)["status"] == "success"
        text = davit(stack.build, "follow", "-q", str(ident), env=env).stdout
        assert text.count("b: failed") == 1, text


def following_a_lost_broker_says_so_and_goes_on(build):
    with Tree("a: {script: [sleep 3, echo end]}\n") as tree, Stack(build) as stack:
        child = subprocess.Popen([os.path.join(stack.build, "davit"), "submit", "--follow"], cwd=tree.dir,
                                 env={**os.environ, **on(stack)}, stdout=subprocess.PIPE,
                                 stderr=subprocess.PIPE, text=True)
        wait_for("the job runs", lambda: any(p["status"] == "running"
                                             for p in stack.get("/pipelines")["items"]))
        stack.broker.kill()
        time.sleep(1.5)
        stack.broker.start()
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0 and "a | end" in out, (child.returncode, out, err)
        assert err.count("lost the broker") == 1, err


def temporary_files_are_under_tmpdir(build):
    build = os.path.abspath(build)
    tmp = tempfile.mkdtemp(prefix="davit-tmpdir-")
    with Tree("a: {script: [pwd]}\n") as tree:
        done = davit(build, "run", cwd=tree.dir, env={"TMPDIR": tmp})
        assert done.returncode == 0 and f"a | {tmp}/davit-run-" in done.stdout, done.stdout
        assert os.listdir(tmp) == []
    os.rmdir(tmp)


def git_works_in_a_submodule(build):
    build = os.path.abspath(build)
    with Tree("") as inner, Tree("a: {script: [git -C lib log --format=%s, git submodule status]}\n") as tree:
        tree.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.dir, "lib")
        tree.git("commit", "-qm", "outer")
        done = davit(build, "run", cwd=tree.dir)
        assert "a | first" in done.stdout and "a |  " in done.stdout, done.stdout


def submit_by_git_url(build):
    with Tree("job: {script: [cat src/file]}\n") as tree, \
            Stack(build, worker=("--allow-local-git",)) as stack:
        done = davit(stack.build, "submit", "--git", "file://" + tree.dir, "--ref", "main", "--follow",
                     env=on(stack))
        assert done.returncode == 0 and "job | yes" in done.stdout, done.stdout + done.stderr


def cancel_retry_play_and_why(build):
    with Tree("") as tree, Stack(build, slots=1) as stack:
        build = stack.build
        tree.write(".gitlab-ci.yml", "a: {script: [sleep 100]}\nb: {script: ['true']}\n"
                                     "m: {when: manual, script: ['true']}\n")
        assert davit(build, "submit", cwd=tree.dir, env=on(stack)).returncode == 0
        ident = stack.get("/pipelines")["items"][0]["id"]
        stack.wait_job(ident, "a", "running")
        why = davit(build, "why", "b", env=on(stack))
        assert why.returncode == 0 and "slot" in why.stdout, why
        assert davit(build, "cancel", "--job", "a", str(ident), env=on(stack)).returncode == 0
        stack.wait_job(ident, "a", "canceled")
        stack.wait_job(ident, "b", "success")
        assert davit(build, "play", "m", env=on(stack)).returncode == 0
        stack.wait_job(ident, "m", "success")
        assert davit(build, "retry", "--job", "a", str(ident), env=on(stack)).returncode == 0
        stack.wait_job(ident, "a", "running")
        assert davit(build, "cancel", str(ident), env=on(stack)).returncode == 0
        assert stack.wait_pipeline(ident)["status"] == "canceled"
        assert davit(build, "drain", "w0", env=on(stack)).returncode == 0
        assert "draining" in davit(build, "workers", env=on(stack)).stdout


def lint_tells_the_place(build):
    build = os.path.abspath(build)
    with Tree("job:\n  scirpt: [x]\nother:\n  script: [x]\n  needs: [nobody]\n") as tree:
        done = davit(build, "lint", cwd=tree.dir)
        assert done.returncode == 65, done
        assert ".gitlab-ci.yml:2:3: error" in done.stdout and "script" in done.stdout, done.stdout
        assert "nobody" in done.stdout, done.stdout
        found = json.loads(davit(build, "lint", "--json", cwd=tree.dir).stdout)
        assert not found["valid"] and found["diagnostics"][0]["line"] == 2, found
        tree.write(".gitlab-ci.yml", GOOD)
        assert davit(build, "lint", cwd=tree.dir).returncode == 0
        tree.write("a..b.yml", GOOD)
        assert davit(build, "lint", "a..b.yml", cwd=tree.dir).returncode == 0
        assert davit(build, "lint", "../x.yml", cwd=tree.dir).returncode == 66


RULED = """
stages: [build, deploy]
.base: {script: [make]}
make: {extends: .base, stage: build}
release:
  extends: .base
  stage: deploy
  needs: [make]
  rules:
    - if: $CI_COMMIT_TAG =~ /^v/
    - changes: [src/*]
      when: manual
"""


def lint_speaks_sarif_and_json_of_many_files(build):
    build = os.path.abspath(build)
    with Tree(GOOD) as tree:
        tree.write("base.yml", ".base:\n  scirpt: [x]\n")
        tree.write("a b.yml", "include: base.yml\njob:\n  extends: .base\n  script: [x]\n")
        tree.write("warn.yml", "job: {script: [x], variables: {A: yes}}\n")
        tree.write("later.yml", "job: {script: [x], secrets: {A: {vault: a/b/c@d}}}\n")
        many = davit(build, "lint", "--json", ".gitlab-ci.yml", "a b.yml", "warn.yml", cwd=tree.dir)
        found = json.loads(many.stdout)
        assert many.returncode == 65 and not found["valid"], found
        assert [f["valid"] for f in found["files"]] == [True, False, True], found
        assert found["files"][2]["warnings"] == 1, found
        log = json.loads(davit(build, "lint", "--format", "sarif", "a b.yml", "warn.yml", cwd=tree.dir).stdout)
        assert log["version"] == "2.1.0" and len(log["runs"]) == 1, log
        run = log["runs"][0]
        rules = run["tool"]["driver"]["rules"]
        for result in run["results"]:
            assert rules[result["ruleIndex"]]["id"] == result["ruleId"], result
            assert result["level"] in ("error", "warning") and result["message"]["text"], result
        by_rule = {result["ruleId"]: result for result in run["results"]}
        place = by_rule["unknown-keyword"]["locations"][0]["physicalLocation"]
        assert place == {"artifactLocation": {"uri": "base.yml"},
                         "region": {"startLine": 2, "startColumn": 3, "endColumn": 9}}, place
        related = [r["physicalLocation"] for r in by_rule["unknown-keyword"]["relatedLocations"]]
        assert [r["artifactLocation"]["uri"] for r in related] == ["a%20b.yml", "a%20b.yml"], related
        assert related[0]["region"] == {"startLine": 3, "startColumn": 12}, related
        assert by_rule["yaml-surprise"]["level"] == "warning", by_rule
        assert davit(build, "lint", "warn.yml", cwd=tree.dir).returncode == 0
        strict = davit(build, "lint", "--strict", "warn.yml", cwd=tree.dir)
        assert strict.returncode == 65 and "1 warning" in strict.stdout, strict
        later = davit(build, "lint", "later.yml", cwd=tree.dir)
        assert later.returncode == 0 and "nothing acts yet on: secrets" in later.stdout, later
        assert davit(build, "lint", "--format", "xml", cwd=tree.dir).returncode == 64
        half = davit(build, "lint", "nowhere.yml", "warn.yml", cwd=tree.dir)
        assert half.returncode == 66 and "warn.yml: valid" in half.stdout, half


def lint_excuses_files_that_are_not_fetched(build):
    build = os.path.abspath(build)
    with Tree("include: https://example.invalid/a.yml\njob: {extends: .there}\n") as tree:
        done = davit(build, "lint", "--offline", cwd=tree.dir)
        assert done.returncode == 0 and "warning: " in done.stdout, done
        assert "nothing wrong in what can be read offline, 1 warning" in done.stdout, done
        assert davit(build, "lint", "--offline", "--strict", cwd=tree.dir).returncode == 65
        tree.write(".gitlab-ci.yml", "include: https://example.invalid/a.yml\njob: {scirpt: x}\n")
        done = davit(build, "lint", "--offline", cwd=tree.dir)
        assert done.returncode == 65 and "1 error, 1 warning" in done.stdout, done


def lint_reads_standard_input(build):
    build = os.path.abspath(build)
    with Tree(GOOD) as tree:
        done = subprocess.run([os.path.join(build, "davit"), "lint", "-"], cwd=tree.dir, text=True, check=False,
                              input="job:\n  scirpt: x\n", capture_output=True, timeout=60)
        assert done.returncode == 65, done
        assert "<stdin>:2:3: error" in done.stdout and "      ^^^^^^\n" in done.stdout, done


def explain_says_why_a_job_is_in_or_absent(build):
    build = os.path.abspath(build)
    with Tree(RULED) as tree:
        def explain(*args):
            done = davit(build, "explain", *args, cwd=tree.dir)
            assert done.returncode == 0, done
            return done.stdout
        text = explain("--changes", "docs/x", "release")
        assert "absent: no rule matches" in text and "$CI_COMMIT_TAG is not set" in text, text
        assert "no changed path matches" in text and "make [build]" not in text, text
        assert "holds: src/b" in explain("--changes", "a", "--changes", "src/b"), text
        text = explain("--tag", "v1")
        assert "tag `v1`" in text and "in: rule 1 matches" in text and '$CI_COMMIT_TAG is "v1"' in text, text
        done = davit(build, "explain", "--mr", "make", cwd=tree.dir)
        assert done.returncode == 65 and "for neither" in done.stdout, done
        assert "needs the job `make`" in done.stderr, done
        found = json.loads(explain("--json", "--changes", "docs/x"))
        jobs = {job["name"]: job for job in found["jobs"]}
        assert jobs["make"]["in"] and not jobs["release"]["in"], found
        check = jobs["release"]["rules"][0]["checks"][0]
        assert check["kind"] == "if" and check["variables"] == {"CI_COMMIT_TAG": None}, check
        assert jobs["release"]["rules"][1]["checks"][0]["found"] is None, jobs
        missing = davit(build, "explain", "nothing", cwd=tree.dir)
        assert missing.returncode == 66 and "nothing" in missing.stderr, missing
        tree.write(".gitlab-ci.yml", "job: {scirpt: [x]}\n")
        wrong = davit(build, "explain", cwd=tree.dir)
        assert wrong.returncode == 65 and "did you mean `script`" in wrong.stderr and not wrong.stdout, wrong


def explain_merges_and_draws(build):
    build = os.path.abspath(build)
    with Tree(RULED) as tree:
        merged = davit(build, "explain", "--merged", cwd=tree.dir).stdout
        assert "extends" not in merged and ".base" not in merged and merged.count("- make") == 3, merged
        tree.write("merged.yml", merged)
        plans = [davit(build, "lint", "--json", name, cwd=tree.dir).stdout
                 for name in (".gitlab-ci.yml", "merged.yml")]
        assert json.loads(plans[0])["jobs"] == json.loads(plans[1])["jobs"], plans
        text = davit(build, "explain", "--graph", "text", "--tag", "v1", cwd=tree.dir).stdout
        assert "release  <- make" in text, text
        dot = davit(build, "explain", "--graph", "dot", "--tag", "v1", cwd=tree.dir).stdout
        assert "j0 -> j1" in dot, dot
        if shutil.which("dot"):
            drawn = subprocess.run(["dot", "-Tsvg"], input=dot, capture_output=True, text=True, check=False)
            assert drawn.returncode == 0 and "</svg>" in drawn.stdout, drawn
        for args in (["--graph", "png"], ["--merged", "--graph", "dot"], ["--tag", "a", "--ref", "b"],
                     ["--mr", "--origin", "push"]):
            assert davit(build, "explain", *args, cwd=tree.dir).returncode == 64, args


def up_starts_and_stops_everything(build):
    build = os.path.abspath(build)
    data = tempfile.mkdtemp(prefix="davit-up-")
    child = subprocess.Popen([os.path.join(build, "davit"), "up", "--data", data, "--http", "127.0.0.1:0",
                              "--listen", "tcp://127.0.0.1:0", "--json"],
                             stdout=subprocess.PIPE, text=True)
    def kill_broker():
        with open(os.path.join(data, "endpoints.json"), encoding="utf-8") as f:
            os.kill(json.load(f)["pid"], signal.SIGKILL)

    try:
        # Once while it waits for its workers, and once when all is up.
        wait_for("a worker is started", lambda: os.path.exists(os.path.join(data, "workers/local-1.log")))
        kill_broker()
        wait_for("two workers", lambda: davit(build, "workers", "--data", data).stdout.count("online") == 2,
                 40, 0.2)
        kill_broker()
        time.sleep(1.2)
        wait_for("it serves again",
                 lambda: davit(build, "workers", "--data", data).stdout.count("online") == 2, 40, 0.2)
    finally:
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=40)
    assert child.returncode == 0
    assert not leftovers(data.encode())
    shutil.rmtree(data)


def wrong_usage_is_explained(build):
    build = os.path.abspath(build)
    for args, word in ((["stats"], "status"), (["status", "x"], "number"), (["run", "--nope"], "--nope"),
                       (["logs"], "missing"), (["up", "--slots", "x"], "number")):
        done = davit(build, *args)
        assert done.returncode == 64 and word in done.stderr, (args, done)
    done = davit(build, "status", env={"DAVIT_DATA": "/nonexistent"})
    assert done.returncode == 69 and "davit up" in done.stderr, done


if __name__ == "__main__":
    main([run_shows_the_logs_and_ends_with_the_pipelines_result, run_works_without_git,
          run_takes_names_of_jobs_and_refs, run_says_what_it_cannot_do,
          ctrl_c_cancels_and_leaves_no_process, submit_status_logs_and_artifacts, submit_by_git_url,
          json_is_all_that_stdout_holds, following_a_lost_broker_says_so_and_goes_on,
          temporary_files_are_under_tmpdir, git_works_in_a_submodule,
          cancel_retry_play_and_why, lint_tells_the_place, lint_speaks_sarif_and_json_of_many_files,
          lint_excuses_files_that_are_not_fetched, lint_reads_standard_input, explain_says_why_a_job_is_in_or_absent,
          explain_merges_and_draws, up_starts_and_stops_everything,
          wrong_usage_is_explained])
