"""Rollouts on a real HAProxy and real processes: a version is promoted step by step, or taken back."""
import collections
import contextlib
import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from operating import Configured
from stack import SKIP, free_port, main, wait_for

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "rollout")

HAPROXY = """
global
  stats socket {dir}/admin.sock mode 600 level admin
defaults
  mode http
  timeout connect 1s
  timeout client 10s
  timeout server 10s
frontend fe
  bind 127.0.0.1:{port}
  http-request set-var(txn.weight) str(web),map_str_int({dir}/weights.map,0)
  http-request set-var(txn.bucket) req.cook(uid),xxh32,mod(10000) if {{ req.cook(uid) -m found }}
  http-request set-var(txn.bucket) rand(10000) unless {{ req.cook(uid) -m found }}
  http-request set-var(txn.below) var(txn.bucket),sub(txn.weight)
  use_backend web_b if {{ var(txn.below) -m int lt 0 }} {{ nbsrv(web_b) gt 0 }}
  use_backend web_a if {{ nbsrv(web_a) gt 0 }}
  default_backend web_b
backend web_a
  option httpchk GET /healthz
  server-template s 1-4 127.0.0.1:1 check inter 200ms fall 2 rise 1 disabled
backend web_b
  option httpchk GET /healthz
  server-template s 1-4 127.0.0.1:1 check inter 200ms fall 2 rise 1 disabled
"""

CONFIG = """
targets:
  production/web:
    instances: 2
    run: {{driver: exec, command: '{python} {here}/instances.py {dir}/instances {first}'}}
    router: {{driver: haproxy, socket: {dir}/admin.sock, map: {dir}/weights.map, key: web, backend_a: web_a, backend_b: web_b}}
    metrics:
      error_rate: {{driver: haproxy, socket: {dir}/admin.sock, backend_a: web_a, backend_b: web_b}}
    tick: 1s
    drain: 1s
"""

PIPELINE = """
deploy:
  environment: production
  rollout:
    target: web
    version: {version}
    steps:
      - {{ weight: 20, hold: 3s }}
      - {{ weight: 50, hold: 2s }}
    analysis:
      - {{ metric: error_rate, tolerance: 1.2, critical: true }}
    bake: 3s
"""


class Load:
    """Some requests a second through the front door, from a few connections."""

    def __init__(self, port, rps=200, threads=4):
        self.port = port
        self.pause = threads / rps
        self.seen = []  # (time, version, status); status 0: no answer
        self.ends = False
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]

    def run(self):
        connection = None
        while not self.ends:
            began = time.monotonic()
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
                connection.request("GET", "/")
                answer = connection.getresponse()
                answer.read()
                self.seen.append((time.monotonic(), answer.getheader("X-Version") or "", answer.status))
            except (OSError, http.client.HTTPException):
                self.seen.append((time.monotonic(), "", 0))
                connection = None
            time.sleep(max(0, self.pause - (time.monotonic() - began)))

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def __exit__(self, *args):
        self.ends = True
        for t in self.threads:
            t.join()

    def since(self, when):
        return [s for s in self.seen if s[0] >= when]


def block_of_ports():
    """A socket that keeps the 59 ports after its own for whoever has it: below those that the kernel
    gives to clients, where an instance that is started later might find its port taken."""
    for first in random.sample(range(12000, 32000, 200), 100):
        taken = []
        block = socket.socket()
        try:
            block.bind(("127.0.0.1", first))
            for port in range(first + 1, first + 60):
                taken.append(socket.socket())
                taken[-1].bind(("127.0.0.1", port))
            return block
        except OSError:
            block.close()
        finally:
            for s in taken:
                s.close()
    raise AssertionError("no 60 ports in a row are free")


class Town(Configured):
    """A stack with a router in front of a service, and one worker that acts."""

    def __init__(self, build, **kw):
        super().__init__(build, "{}\n", workers=1, worker=["--executors", "shell,action"], **kw)
        self.port = free_port()
        self.block = block_of_ports()
        self.instances = os.path.join(self.dir, "instances")
        os.makedirs(os.path.join(self.instances, "faults"))
        self.write(CONFIG.format(python=sys.executable, here=HERE, dir=self.dir, first=self.block.getsockname()[1] + 1))
        with open(os.path.join(self.dir, "haproxy.cfg"), "w", encoding="ascii") as f:
            f.write(HAPROXY.format(dir=self.dir, port=self.port))
        with open(os.path.join(self.dir, "weights.map"), "w", encoding="ascii") as f:
            f.write("web 0\n")

    def __enter__(self):
        self.haproxy = subprocess.Popen(["haproxy", "-db", "-f", os.path.join(self.dir, "haproxy.cfg")],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return super().__enter__()

    def __exit__(self, *args):
        self.haproxy.kill()
        self.haproxy.wait()
        for name in os.listdir(self.instances):
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(os.path.join(self.instances, name), encoding="ascii") as f:
                    os.kill(int(f.read().split('"pid": ')[1].split(",")[0]), signal.SIGKILL)
        self.block.close()
        super().__exit__(*args)

    def fault(self, version, what):
        with open(os.path.join(self.instances, "faults", version), "w", encoding="ascii") as f:
            f.write(what)

    def deploy(self, version):
        return self.submit(PIPELINE.format(version=version))["id"]

    def rollout(self, *args, code=0):
        done = subprocess.run([self.program("davit"), "rollout", *args, "-p", "e2e", "--data", self.data],
                              capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, (args, done)
        return done.stdout + done.stderr

    def deployed(self, version, timeout_s=60):
        ident = self.deploy(version)
        done = self.wait_pipeline(ident, timeout_s)
        assert done["status"] == "success", done
        return ident


def versions(seen):
    return collections.Counter(version for _, version, _ in seen)


def a_version_is_promoted_and_a_bad_one_is_taken_back(build):
    with Town(build) as town:
        town.deployed("v1")
        with Load(town.port) as load:
            time.sleep(1)
            assert set(versions(load.seen)) == {"v1"}, versions(load.seen)
            began = time.monotonic()
            town.deployed("v2")
            seen = load.since(began)
            assert all(status == 200 for _, _, status in seen), collections.Counter(s for _, _, s in seen)
            assert set(versions(seen)) == {"v1", "v2"}
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v2"}

            town.fault("v3", "1")
            ident = town.deploy("v3")
            done = town.wait_pipeline(ident)
            assert done["status"] == "failed", done
            bad = [when for when, version, _ in load.seen if version == "v3"]
            assert bad, "v3 never had traffic"
            print(f"     from the first bad answer to the last: {bad[-1] - bad[0]:.2f} s, {len(bad)} of them")
            assert bad[-1] - bad[0] < 8
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v2"}
        town.stop()
        town.fsck()


def whoever_is_killed_the_rollout_ends_as_it_should(build):
    with Town(build) as town:
        town.deployed("v1")
        with Load(town.port) as load:
            ident = town.deploy("v2")
            wait_for("v2 has traffic", lambda: "v2" in versions(load.seen), 60)
            town.broker.kill()
            town.broker.start()
            town.wait_broker()
            time.sleep(1)
            town.workers[0].kill()
            town.workers[0].start()
            done = town.wait_pipeline(ident, 90)
            assert done["status"] == "success", done
            assert all(status == 200 for _, _, status in load.seen)
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v2"}


def people_see_it_stop_it_and_take_it_back(build):
    with Town(build) as town:
        rollout = town.rollout
        town.deployed("v1")
        with Load(town.port) as load:
            ident = town.deploy("v2")
            wait_for("v2 has traffic", lambda: "v2" in versions(load.seen), 60)
            seen = rollout("status", "production/web")
            assert "> hold 3 s" in seen and "wanted 20.00 %" in seen and "error_rate" in seen, seen
            assert "decides at" in rollout("explain", "production/web")
            assert "paused" in rollout("pause", "production/web")
            time.sleep(5)
            assert "20.00 %" in rollout("status", "production/web")  # the hold is long over
            rollout("resume", "production/web")
            rollout("abort", "production/web", "--reason", "enough")
            assert town.wait_pipeline(ident)["status"] == "failed"
            assert all(status == 200 for _, _, status in load.seen)
        listed = rollout("list")
        assert "v2  rolled_back  0.00 %" in listed and "v1  done  100.00 %" in listed, listed
        assert "no live rollout" in rollout("abort", "production/web", code=66)
        assert "nothing was ever rolled out" in rollout("status", "production/other", code=66)


def an_older_version_comes_back_at_once(build):
    with Town(build) as town:
        town.request("PUT", "/api/v1/variables?project=e2e", {"variables": [{"name": "SECRET", "value": "of a version"}]})
        town.deployed("v1")
        assert "no version before" in town.rollout("undo", "production/web", code=66)
        town.deployed("v2")
        with Load(town.port) as load:
            began = time.monotonic()
            assert "v1" in town.rollout("undo", "production/web", "--reason", "the old one was better")
            assert "done" in town.rollout("watch", "production/web")
            print(f"     back after {time.monotonic() - began:.2f} s")
            assert time.monotonic() - began < 15  # no step, no bake
            assert all(status == 200 for _, _, status in load.seen)
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v1"}
        history = town.rollout("history", "production/web")
        assert "production/web  v1  stable since" in history and ", an undo" in history, history
        assert "production/web  v1" in town.rollout("history")
        town.post("/master-keys/rotate")
        keys = town.get("/master-keys")
        assert [k["variables"] for k in keys["items"][1:]] == [0] * (len(keys["items"]) - 1), keys
        assert keys["items"][0]["variables"] == 3 and keys["unknown"] == 0, keys  # stored, v1, v2
        diff = town.rollout("diff", "production/web", "--from", "v1", "--to", "v2")
        assert "~ version: v1 -> v2" in diff and "command" not in diff, diff
        town.rollout("undo", "production/web", "--to", "v2")
        assert "done" in town.rollout("watch", "production/web")
        assert "keeps no version" in town.rollout("undo", "production/web", "--to", "v7", code=66)
        assert "stable version already" in town.rollout("undo", "production/web", "--to", "v2", code=73)
        town.stop()
        town.fsck()


if __name__ == "__main__":
    if not shutil.which("haproxy"):
        print("skipped: no haproxy")
        sys.exit(SKIP)
    main([
        a_version_is_promoted_and_a_bad_one_is_taken_back,
        whoever_is_killed_the_rollout_ends_as_it_should,
        people_see_it_stop_it_and_take_it_back,
        an_older_version_comes_back_at_once,
    ])
