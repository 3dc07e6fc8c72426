"""Rollouts of services that Davit runs itself: the driver `process`, HAProxy before it, metrics from the instances."""
import collections
import contextlib
import glob
import os
import shutil
import signal
import subprocess
import sys
import time

from rollouts import HERE, Load, Town, versions
from stack import SKIP, main, wait_for

LONG = bool(os.environ.get("DAVIT_E2E_LONG"))

CONFIG = """
targets:
  production/web:
    instances: 2
    run:
      driver: process
      ports: {first}-{last}
      command: exec {python} {here}/service.py $DAVIT_VERSION $PORT {dir}/instances/faults
      health: /healthz
      grace: 2s
    router: {{driver: haproxy, socket: {dir}/admin.sock, map: {dir}/weights.map, key: web, backend_a: web_a, backend_b: web_b}}
    metrics:
      error_rate: {{driver: http, total: requests_total, bad: 'requests_total{{code="5*"}}'}}
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
    analysis:
      - {{ metric: error_rate, tolerance: 1.2, critical: true }}
    bake: 2s
"""

CRASHES = """
deploy:
  environment: production
  rollout:
    target: web
    version: v4
    command: echo there is no database; exit 1
    steps: [{ weight: 20 }]
    analysis: [{ metric: restarts, failures: 3, critical: true }]
    progress: 30s
"""


class Host(Town):
    """A town whose worker runs the service itself."""

    def __init__(self, build):
        super().__init__(build)
        first = self.block.getsockname()[1] + 1
        self.write(CONFIG.format(python="/usr/bin/python3", here=HERE, dir=self.dir, first=first, last=first + 19))

    def keeps(self):
        """{folder: pid} of every davit-keep that lives."""
        found = {}
        for path in glob.glob(os.path.join(self.dir, "worker-0/drivers/process/*/*/pid")):
            with contextlib.suppress(OSError), open(path, encoding="ascii") as f:
                pid = int(f.read().split()[0])
                with open(f"/proc/{pid}/cmdline", "rb") as c:
                    if b"davit-keep" in c.read():
                        found[os.path.dirname(path)] = pid
        return found

    def of_slot(self, slot):
        return {folder: pid for folder, pid in self.keeps().items() if os.path.basename(folder)[0] == slot}

    def __exit__(self, *args):
        for child in self.workers:
            child.kill()  # else it would go on starting them
        for pid in self.keeps().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            wait_for("all instances are gone", lambda: not self.keeps(), 15)
        super().__exit__(*args)

    def deploy(self, version):
        return self.submit(PIPELINE.format(version=version))["id"]


def a_killed_worker_changes_nothing_and_a_bad_version_goes(build):
    with Host(build) as host:
        host.deployed("v1")
        assert len(host.keeps()) == 2, host.keeps()
        with Load(host.port) as load:
            began = time.monotonic()
            ident = host.deploy("v2")
            wait_for("v2 has traffic", lambda: "v2" in versions(load.seen), 60)
            before = host.keeps()
            assert len(before) >= 3, before
            host.workers[0].kill()
            time.sleep(0.5)
            assert host.keeps() == before
            host.workers[0].start()
            done = host.wait_pipeline(ident, 90)
            assert done["status"] == "success", done
            seen = load.since(began)
            assert all(status == 200 for _, _, status in seen), collections.Counter(s for _, _, s in seen)
            after = host.keeps()
            assert len(after) == 2 and after.items() == host.of_slot("b").items(), after
            assert set(before.items()) & set(after.items()), "those that were analysed are those that stay"
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v2"}

            host.fault("v3", "1")
            done = host.wait_pipeline(host.deploy("v3"), 60)
            assert done["status"] == "failed", done
            bad = [when for when, version, _ in load.seen if version == "v3"]
            assert bad, "v3 never had traffic"
            print(f"     from the first bad answer to the last: {bad[-1] - bad[0]:.2f} s, {len(bad)} of them")
            assert bad[-1] - bad[0] < 8
            time.sleep(0.5)
            assert set(versions(load.since(time.monotonic() - 0.4))) == {"v2"}
            wait_for("v3 is removed", lambda: host.keeps() == after, 20)
        host.stop()
        host.fsck()


def what_crashes_gets_no_traffic(build):
    with Host(build) as host:
        host.deployed("v1")
        with Load(host.port) as load:
            done = host.wait_pipeline(host.submit(CRASHES)["id"], 60)
            assert done["status"] == "failed", done
            assert set(versions(load.seen)) == {"v1"}
            assert all(status == 200 for _, _, status in load.seen)
        told = subprocess.run([host.program("davit"), "rollout", "status", "production/web", "-p", "e2e", "--data", host.data],
                              capture_output=True, text=True, timeout=60, check=False).stdout
        assert "restarted 3 times" in told or "there is no database" in told, told
        wait_for("v4 is removed", lambda: not host.of_slot("b"), 20)


def the_example_plays(build):
    play = os.path.join(HERE, "../../../examples/rollout/play")
    done = subprocess.run([play, build], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert any("v2 done 100.00 %" in line for line in lines), done.stdout
    assert any("v3 rolled_back 0.00 %" in line for line in lines), done.stdout
    assert any(line.endswith(", 0 of them without an answer") for line in lines), done.stdout
    assert not any(b"davit-rollout-" in argv for argv in command_lines()), "something of it is left"


def command_lines():
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as f:
            yield f.read()


if __name__ == "__main__":
    if not shutil.which("haproxy"):
        print("skipped: no haproxy")
        sys.exit(SKIP)
    tests = [a_killed_worker_changes_nothing_and_a_bad_version_goes, the_example_plays]
    more = [what_crashes_gets_no_traffic]
    main(tests + more if LONG or sys.argv[2:] else tests)
