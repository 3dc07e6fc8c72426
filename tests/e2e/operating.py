"""What operators do: the configuration file and its reload."""
import os
import signal
import subprocess

from stack import ApiError, Stack, main, wait_for

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

    def davit(self, *args):
        return subprocess.run([self.program("davit"), *args, "--data", self.data],
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
        assert stack.davit("pools", "delete", "fast").returncode != 0
        assert stack.get("/projects/e2e/app")["weight"] == 300
        stack.request("PUT", "/api/v1/pools/other", {"locked": True})

        stack.write(FILE.replace("locked: true", "locked: false") + "http: 127.0.0.1:1\nlog_level: debug\n")
        done = stack.davit("reload")
        assert done.returncode == 0, done
        assert "changed: pool fast" in done.stdout and "changed: log-level" in done.stdout, done.stdout
        assert "waits for a restart" not in done.stdout  # the address is on the command line, too
        assert not stack.pool("fast")["locked"]

        stack.write(FILE + "lease_ms: 60000\nmore: 1\n")
        done = stack.davit("reload")
        assert done.returncode == 65 and f"{stack.file}:8:1: " in done.stderr, done
        assert not stack.pool("fast")["locked"]
        stack.write(FILE + "durability: relaxed:50\n")
        done = stack.davit("reload", "--json")
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
        assert stack.davit("reload").returncode == 0
        with open(stack.broker.log, encoding="utf-8") as log:
            assert "worker w0 comes anew for the times of its pool" in log.read()
        wait_for("the worker is back", lambda: stack.online() == 1)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        job = stack.job(p["id"], "a")
        assert len(stack.get(f"/jobs/{job['id']}")["attempts"]) == 1, job


if __name__ == "__main__":
    main([a_file_declares_pools_and_is_reloaded, a_start_with_a_bad_file_says_where,
          a_worker_of_a_pool_has_its_lease, a_lease_that_is_reloaded_loses_no_job])
