"""What operators do: the configuration file and its reload, drains, replaced programs, the doctor, and
what watches Davit."""
import json
import os
import re
import shutil
import signal
import subprocess
import time

from stack import ApiError, Stack, main, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VERSION = b"0.1.0"

FILE = """
keep_pipelines: 30d
pools:
  fast: {locked: true, heartbeat_ms: 200, lease_ms: 1500}
projects:
  e2e/app: {weight: 300}
"""


class Configured(Stack):
    """A stack whose broker has a configuration file."""

    def __init__(self, build, text, **kw):
        super().__init__(build, **kw)
        self.file = os.path.join(self.dir, "davitd.yml")
        self.write(text)
        self.broker.argv += ["--config", self.file]

    def write(self, text):
        with open(self.file, "w", encoding="utf-8") as f:
            f.write(text)

    def pool(self, name):
        return self.get("/pools/" + name)


def davit(stack, *args):
    return subprocess.run([stack.program("davit"), *args, "--data", stack.data],
                          capture_output=True, text=True, timeout=60, check=False)


def status_of(call):
    try:
        call()
        return 200, ""
    except ApiError as e:
        return e.status, e.problem.get("detail", "")


def a_file_declares_pools_and_is_reloaded(build):
    with Configured(build, FILE, workers=0) as stack:
        assert stack.pool("fast")["declared"] and stack.pool("fast")["locked"]
        status, detail = status_of(lambda: stack.request("PUT", "/api/v1/pools/fast", {"locked": False}))
        assert status == 409 and "configuration file" in detail, (status, detail)
        assert davit(stack, "pools", "delete", "fast").returncode != 0
        assert stack.get("/projects/e2e/app")["weight"] == 300
        stack.request("PUT", "/api/v1/pools/other", {"locked": True})

        stack.write(FILE.replace("locked: true", "locked: false") + "http: 127.0.0.1:1\nlog_level: debug\n")
        done = davit(stack, "reload")
        assert done.returncode == 0, done
        assert "changed: pool fast" in done.stdout and "changed: log-level" in done.stdout, done.stdout
        assert "waits for a restart" not in done.stdout  # the address is on the command line, too
        assert not stack.pool("fast")["locked"]

        stack.write(FILE + "lease_ms: 60000\nmore: 1\n")
        done = davit(stack, "reload")
        assert done.returncode == 65 and f"{stack.file}:8:1: " in done.stderr, done
        assert not stack.pool("fast")["locked"]
        stack.write(FILE + "durability: relaxed:50\n")
        done = davit(stack, "reload", "--json")
        assert '"restart": [' in done.stdout and "durability" in done.stdout, done.stdout
        assert stack.pool("fast")["locked"]

        stack.write("pools: {}\n")
        os.kill(stack.broker.pid, signal.SIGHUP)
        wait_for("the pool is released", lambda: not stack.pool("fast")["declared"])
        assert stack.pool("fast")["locked"]
        stack.broker.stop()
        stack.fsck()


def a_start_with_a_bad_file_says_where(build):
    stack = Configured(build, "pools: {a: {lokked: true}}\n", workers=0)
    try:
        for argv in (stack.broker.argv, [stack.program("davitd"), "--check-config", stack.file]):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
            assert done.returncode == 65 and f"{stack.file}:1:13: error" in done.stderr, done
        stack.write("listen: tcp://10.0.0.1:7070\n")
        done = subprocess.run([stack.program("davitd"), "--check-config", stack.file],
                              capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode != 0 and "10.0.0.1" in done.stderr, done
        stack.write("log_level: info\n")
        done = subprocess.run([stack.program("davitd"), "--check-config", stack.file],
                              capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode == 0 and done.stderr == "", done
    finally:
        stack.__exit__(None, None, None)


def a_worker_of_a_pool_has_its_lease(build):
    """The broker's lease is an hour: that the stopped worker is lost is the pool's doing."""
    with Configured(build, FILE.replace("1500", "1500, on_worker_lost: fail"), workers=1, pool="fast",
                    heartbeat_ms=60000, lease_ms=3600000) as stack:
        p = stack.submit("a: {script: [sleep 60], variables: {DAVIT_POOL: fast}}\n")
        stack.wait_job(p["id"], "a", "running")
        stack.workers[0].kill(signal.SIGSTOP)
        job = stack.wait_job(p["id"], "a", "failed", 20)
        assert job["reason"] == "worker_lost", job
        stack.workers[0].kill(signal.SIGCONT)
        wait_for("the worker is back", lambda: stack.online() == 1)


def a_lease_that_is_reloaded_loses_no_job(build):
    with Configured(build, FILE, workers=1, pool="fast", lease_ms=60000) as stack:
        p = stack.submit("a: {script: [sleep 4], variables: {DAVIT_POOL: fast}}\n")
        stack.wait_job(p["id"], "a", "running")
        stack.write(FILE.replace("heartbeat_ms: 200, lease_ms: 1500", "heartbeat_ms: 300, lease_ms: 3000"))
        assert davit(stack, "reload").returncode == 0

        def told():
            with open(stack.broker.log, encoding="utf-8") as log:
                return "worker w0 comes anew for the times of its pool" in log.read()
        wait_for("the worker is sent to come anew", told)
        wait_for("the worker is back", lambda: stack.online() == 1)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        job = stack.job(p["id"], "a")
        assert len(stack.get(f"/jobs/{job['id']}")["attempts"]) == 1, job


def a_worker_is_sent_away(build):
    with Stack(build, workers=2, slots=2) as stack:
        stay, go = stack.workers
        assert [w["name"] for w in stack.get("/workers?name=w1")["items"]] == ["w1"]
        assert stack.get("/workers?name=w")["items"] == []
        assert "no worker `w`" in davit(stack, "workers", "pause", "w").stderr
        pause = "job:\n  script: ['sleep 2', 'echo done']\n"
        stack.post(f"/workers/{worker_id(stack, 'w0')}/pause")
        p = stack.submit(pause)
        stack.wait_job(p["id"], "job", "running")
        done = davit(stack, "workers", "drain", "w1", "--leave")
        assert done.returncode == 0 and "then its process ends" in done.stdout, done
        assert stack.job(p["id"], "job")["status"] == "running" and go.alive()
        assert "leaving" in davit(stack, "workers").stdout
        assert stack.wait_pipeline(p["id"])["status"] == "success"  # its job first
        wait_for("it has left", lambda: not go.alive())
        assert go.process.wait() == 0
        assert b"done" in stack.log(stack.job(p["id"], "job")["id"])
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        go.start()  # whoever starts it again meanwhile
        wait_for("it has left again", lambda: not go.alive())
        assert go.process.wait() == 0 and "left" in davit(stack, "workers").stdout
        assert davit(stack, "workers", "undrain", "w1").returncode == 0
        go.start()
        wait_for("it is back", lambda: stack.online() == 2)

        # What runs longer than the deadline goes to another worker, and then it leaves.
        p = stack.submit("job:\n  script: ['test -e %s/second || { touch %s/second; sleep 60; }']\n"
                         % (stack.dir, stack.dir))
        stack.wait_job(p["id"], "job", "running")
        stack.post(f"/workers/{worker_id(stack, 'w0')}/resume")
        start = time.monotonic()
        done = davit(stack, "drain", "w1", "--leave", "--deadline", "1s")
        assert done.returncode == 0, done
        wait_for("it has left", lambda: not go.alive())
        assert go.process.wait() == 0 and time.monotonic() - start < 15
        assert stack.wait_pipeline(p["id"])["status"] == "success" and stay.alive()
        assert davit(stack, "drain", "w1", "--undo", "--leave").returncode != 0
        with open(os.path.join(ROOT, "deploy/systemd/davit-worker.service"), encoding="ascii") as f:
            assert "\nRestart=on-failure\n" in f.read()  # exit code 0 is none


def worker_id(stack, name):
    return next(w["id"] for w in stack.get("/workers?name=" + name)["items"])


def a_drained_worker_has_a_deadline(build):
    with Stack(build, workers=1) as stack:
        p = stack.submit("a: {script: [sleep 30]}\nb: {script: [sleep 30], on_worker_lost: fail}\n")
        for name in ("a", "b"):
            stack.wait_job(p["id"], name, "running")
        done = davit(stack, "drain", "w0", "--deadline", "2s")
        assert done.returncode == 0 and "until 20" in done.stdout, done
        assert stack.get("/workers")["items"][0]["drain_until"], stack.get("/workers")
        assert stack.wait_job(p["id"], "b", "failed")["reason"] == "worker_shutdown"
        assert stack.wait_job(p["id"], "a", "pending")
        wait_for("the worker has killed its copies", lambda: not stack.lead_shims())
        why = stack.get(f"/jobs/{stack.job(p['id'], 'a')['id']}/why")
        assert why["workers"][0]["reason"] == "the worker drains", why
        assert davit(stack, "drain", "w0", "--undo").returncode == 0
        stack.wait_job(p["id"], "a", "running")
        assert len(stack.get(f"/jobs/{stack.job(p['id'], 'a')['id']}")["attempts"]) == 2


def the_program_of_a_worker_is_replaced_under_its_job(build):
    """The new program is this one with another version written into it."""
    with Stack(build, workers=1) as stack:
        worker = stack.workers[0]
        worker.stop()
        folder = os.path.join(stack.dir, "bin")
        os.mkdir(folder)
        for name in ("davit-worker", "davit-shim"):
            shutil.copy(stack.program(name), folder)
        worker.argv[0] = os.path.join(folder, "davit-worker")
        worker.start()
        wait_for("the worker is there", lambda: stack.online() == 1)
        p = stack.submit("a: {script: ['for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 1; done']}\n")
        stack.wait_job(p["id"], "a", "running")
        for name in ("davit-worker", "davit-shim"):
            with open(os.path.join(folder, name), "rb") as f:
                new = f.read().replace(VERSION, b"9" + VERSION[1:])
            with open(os.path.join(folder, "new"), "wb") as f:
                f.write(new)
            os.chmod(os.path.join(folder, "new"), 0o755)
            os.rename(os.path.join(folder, "new"), os.path.join(folder, name))
        worker.kill(signal.SIGTERM)  # it drains, and leaves at the second one
        with open(worker.log, encoding="utf-8") as log:
            wait_for("it drains", lambda: "a second signal leaves at once" in log.read())
        worker.kill(signal.SIGTERM)
        worker.process.wait(20)
        worker.start()
        wait_for("the new program is there", lambda: (lambda w: w["online"] and w["version"][0] == "9")(
            stack.get("/workers")["items"][0]))
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        job = stack.get(f"/jobs/{stack.job(p['id'], 'a')['id']}")
        assert len(job["attempts"]) == 1, job
        text = stack.log(job["id"]).decode()
        for i in range(1, 9):
            assert text.count(f"\nline {i}\n") == 1, text
        done = davit(stack, "doctor")
        assert done.returncode == 1 and "worker w0" in done.stdout and "upgrade it" in done.stdout, done.stdout


def the_doctor_says_what_to_do(build):
    with Configured(build, FILE, workers=1, slots=1) as stack:
        done = davit(stack, "doctor")
        assert done.returncode == 0, done.stdout + done.stderr
        for check in ("store", "journal", "open files", "configuration", "workers", "clock", "version",
                      "authority", "server certificate"):
            assert f"ok   {check} " in done.stdout, (check, done.stdout)
        stack.write(FILE.replace("30d", "31d"))
        done = davit(stack, "doctor")
        assert done.returncode == 1 and "davit reload" in done.stdout, done.stdout
        stack.write("nonsense: 1\n")
        done = davit(stack, "doctor", "--json")
        checks = {c["check"]: c for c in json.loads(done.stdout)["checks"]}
        assert not checks["configuration"]["ok"] and ":1:1: " in checks["configuration"]["found"], checks
        stack.write(FILE)

        stack.workers[0].stop()
        stack.workers[0].argv += ["--min-free-mb", "999999999"]
        stack.workers[0].start()
        said = "the worker's disk is nearly full"
        wait_for("it says why", lambda: said in davit(stack, "workers").stdout)
        done = davit(stack, "doctor")
        assert done.returncode == 1 and said in done.stdout, done.stdout
        p = stack.submit("a: {script: [echo hello]}\n")
        why = davit(stack, "why", str(stack.job(p["id"], "a")["id"]))
        assert said in why.stdout, why
        with open(os.path.join(stack.data, "user.token"), encoding="ascii") as f:
            user = f.read().strip()
        done = subprocess.run([stack.program("davit"), "doctor", "--url", stack.url], capture_output=True,
                              text=True, timeout=60, check=False, env=dict(os.environ, DAVIT_TOKEN=user))
        assert "workers" in done.stdout and "not allowed" not in done.stderr, done


def dashboards_and_alerts_name_metrics_that_there_are(build):
    with Stack(build, workers=1) as stack:
        shown = stack.request("GET", "/metrics", raw=True).decode()
        shown = stack.request("GET", "/metrics", raw=True).decode()  # now with a request that was answered
    there = set(re.findall(r"^(\w+)(?:\{.*\})? [0-9.e+-]+$", shown, re.M))
    assert "davit_workers_online" in there, shown
    rules = os.path.join(ROOT, "deploy", "prometheus", "davit.rules.yml")
    with open(rules, encoding="utf-8") as f:
        exprs = re.findall(r"^ +expr: (.*)$", f.read(), re.M)
    with open(os.path.join(ROOT, "deploy", "grafana", "davit.json"), encoding="utf-8") as f:
        board = json.load(f)
    exprs += [t["expr"] for panel in board["panels"] for t in panel.get("targets", ())]
    assert len(exprs) > 30, exprs
    for expr in exprs:
        for name in re.findall(r"\b(?:davit|process)_\w+", expr):
            assert name in there, f"{name} is no metric: {expr}"
    promtool = shutil.which("promtool")
    if promtool is None:
        print("skipped: promtool, which comes with the package prometheus")
        return
    done = subprocess.run([promtool, "check", "rules", rules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def a_full_disk_refuses_new_work_and_keeps_the_rest(build):
    stack = Stack(build, workers=1)
    os.mkdir(stack.data, 0o700)
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=220m,mode=700", "none", stack.data],
        capture_output=True, check=False).returncode == 0
    if not mounted:
        print("skipped: a small disk, which takes the right to mount one")
        return
    try:
        with stack:
            p = stack.submit("a: {script: [echo begun, sleep 8, echo ended]}\n")
            stack.wait_job(p["id"], "a", "running")
            filler = os.path.join(stack.data, "filler")
            room = shutil.disk_usage(stack.data).free - 20 * 1024 * 1024
            with open(filler, "wb") as f:
                os.posix_fallocate(f.fileno(), 0, room)
            body = {"project": "e2e", "ref": "main", "file": "x", "files": {"x": "a: {script: [a]}\n"}}
            wait_for("new work is refused", lambda: status_of(
                lambda: stack.post("/pipelines", body, key=os.urandom(8).hex()))[0] == 507)
            assert "davit_store_full 1" in stack.request("GET", "/metrics", raw=True).decode()
            done = davit(stack, "doctor")
            assert done.returncode == 1 and "make room" in done.stdout, done.stdout
            assert stack.wait_pipeline(p["id"])["status"] == "success"
            assert b"\nended\n" in stack.log(stack.job(p["id"], "a")["id"])
            os.remove(filler)
            wait_for("new work is taken again", lambda: status_of(
                lambda: stack.post("/pipelines", body, key=os.urandom(8).hex()))[0] == 200)
            stack.stop()
            stack.fsck()
    finally:
        subprocess.run(["umount", "--lazy", stack.data], check=False)
        shutil.rmtree(stack.dir, ignore_errors=True)


if __name__ == "__main__":
    main([a_file_declares_pools_and_is_reloaded, a_start_with_a_bad_file_says_where,
          a_worker_of_a_pool_has_its_lease, a_lease_that_is_reloaded_loses_no_job,
          a_worker_is_sent_away, a_drained_worker_has_a_deadline, the_program_of_a_worker_is_replaced_under_its_job,
          the_doctor_says_what_to_do, dashboards_and_alerts_name_metrics_that_there_are,
          a_full_disk_refuses_new_work_and_keeps_the_rest])
