"""A real broker and real workers in a temporary folder, for the end-to-end tests.

Everything is started by its own path and stopped by its own pid. Ports are chosen once, so that a
process that is killed can be started again where the others expect it.
"""
import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid

SKIP = 77  # meson's exit code for a skipped test
# Broker and workers are run by this, `valgrind --quiet ...`: what it complains of fails the test.
WRAP = shlex.split(os.environ.get("DAVIT_WRAP", ""))
WRAPPED = ("davitd", "davit-worker")
PATIENCE = 12 if WRAP else 1  # so much slower they are: a first start makes an RSA key


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, condition, timeout_s=20.0, pause_s=0.02):
    """Waits until condition() is true and returns its value; fails the test with `what` else."""
    timeout_s *= PATIENCE
    end = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout_s:.0f} s in vain for: {what}")
        time.sleep(pause_s)


class ApiError(Exception):
    def __init__(self, status, body):
        super().__init__(f"status {status}: {body[:400]!r}")
        self.status = status
        self.body = body

    @property
    def problem(self):
        return json.loads(self.body)


class Child:
    """One program that can be killed and started again."""

    def __init__(self, name, argv, log):
        self.name = name
        self.argv = argv
        self.log = log
        self.process = None

    @property
    def pid(self):
        return self.process.pid

    def start(self):
        wrap = WRAP if os.path.basename(self.argv[0]) in WRAPPED else []
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                wrap + self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def kill(self, sig=signal.SIGKILL):
        if self.alive():
            os.kill(self.process.pid, sig)
            if sig == signal.SIGKILL:
                self.process.wait()

    def stop(self, timeout_s=30):
        if self.alive():
            self.process.terminate()
            try:
                self.process.wait(timeout_s * PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise AssertionError(f"{self.name} did not stop on SIGTERM in {timeout_s} s")

    def complaints(self):
        """What valgrind wrote, who says nothing with --quiet while all is well."""
        with contextlib.suppress(FileNotFoundError), open(self.log, encoding="utf-8", errors="replace") as f:
            return [line for line in f if re.match(r"==\d+== *\S", line)]
        return []


class Stack:
    """Use as a context: `with Stack(build, workers=2) as stack:`"""

    def __init__(self, build, workers=1, slots=4, heartbeat_ms=500, lease_ms=3000, tags=None, pool=None, davitd=(), worker=()):
        self.build = os.path.abspath(build)
        self.dir = tempfile.mkdtemp(prefix="davit-e2e-")
        self.data = os.path.join(self.dir, "data")
        self.fleet_port = free_port()
        self.http_port = free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.broker = Child("davitd", [
            self.program("davitd"), "--data", self.data,
            "--listen", f"tcp://127.0.0.1:{self.fleet_port}",
            "--http", f"127.0.0.1:{self.http_port}",
            "--heartbeat-ms", str(heartbeat_ms), "--lease-ms", str(lease_ms), *davitd,
        ], os.path.join(self.dir, "davitd.log"))
        self.workers = []
        self.context = None  # of TLS, for https
        for i in range(workers):
            argv = [self.program("davit-worker"),
                    "--broker", f"tcp://127.0.0.1:{self.fleet_port}",
                    "--token-file", os.path.join(self.data, "worker.token"),
                    "--state", os.path.join(self.dir, f"worker-{i}"),
                    "--name", f"w{i}", "--slots", str(slots)]
            if tags:
                argv += ["--tags", tags]
            if pool:
                argv += ["--pool", pool]
            argv += worker
            self.workers.append(Child(f"w{i}", argv, os.path.join(self.dir, f"worker-{i}.log")))

    def program(self, name):
        return os.path.join(self.build, name)

    def __enter__(self):
        try:
            self.broker.start()
            self.wait_broker()
            for w in self.workers:
                w.start()
            wait_for("all workers online", lambda: self.online() == len(self.workers))
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def end_wrapped(self, well):
        """Leaks are told of at the end alone, so nothing is killed that may end by itself."""
        for child in self.workers + [self.broker]:
            child.kill(signal.SIGCONT)
            child.kill(signal.SIGTERM)
            if well and child.alive():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.kill(signal.SIGTERM)  # a worker leaves at once, the shims run on
                    child.process.wait(60)
        return [line for child in self.workers + [self.broker] for line in child.complaints()]

    def __exit__(self, kind, value, trace):
        complaints = self.end_wrapped(kind is None) if WRAP else []
        for child in self.workers + [self.broker]:
            child.kill(signal.SIGCONT)
            child.kill()
        for pid in self.job_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if kind is not None and kind is not KeyboardInterrupt:
            for child in [self.broker] + self.workers:
                self.show_log(child)
        if os.environ.get("DAVIT_E2E_KEEP"):
            print("kept", self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)
        if complaints:
            raise AssertionError("complaints of " + WRAP[0] + ":\n" + "".join(complaints[:200]))

    def show_log(self, child, lines=40):
        with contextlib.suppress(FileNotFoundError), open(child.log, "rb") as f:
            text = f.read().decode(errors="replace").splitlines()
            print(f"--- {child.name}, last lines of its log")
            print("\n".join(text[-lines:]))

    def wait_broker(self):
        def healthy():
            if not self.broker.alive():
                raise AssertionError("the broker ended")
            try:
                with urllib.request.urlopen(self.url + "/readyz", timeout=2 * PATIENCE, context=self.context) as answer:
                    return answer.status == 200
            except (OSError, urllib.error.URLError):
                return False
        wait_for("the broker serves", healthy)

    def token(self):
        with open(os.path.join(self.data, "admin.token"), encoding="ascii") as f:
            return f.read().strip()

    def request(self, method, path, body=None, key=None, raw=False, headers=None, timeout=20):
        """One HTTP call; raises ApiError for a bad status, OSError when the broker is away."""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        req = urllib.request.Request(self.url + path, data=data, method=method)
        req.add_header("Authorization", "Bearer " + self.token())
        if data is not None:
            req.add_header("Content-Type", "application/json")
        if key:
            req.add_header("Idempotency-Key", key)
        for name, value in (headers or {}).items():
            req.add_header(name, value)
        try:
            with urllib.request.urlopen(req, timeout=timeout * PATIENCE, context=self.context) as answer:
                content = answer.read()
        except urllib.error.HTTPError as e:
            raise ApiError(e.code, e.read()) from None
        return content if raw else json.loads(content)

    def get(self, path, **kw):
        return self.request("GET", "/api/v1" + path, **kw)

    def post(self, path, body=None, **kw):
        return self.request("POST", "/api/v1" + path, body if body is not None else b"", **kw)

    def patient(self, call, timeout_s=60):
        """Calls until the broker answers: it may be dead just now."""
        end = time.monotonic() + timeout_s * PATIENCE
        while True:
            try:
                return call()
            except ApiError as e:
                if e.status not in (502, 503) or time.monotonic() > end:
                    raise
            except OSError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def online(self):
        return sum(1 for w in self.get("/workers")["items"] if w["online"])

    def submit(self, text, project="e2e", **fields):
        body = {"project": project, "ref": "main", "file": ".gitlab-ci.yml",
                "files": {".gitlab-ci.yml": text}}
        body.update(fields)
        key = uuid.uuid4().hex
        return self.patient(lambda: self.post("/pipelines", body, key=key))

    def pipeline(self, ident):
        return self.patient(lambda: self.get(f"/pipelines/{ident}"))

    def job(self, pipeline, name):
        return next(j for j in self.pipeline(pipeline)["jobs"] if j["name"] == name)

    def log(self, job_id):
        return self.patient(lambda: self.get(f"/jobs/{job_id}/log", raw=True))

    def wait_pipeline(self, ident, timeout_s=60):
        done = ("success", "failed", "canceled", "skipped")
        return wait_for(f"pipeline {ident} ends",
                        lambda: (lambda p: p if p["status"] in done else None)(self.pipeline(ident)),
                        timeout_s, 0.1)

    def wait_job(self, pipeline, name, status, timeout_s=30):
        return wait_for(f"job {name} is {status}",
                        lambda: (lambda j: j if j["status"] == status else None)(
                            self.job(pipeline, name)), timeout_s)

    def shims(self):
        """(pid, job folder) of every live davit-shim of this stack's workers, with what it has just
        forked and what is the job's own as soon as it has called exec."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
                if os.path.basename(argv[0]) == b"davit-shim" and argv[1].startswith(self.dir.encode()):
                    found.append((int(pid), argv[1].decode()))
        return found

    def lead_shims(self):
        """The shims alone: those that their folders name."""
        found = []
        for pid, folder in self.shims():
            with contextlib.suppress(OSError), open(os.path.join(folder, "pid"), "rb") as f:
                if f.read().split()[:1] == [str(pid).encode()]:
                    found.append((pid, folder))
        return found

    def job_processes(self):
        """Every process that runs in or for a job of this stack, whatever became of its parents."""
        mark = b"DAVIT_JOB_FOLDER=" + self.dir.encode()
        found = [pid for pid, _ in self.shims()]
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if mark in f.read():
                        found.append(int(pid))
        return found

    def fsck(self):
        """Checks the whole store of the stopped broker."""
        done = subprocess.run([self.program("davitd"), "fsck", "--data", self.data],
                              capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"fsck: {done.stdout}{done.stderr}"

    def stop(self):
        for w in self.workers:
            w.stop()
        self.broker.stop()


def main(tests):
    """Runs the named tests (all by default) of a file: `FILE BUILD [TEST...]`."""
    build = sys.argv[1]
    wanted = sys.argv[2:]
    if not os.path.exists(os.path.join(build, "davitd")):
        print("skipped: no davitd in", build)
        sys.exit(SKIP)
    for test in tests:
        if wanted and test.__name__ not in wanted:
            continue
        start = time.monotonic()
        test(build)
        print(f"ok   {test.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
