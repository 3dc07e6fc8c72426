"""Pipelines through real processes: order, artifacts, variables, retries, locks, cancel, recovery."""
import os
import signal
import subprocess
import time
import urllib.request

from stack import ApiError, Stack, main, wait_for


def statuses(pipeline):
    return {j["name"]: j["status"] for j in pipeline["jobs"]}


def artifacts_flow_between_jobs(build):
    with Stack(build, workers=2) as stack:
        p = stack.submit("""
stages: [build, test]
make:
  stage: build
  script:
    - mkdir -p out/deep && printf made > out/deep/file && printf no > out/skip.tmp && printf x > other
  artifacts:
    paths: [out/]
    exclude: ["out/*.tmp"]
everything:
  stage: test
  script: [test "$(cat out/deep/file)" = made, test ! -e out/skip.tmp, test ! -e other]
nothing:
  stage: test
  dependencies: []
  script: [test ! -e out]
by need:
  stage: test
  needs: [{job: make, artifacts: false}]
  script: [test ! -e out]
""")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "success", statuses(done)
        job = stack.get(f"/jobs/{stack.job(p['id'], 'make')['id']}")
        assert job["artifacts"][0]["file_count"] >= 1, job["artifacts"]


def variables_reach_the_script(build):
    with Stack(build) as stack:
        p = stack.submit("""
variables: {A: "1", B: "${A}2"}
job:
  variables: {C: "$B-3", Q: "it's \\"q\\" `x` $$HOME"}
  script:
    - printf '%s\\n' "a=$A b=$B c=$C s=$SUBMITTED n=$CI_JOB_NAME" "q=$Q" "p=$CI_PIPELINE_ID"
    - test "$PWD" = "$CI_PROJECT_DIR"
""", variables=[{"name": "SUBMITTED", "value": "two\nlines"}])
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        log = stack.log(stack.job(p["id"], "job")["id"]).decode()
        assert "a=1 b=12 c=12-3 s=two\nlines n=job" in log, log
        assert "q=it's \"q\" `x` $HOME" in log, log
        assert f"p={p['id']}" in log, log


def a_failed_script_stops_the_pipeline_and_says_its_code(build):
    with Stack(build) as stack:
        p = stack.submit("""
stages: [a, b]
bad: {stage: a, script: [echo before, exit 7, echo never], after_script: [echo "after $CI_JOB_STATUS"]}
fine: {stage: a, script: ["true"]}
late: {stage: b, script: ["true"]}
rescue: {stage: b, when: on_failure, script: ["true"]}
""")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "failed"
        assert statuses(done) == {"bad": "failed", "fine": "success", "late": "skipped",
                                  "rescue": "success"}, statuses(done)
        bad = stack.job(p["id"], "bad")
        assert (bad["exit_code"], bad["reason"]) == (7, "script_failure"), bad
        log = stack.log(bad["id"]).decode()
        assert "before" in log and "\nnever" not in log and "after failed" in log, log


def retry_gives_a_job_another_chance(build):
    with Stack(build) as stack:
        flag = os.path.join(stack.dir, "flag")
        p = stack.submit(f"""
flaky:
  retry: 1
  script:
    - test -e {flag} || {{ touch {flag}; exit 3; }}
hopeless: {{retry: {{max: 1, when: runner_system_failure}}, script: [exit 3], allow_failure: true}}
allowed: {{script: [exit 42], allow_failure: {{exit_codes: [42]}}}}
""")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "success", statuses(done)
        assert stack.job(p["id"], "flaky")["attempt"] == 2
        assert stack.job(p["id"], "hopeless")["attempt"] == 1


def one_resource_group_runs_one_job_at_a_time(build):
    with Stack(build, workers=2) as stack:
        lock = os.path.join(stack.dir, "lock")
        p = stack.submit("".join(f"""
deploy {i}:
  resource_group: production
  script: [mkdir {lock}, sleep 0.2, rmdir {lock}]
""" for i in range(5)))
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "success", statuses(done)


def manual_jobs_wait_and_delayed_jobs_start(build):
    with Stack(build) as stack:
        p = stack.submit("""
stages: [a, b]
ask: {stage: a, when: manual, allow_failure: false, script: ["true"]}
soon: {stage: a, when: delayed, start_in: 1 second, script: ["true"]}
after: {stage: b, script: ["true"]}
""")
        stack.wait_job(p["id"], "soon", "success")
        assert stack.pipeline(p["id"])["status"] == "manual"
        stack.post(f"/jobs/{stack.job(p['id'], 'ask')['id']}/play")
        assert stack.wait_pipeline(p["id"])["status"] == "success"


def cancel_ends_every_process_and_runs_after_script(build):
    with Stack(build) as stack:
        p = stack.submit("""
job:
  script:
    - setsid sleep 1000 &
    - (setsid sh -c 'sleep 1000 & sleep 1000' &)
    - sleep 1000
  after_script:
    - echo "cleaned after $CI_JOB_STATUS"
""")
        stack.wait_job(p["id"], "job", "running")
        time.sleep(0.5)
        stack.post(f"/pipelines/{p['id']}/cancel")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "canceled", statuses(done)
        assert "cleaned after canceled" in stack.log(stack.job(p["id"], "job")["id"]).decode()
        wait_for("no process is left", lambda: not stack.job_processes(), 10)


def a_timeout_ends_the_job(build):
    with Stack(build) as stack:
        p = stack.submit("job: {timeout: 1 second, script: [sleep 1000]}\n")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "failed"
        assert stack.job(p["id"], "job")["reason"] == "job_timeout"


def a_lost_workers_job_runs_on_another(build):
    with Stack(build, workers=2, slots=1) as stack:
        p = stack.submit("job: {script: [sleep 2, echo done]}\n")
        job = stack.wait_job(p["id"], "job", "running")
        victim = next(w for w in stack.workers if w.name == job["worker"])
        shims = stack.shims()
        victim.kill()
        for pid, _ in shims:
            os.kill(pid, signal.SIGKILL)
        done = stack.wait_pipeline(p["id"])
        again = stack.job(p["id"], "job")
        assert done["status"] == "success" and again["attempt"] == 2, again
        assert again["worker"] != job["worker"]
        first = stack.get(f"/jobs/{job['id']}")["attempts"][0]
        assert first["reason"] == "worker_lost", first


def a_restarted_worker_takes_its_running_jobs_back(build):
    with Stack(build) as stack:
        p = stack.submit("job: {script: [for i in 1 2 3 4 5 6; do echo line $i; sleep 0.3; done]}\n")
        stack.wait_job(p["id"], "job", "running")
        stack.workers[0].kill()
        time.sleep(0.3)
        stack.workers[0].start()
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        job = stack.job(p["id"], "job")
        assert job["attempt"] == 1, job
        log = stack.log(job["id"]).decode()
        assert [f"\nline {i}" in log for i in range(1, 7)] == [True] * 6, log


def a_worker_that_comes_back_too_late_kills_its_copy(build):
    with Stack(build, workers=2, slots=1, heartbeat_ms=300, lease_ms=1500) as stack:
        p = stack.submit("job: {script: [sleep 6, echo done]}\n")
        job = stack.wait_job(p["id"], "job", "running")
        victim = next(w for w in stack.workers if w.name == job["worker"])
        victim.kill(signal.SIGSTOP)
        wait_for("the job runs elsewhere", lambda: stack.job(p["id"], "job")["attempt"] == 2 and
                 stack.job(p["id"], "job")["status"] == "running")
        wait_for("both copies run", lambda: len(stack.shims()) == 2, 4)
        victim.kill(signal.SIGCONT)
        wait_for("the late copy is killed", lambda: len(stack.shims()) <= 1)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        successes = [a for a in stack.get(f"/jobs/{job['id']}")["attempts"] if a["status"] == "success"]
        assert len(successes) == 1


def jobs_outlive_an_absent_broker(build, away_s=6.0):
    """With DAVIT_E2E_AWAY=60 the broker stays away for a minute."""
    away_s = float(os.environ.get("DAVIT_E2E_AWAY", away_s))
    with Stack(build, workers=2, lease_ms=2000) as stack:
        text = "".join(f"job {i}: {{script: [for i in $(seq 1 {20 + 10 * i}); do echo line $i; sleep 0.1; done]}}\n"
                       for i in range(6))
        p = stack.submit(text)
        for i in range(6):
            stack.wait_job(p["id"], f"job {i}", "running")
        stack.broker.kill()
        time.sleep(away_s)
        stack.broker.start()
        stack.wait_broker()
        done = stack.wait_pipeline(p["id"], 120)
        assert done["status"] == "success", statuses(done)
        for i in range(6):
            job = stack.job(p["id"], f"job {i}")
            assert job["attempt"] == 1, job
            log = stack.log(job["id"]).decode()
            lines = [line for line in log.splitlines() if line.startswith("line ")]
            assert lines == [f"line {k}" for k in range(1, 21 + 10 * i)], lines[-3:]


def an_unanswered_assignment_outlasts_an_absent_broker(build):
    """Its timer is overdue when the broker starts again: the worker must be heard first."""
    with Stack(build, lease_ms=4000) as stack:
        stack.workers[0].kill(signal.SIGSTOP)
        p = stack.submit("job: {script: [echo done]}\n")
        stack.wait_job(p["id"], "job", "assigned", 3)
        stack.broker.kill()
        time.sleep(10.5)  # CORE_UNACKED_MS is 10 s
        stack.broker.start()
        stack.wait_broker()
        stack.workers[0].kill(signal.SIGCONT)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        job = stack.job(p["id"], "job")
        assert job["attempt"] == 1, stack.get(f"/jobs/{job['id']}")["attempts"]


def draining_finishes_and_takes_nothing_new(build):
    with Stack(build, workers=2, slots=1) as stack:
        first = stack.submit("job: {script: [sleep 2]}\n")
        job = stack.wait_job(first["id"], "job", "running")
        worker = next(w for w in stack.get("/workers")["items"] if w["name"] == job["worker"])
        stack.post(f"/workers/{worker['id']}/drain")
        second = stack.submit("a: {script: [sleep 0.1]}\nb: {script: [sleep 0.1]}\n")
        done = stack.wait_pipeline(second["id"])
        assert {j["worker"] for j in done["jobs"]} == {w.name for w in stack.workers} - {worker["name"]}
        assert stack.wait_pipeline(first["id"])["status"] == "success"
        stack.post(f"/workers/{worker['id']}/undrain")
        child = next(w for w in stack.workers if w.name == worker["name"])
        third = stack.submit("a: {script: [sleep 1]}\nb: {script: [sleep 1]}\n")
        wait_for("both run", lambda: all(j["status"] == "running" for j in stack.pipeline(third["id"])["jobs"]))
        child.stop()  # SIGTERM: finishes its job first
        assert stack.wait_pipeline(third["id"])["status"] == "success"
        assert all(j["attempt"] == 1 for j in stack.pipeline(third["id"])["jobs"])


def an_image_waits_for_docker_and_the_shell_executor_refuses_it(build):
    with Stack(build) as stack:
        p = stack.submit("job: {image: debian, script: ['true']}\n")
        stack.wait_job(p["id"], "job", "pending")
        why = stack.get(f"/jobs/{stack.job(p['id'], 'job')['id']}/why")
        assert "no executor docker" in str(why), why
        p = stack.submit("job: {image: debian, executor: shell, script: ['true']}\n")
        done = stack.wait_pipeline(p["id"])
        job = stack.get(f"/jobs/{stack.job(p['id'], 'job')['id']}")
        assert done["status"] == "failed", done
        assert "image" in (job["attempts"][-1]["detail"] or ""), job["attempts"]
        assert "image" in stack.log(job["id"]).decode()


def sources_by_git_url(build):
    with Stack(build, worker=("--allow-local-git",)) as stack:
        repo = os.path.join(stack.dir, "repo")
        git = ["git", "-C", repo, "-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", "init", "-q", "-b", "main", repo], check=True)
        for i in range(3):
            with open(os.path.join(repo, "file"), "w", encoding="ascii") as f:
                f.write(str(i))
            subprocess.run(git + ["add", "file"], check=True)
            subprocess.run(git + ["commit", "-qm", f"c{i}"], check=True)
        sha = subprocess.run(git + ["rev-parse", "HEAD~1"], check=True, capture_output=True,
                             text=True).stdout.strip()
        text = """
variables: {GIT_DEPTH: "2"}
job: {script: [test "$(cat file)" = 1, test "$(git rev-parse HEAD)" = "$CI_COMMIT_SHA"]}
none: {variables: {GIT_STRATEGY: none}, script: [test ! -e file || true]}
"""
        source = {"git": {"url": "file://" + repo, "sha": sha, "ref": "main"}}
        for _ in range(2):  # the second time into a folder that is there
            p = stack.submit(text, sha=sha, source=source)
            done = stack.wait_pipeline(p["id"])
            assert done["status"] == "success", stack.log(stack.job(p["id"], "job")["id"]).decode()


def why_names_the_reason(build):
    with Stack(build, slots=1) as stack:
        p = stack.submit("a: {script: [sleep 5]}\nb: {script: ['true']}\nc: {tags: [gpu], script: ['true']}\n")
        stack.wait_job(p["id"], "a", "running")
        why = {n: stack.get(f"/jobs/{stack.job(p['id'], n)['id']}/why") for n in "bc"}
        assert "slot" in why["b"]["workers"][0]["reason"] and not why["b"]["never"], why["b"]
        assert "gpu" in why["c"]["workers"][0]["reason"] and why["c"]["never"], why["c"]
        stack.post(f"/pipelines/{p['id']}/cancel")
        stack.wait_pipeline(p["id"])


def caches_pass_between_jobs_and_workers(build):
    with Stack(build, workers=2, slots=1) as stack:
        text = """
job:
  cache:
    key: {files: [lock], prefix: deps}
    paths: [deps/]
    fallback_keys: [any]
  before_script: ["test -e lock || echo 1 > lock"]
  script:
    - if test -e deps/made; then echo found it; else mkdir deps; echo x > deps/made; fi
parallel job:
  stage: deploy
  parallel: 4
  cache: {key: "deps-default", paths: [deps/], policy: pull}
  script: [test -e deps/made]
"""
        p = stack.submit(text)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        assert "No cache found for deps-default" in stack.log(stack.job(p["id"], "job")["id"]).decode()
        keys = [c["key"] for c in stack.get("/caches?project=e2e")["items"]]
        assert keys == ["deps-default-protected"], keys
        p = stack.submit(text)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        log = stack.log(stack.job(p["id"], "job")["id"]).decode()
        assert "found it" in log and "Restored cache deps-default-protected" in log, log
        assert "is unchanged" in log, log


def what_a_job_says_of_itself_arrives(build):
    with Stack(build) as stack:
        p = stack.submit("""
stages: [build, deploy]
build:
  stage: build
  hooks: {pre_get_sources_script: [echo hooked]}
  coverage: '/lines: (\\d+\\.\\d+)%/'
  script:
    - echo "lines:" $'\\e[1m'87.25%
    - echo VERSION=1.5 > build.env
    - echo '<testsuite/>' > junit.xml
  artifacts:
    reports: {dotenv: build.env, junit: junit.xml}
deploy:
  stage: deploy
  script: [test "$VERSION" = 1.5, mkdir public, echo hello > public/index.html, echo notes > notes.md,
           echo HOST=v$VERSION.example > deploy.env]
  artifacts: {reports: {dotenv: deploy.env}}
  environment: {name: production, url: "https://$HOST/"}
  release: {tag_name: "v$VERSION", description: notes.md}
  pages: true
  needs: [build]
""")
        done = stack.wait_pipeline(p["id"])
        log = stack.log(stack.job(p["id"], "build")["id"]).decode()
        assert done["status"] == "success", (statuses(done), log)
        assert log.startswith("\x1b[32;1m$ echo hooked"), log
        build_job = stack.get(f"/jobs/{stack.job(p['id'], 'build')['id']}")
        assert build_job["coverage"] == 87.25, build_job["coverage"]
        assert sorted(a["type"] for a in build_job["artifacts"]) == ["dotenv", "junit"], build_job
        release = stack.get("/releases?project=e2e")["items"][0]
        assert (release["tag"], release["description"]) == ("v1.5", "notes\n"), release
        environment = stack.get("/environments?project=e2e")["items"][0]
        assert environment["url"] == "https://v1.5.example/", environment
        with urllib.request.urlopen(stack.url + "/pages/e2e/") as page:
            assert page.read() == b"hello\n"


def a_malformed_report_or_release_fails_its_job(build):
    with Stack(build) as stack:
        p = stack.submit("""
env: {script: [echo nonsense > x.env], artifacts: {reports: {dotenv: x.env}}}
tag: {script: ["true"], release: {tag_name: "$NOBODY", description: d}}
site: {script: ["true"], pages: {publish: site}}
""")
        stack.wait_pipeline(p["id"])
        told = {j["name"]: stack.get(f"/jobs/{j['id']}") for j in stack.pipeline(p["id"])["jobs"]}
        assert told["env"]["reason"] == "artifact_failure", told["env"]
        assert "x.env, line 1" in told["env"]["attempts"][-1]["detail"], told["env"]
        assert told["tag"]["reason"] == "script_failure", told["tag"]
        assert "tag_name is empty" in told["tag"]["attempts"][-1]["detail"], told["tag"]
        assert told["site"]["reason"] == "artifact_failure", told["site"]


def a_repeated_submit_makes_one_pipeline(build):
    with Stack(build) as stack:
        body = {"project": "p", "ref": "main", "file": ".gitlab-ci.yml",
                "files": {".gitlab-ci.yml": "job: {script: ['true']}\n"}}
        first = stack.post("/pipelines", body, key="k1")
        assert stack.post("/pipelines", body, key="k1")["id"] == first["id"]
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        assert stack.post("/pipelines", body, key="k1")["id"] == first["id"]
        body["ref"] = "other"
        try:
            stack.post("/pipelines", body, key="k1")
            raise AssertionError("the key was taken for another request")
        except ApiError as e:
            assert e.problem["code"] == "idempotency_key_reused", e.problem


if __name__ == "__main__":
    main([artifacts_flow_between_jobs, variables_reach_the_script,
          a_failed_script_stops_the_pipeline_and_says_its_code, retry_gives_a_job_another_chance,
          one_resource_group_runs_one_job_at_a_time, manual_jobs_wait_and_delayed_jobs_start,
          cancel_ends_every_process_and_runs_after_script, a_timeout_ends_the_job,
          a_lost_workers_job_runs_on_another, a_restarted_worker_takes_its_running_jobs_back,
          a_worker_that_comes_back_too_late_kills_its_copy, jobs_outlive_an_absent_broker,
          an_unanswered_assignment_outlasts_an_absent_broker,
          draining_finishes_and_takes_nothing_new,
          an_image_waits_for_docker_and_the_shell_executor_refuses_it, sources_by_git_url,
          why_names_the_reason, a_repeated_submit_makes_one_pipeline,
          caches_pass_between_jobs_and_workers, what_a_job_says_of_itself_arrives,
          a_malformed_report_or_release_fails_its_job])
