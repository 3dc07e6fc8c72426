"""Jobs without a pipeline: the queue as its users have it, by the command line and over HTTP."""
import concurrent.futures
import json
import os
import random
import resource
import subprocess
import time
import uuid

from stack import ApiError, Stack, main, wait_for

ENDED = ("success", "failed", "canceled")


def davit(stack, *args, stdin=None, timeout=60, environment=None):
    return subprocess.run([stack.program("davit"), *args], input=stdin, capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, "DAVIT_DATA": stack.data, **(environment or {})},
                          check=False)


def answer(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def enqueue(stack, *jobs, project="queue", key=None):
    body = {"project": project, "jobs": list(jobs)}
    made = stack.patient(lambda: stack.post("/jobs", body, key=key))
    return [j["id"] for j in made["jobs"]]


def job(stack, ident):
    return stack.patient(lambda: stack.get(f"/jobs/{ident}"))


def wait_status(stack, ident, *status, timeout_s=30):
    return wait_for(f"job {ident} is {' or '.join(status)}",
                    lambda: (lambda j: j if j["status"] in status else None)(job(stack, ident)), timeout_s)


def a_command_runs_and_its_log_is_shown(build):
    with Stack(build, workers=1) as stack:
        done = davit(stack, "enqueue", "--project", "p", "--follow", "--", "sh", "-c", 'echo "<$1>"; exit 3',
                     "x", "a b'c")
        assert done.returncode == 1 and "<a b'c>" in done.stdout, done
        assert "failed" in done.stderr, done
        done = davit(stack, "enqueue", "--project", "p", "--follow", "--var", "X=1=2", "--", "echo got $X")
        assert done.returncode == 0 and "got 1=2" in done.stdout, done
        made = answer(davit(stack, "enqueue", "--project", "p", "--json", "--name", "third", "--", "pwd"))
        ident = made["jobs"][0]["id"]
        wait_status(stack, ident, "success")
        assert "third" in davit(stack, "jobs").stdout
        shown = davit(stack, "jobs", str(ident)).stdout
        assert "$ pwd" in shown and "attempt 1 on w0: success" in shown, shown
        assert davit(stack, "logs", str(ident)).stdout.strip().endswith(str(ident)) or \
            "pwd" in davit(stack, "logs", str(ident)).stdout
        for args, text in ((["--", ], "which command"), (["--count", "0", "x"], "--count"),
                           (["--follow", "--keep", "0", "x"], "--keep 0"), (["--var", "x", "y"], "NAME=VALUE"),
                           (["--follow", "--keep", "0s", "x"], "--keep 0"),
                           (["--follow", "--keep", "0 min", "x"], "--keep 0"),
                           *(([f"--{o}", b"a\xff", "x"], f"--{o} is no UTF-8") for o in (
                               "name", "tags", "executor", "pool", "resource-group", "keep", "project")),
                           (["--var", b"X\xff=1", "x"], "--var is no UTF-8"),
                           *((["--key", key, "x"], "--key wants") for key in ("", "a b", "a\n", "ä", "k" * 241)),
                           (["--priority", "high", "x"], "--priority")):
            done = davit(stack, "enqueue", "--project", "p", *args)
            assert done.returncode == 64 and text in done.stderr, (args, done)
        # the longest key, at the end of the second request too
        made = answer(davit(stack, "enqueue", "--project", "p", "--tags", "nowhere", "--key", "k" * 240, "--json",
                            "--count", "2048", "x"))
        assert len({j["id"] for j in made["jobs"]}) == 2048, len(made["jobs"])
        done = davit(stack, "enqueue", "--project", "p", "--timeout", "soon", "x")
        assert done.returncode == 65 and "`jobs[0].timeout`" in done.stderr, done


def a_worker_takes_more_open_files_than_it_gives(build):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    try:
        with Stack(build, workers=1) as stack:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            pid = stack.workers[0].process.pid
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
            done = davit(stack, "enqueue", "--project", "p", "--follow", "--", "echo $(ulimit -Sn) $(ulimit -Hn)")
            assert done.returncode == 0 and f"300 {hard if hard >= 0 else 'unlimited'}" in done.stdout, done
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def lines_become_a_batch(build):
    with Stack(build, workers=1, slots=8) as stack:
        text = "# a comment\n" + "\n".join(f"echo line {i}" for i in range(30)) + "\n\nfalse\n"
        done = davit(stack, "enqueue", "--project", "p", "--follow", "--json", "-", stdin=text)
        made = json.loads(done.stdout)["jobs"]
        assert done.returncode == 1 and len(made) == 31, done
        assert [j["status"] for j in made] == 30 * ["success"] + ["failed"], made
        made = answer(davit(stack, "enqueue", "--project", "p", "--count", "3", "--name", "n", "--follow", "--json",
                            "--", "echo $CI_NODE_INDEX of $CI_NODE_TOTAL"))["jobs"]
        assert [job(stack, j["id"])["name"] for j in made] == ["n 1/3", "n 2/3", "n 3/3"]
        assert b"\n2 of 3" in stack.log(made[1]["id"]), stack.log(made[1]["id"])
        # More than one request: each has a key of its own.
        many = "\n".join(f": {i}" for i in range(2500)) + "\n"
        made = answer(davit(stack, "enqueue", "--project", "p", "--tags", "nowhere", "--key", "k", "--json", "-",
                            stdin=many))["jobs"]
        assert len({j["id"] for j in made}) == 2500
        again = answer(davit(stack, "enqueue", "--project", "p", "--tags", "nowhere", "--key", "k", "--json", "-",
                             stdin=many))["jobs"]
        assert all(j["duplicate"] for j in again) and [j["id"] for j in again] == [j["id"] for j in made]


def a_key_is_one_job_however_often_it_is_sent(build):
    with Stack(build, workers=1, slots=4) as stack:
        body = {"project": "p", "jobs": [{"script": "echo x >> $COUNT", "idempotency_key": "one", "variables": [
            {"name": "COUNT", "value": os.path.join(stack.dir, "count")}]}]}
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: stack.post("/jobs", body), range(32)))
        ids = {m["jobs"][0]["id"] for m in made}
        assert len(ids) == 1 and sum(not m["jobs"][0]["duplicate"] for m in made) == 1, made
        wait_status(stack, ids.pop(), "success")
        with open(os.path.join(stack.dir, "count"), encoding="ascii") as f:
            assert f.read() == "x\n"
        body["jobs"][0]["script"] = "other"
        try:
            stack.post("/jobs", body)
            assert False, "the key was taken again"
        except ApiError as e:
            assert e.problem["code"] == "idempotency_key_reused", e.problem


def a_program_enqueues_by_the_library(build):
    with Stack(build, workers=1) as stack:
        def example(*command, token="user.token"):
            return subprocess.run([os.path.join(build, "client", "client-example"), f"tcp://127.0.0.1:{stack.fleet_port}",
                                   os.path.join(stack.data, token), *command],
                                  capture_output=True, text=True, timeout=60, check=False)
        done = example("sh", "-c", "exit $1", "x", "0")
        assert done.returncode == 0 and "success" in done.stdout, done
        done = example("sh", "-c", "exit $1", "x", "3")
        assert done.returncode == 1 and "failed script_failure" in done.stdout, done
        done = example("true", token="worker.token")
        assert done.returncode == 1 and "token" in done.stderr, done


def a_job_waits_for_its_time(build):
    with Stack(build, workers=1) as stack:
        start = time.time()
        ident, far = enqueue(stack, {"script": "date +%s%N", "delay": "2s"}, {"script": "x", "delay": "1h"})
        assert job(stack, ident)["status"] == "scheduled"
        wait_status(stack, ident, "success")
        ran = int(stack.log(ident).split()[-1]) / 1e9
        assert 1.9 <= ran - start <= 10, ran - start
        assert "starts at" in stack.get(f"/jobs/{far}/why")["summary"]
        assert davit(stack, "cancel", "--job", str(far)).returncode == 0
        assert job(stack, far)["status"] == "canceled"


def the_higher_priority_goes_first(build):
    with Stack(build, workers=1, slots=1) as stack:
        gate = os.path.join(stack.dir, "gate")
        out = os.path.join(stack.dir, "order")
        wait, = enqueue(stack, {"script": f"until [ -e {gate} ]; do sleep 0.05; done"})
        wait_status(stack, wait, "running")
        jobs = [{"script": f"echo {p} >> {out}", "priority": p} for p in (0, -5, 7, 7, 100, 200)]
        ids = enqueue(stack, *jobs)
        with open(gate, "w", encoding="ascii"):
            pass
        for ident in ids:
            wait_status(stack, ident, "success")
        with open(out, encoding="ascii") as f:
            assert f.read().split() == ["200", "100", "7", "7", "0", "-5"]


def it_is_retried_canceled_and_forgotten(build):
    with Stack(build, workers=1) as stack:
        mark = os.path.join(stack.dir, "mark")
        ident, = enqueue(stack, {"script": f"[ -e {mark} ] || {{ touch {mark}; exit 1; }}", "retry": 1})
        assert wait_status(stack, ident, *ENDED)["status"] == "success"
        assert [a["status"] for a in job(stack, ident)["attempts"]] == ["failed", "success"]
        ident, = enqueue(stack, {"script": "exit 5"})
        done = wait_status(stack, ident, *ENDED)
        assert (done["status"], done["exit_code"]) == ("failed", 5), done
        assert davit(stack, "retry", "--job", str(ident)).returncode == 0
        wait_for("the second attempt", lambda: len(job(stack, ident)["attempts"]) == 2 and
                 job(stack, ident)["status"] == "failed")
        ident, = enqueue(stack, {"script": "sleep 600"})
        wait_status(stack, ident, "running")
        assert davit(stack, "cancel", "--job", str(ident)).returncode == 0
        wait_status(stack, ident, "canceled")
        wait_for("its processes are gone", lambda: not stack.job_processes())
        ident, = enqueue(stack, {"script": "true", "keep": 0})

        def gone():
            try:
                stack.get(f"/jobs/{ident}")
                return False
            except ApiError as e:
                return e.status == 404
        wait_for("a success that is not kept leaves nothing", gone)
        stack.stop()
        stack.fsck()


def why_tells_what_a_job_waits_for(build):
    with Stack(build, workers=1, slots=1, tags="linux") as stack:
        ident, = enqueue(stack, {"script": "x", "tags": ["gpu"]})
        why = stack.get(f"/jobs/{ident}/why")
        assert why["never"] and "gpu" in why["workers"][0]["reason"], why
        assert "gpu" in davit(stack, "why", str(ident)).stdout
        gate = os.path.join(stack.dir, "gate")
        one, two = enqueue(stack, {"script": f"until [ -e {gate} ]; do sleep 0.05; done", "resource_group": "g"},
                           {"script": "true", "resource_group": "g"})
        wait_status(stack, one, "running")
        why = stack.get(f"/jobs/{two}/why")
        assert why["status"] == "waiting_for_resource" and why["holder"] == one, why
        three, = enqueue(stack, {"script": "true"})
        why = stack.get(f"/jobs/{three}/why")
        assert not why["never"] and why["position"] == 1, why
        with open(gate, "w", encoding="ascii"):
            pass
        wait_status(stack, two, "success")
        wait_status(stack, three, "success")


def pools_say_whose_jobs_their_workers_take(build):
    with Stack(build, workers=1, pool="fast") as stack:
        done = davit(stack, "pools", "set", "fast", "--projects", "a/*", "--max-running", "3")
        assert done.returncode == 0 and "for a/*" in done.stdout, done
        mine, = enqueue(stack, {"script": "true"}, project="a/b")
        other, = enqueue(stack, {"script": "true"}, project="c")
        wait_status(stack, mine, "success")
        assert job(stack, other)["status"] == "pending"
        assert stack.get("/pools/fast")["workers"] == 1
        done = davit(stack, "pools", "delete", "fast")
        assert done.returncode != 0 and "w0" in done.stderr, done
        assert davit(stack, "pools", "set", "fast", "--projects", "").returncode == 0
        wait_status(stack, other, "success")
        done = davit(stack, "projects", "set", "a/b", "--weight", "250", "--max-running", "9")
        assert done.returncode == 0 and "250" in done.stdout, done
        user = os.path.join(stack.data, "user.token")
        with open(user, encoding="ascii") as f:
            token = f.read().strip()
        assert token.startswith("dvu_")
        lock = ("pools", "set", "fast", "--locked", "yes")
        for done in (davit(stack, *lock, "--url", stack.url, "--token-file", user),
                     davit(stack, *lock, "--token-file", user),  # not the folder's admin.token
                     davit(stack, *lock, environment={"DAVIT_TOKEN": token}),
                     davit(stack, "enqueue", "--priority", "101", "--token-file", user, "--", "true")):
            assert done.returncode != 0 and ("may not" in done.stderr or "administrators" in done.stderr), done
        done = davit(stack, "jobs", "--token-file", os.path.join(stack.data, "none.token"))
        assert done.returncode != 0 and "none.token" in done.stderr, done


def nothing_is_lost_or_doubled_when_all_are_killed(build):
    """Broker and workers die at random while jobs are enqueued and run; each job's file holds at most one line a
    started attempt, and each ends well."""
    rng = random.Random(7)
    with Stack(build, workers=2, slots=4, heartbeat_ms=200, lease_ms=1500) as stack:
        out = os.path.join(stack.dir, "out")
        os.mkdir(out)
        ids = []
        for batch in range(12):
            jobs = [{"script": f"echo $DAVIT_JOB_ATTEMPT >> {out}/$CI_JOB_ID; sleep 0.0{rng.randrange(10)}",
                     "keep": "1h"} for _ in range(10)]
            ids += enqueue(stack, *jobs, key=uuid.uuid4().hex)
            victim = [stack.broker, *stack.workers][batch % 3]
            victim.kill()
            victim.start()
            if victim is stack.broker:
                stack.wait_broker()
        assert len(set(ids)) == 120
        for ident in ids:
            done = wait_status(stack, ident, *ENDED, timeout_s=120)
            assert done["status"] == "success", done
            with open(os.path.join(out, str(ident)), encoding="ascii") as f:
                lines = f.read().split()
            assert len(lines) == len(set(lines)) and len(lines) <= done["attempt"], (lines, done)
        stack.stop()
        stack.fsck()


if __name__ == "__main__":
    main([
        a_command_runs_and_its_log_is_shown,
        a_worker_takes_more_open_files_than_it_gives,
        lines_become_a_batch,
        a_key_is_one_job_however_often_it_is_sent,
        a_program_enqueues_by_the_library,
        a_job_waits_for_its_time,
        the_higher_priority_goes_first,
        it_is_retried_canceled_and_forgotten,
        why_tells_what_a_job_waits_for,
        pools_say_whose_jobs_their_workers_take,
        nothing_is_lost_or_doubled_when_all_are_killed,
    ])
