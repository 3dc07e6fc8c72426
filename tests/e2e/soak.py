"""Hours of random load, with the memory and the descriptors of every process on record.

    soak.py BUILD [--minutes N] [--seed N] [--workers N] [--every S]

For all that time: pipelines, jobs without one, retries, cancels, followers that leave, readers of the
API; workers are killed, and so is the broker during the first quarter. Afterwards the broker and the
first worker are left alive, so that their memory has one long life to grow in. What has ended goes
after a minute: what is kept stays of one size.

What must hold:
  - no job has two attempts that succeeded, and a pipeline that nobody canceled ends in success;
  - nothing that was acknowledged hangs: all is over within ten minutes;
  - no job is left without an end, no process is left over, the store passes its audit;
  - once warm, memory of its own (RssAnon) and descriptors of those two do not grow: the line that
    fits the samples best (Theil and Sen: the median of all slopes) rises by less than ALLOWED.

Not part of `meson test`: it takes as long as it is told to.
"""
import argparse
import contextlib
import http.client
import os
import random
import socket
import statistics
import sys
import threading
import time

from stack import SKIP, ApiError, Stack, wait_for

KEEP = "60s"
# At least so much, or this part of the median. glibc keeps what its 16 arenas once had, each as the busiest moment of its
# threads left it: in half an hour 2 to 6 MB more, of which nothing is in use.
ALLOWED = {"anon kB": (8192, 0.10), "fds": (12, 0.20)}
HANGS_S = 600  # on a busy machine what is of low priority waits for long
WARM = 0.35  # of the long life
ENDED = ("success", "failed", "canceled", "skipped")

PIPELINES = {
    "plain": "stages: [a, b]\n"
             "one: {stage: a, script: ['echo one > out; seq 200'], artifacts: {paths: [out], expire_in: 10 min}}\n"
             "two: {stage: b, script: [cat out, sleep 0.3]}\n"
             "three: {stage: b, needs: [], script: ['seq 3000']}\n",
    "wide": "".join(f"j{i}: {{script: ['echo {i}; sleep 0.{i % 5}']}}\n" for i in range(20)),
    "slow": "s: {script: ['for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 1; done']}\n",
    "again": "r: {retry: 2, allow_failure: true, script: ['exit 1']}\n"
             "g: {resource_group: one, script: [sleep 0.2]}\n",
    "loud": "l: {script: ['seq 100000'], cache: {key: k, paths: [c]}}\n",
}


class Load:
    """Threads that do one thing each until they are told to stop; the first failure is kept."""

    def __init__(self, stack, seed):
        self.stack = stack
        self.seed = seed
        self.stopping = threading.Event()
        self.counts = {}
        self.lock = threading.Lock()
        self.failure = None
        self.threads = []
        self.running = []  # (pipeline, job id) that may be looked at, followed, canceled

    def count(self, what, n=1):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + n

    def start(self, what, times=1):
        for _ in range(times):
            rng = random.Random(self.seed + len(self.threads))
            t = threading.Thread(target=self.loop, args=(what, rng), daemon=True)
            self.threads.append(t)
            t.start()

    def loop(self, what, rng):
        while not self.stopping.is_set():
            try:
                what(rng)
            except Exception as e:  # handed to the main thread
                self.failure = self.failure or e
                self.stopping.set()

    def pause(self, rng, upto_s):
        self.stopping.wait(rng.uniform(0, upto_s))

    def known(self, rng):
        with self.lock:
            return rng.choice(self.running) if self.running else None

    def gone(self, call):
        """What has been deleted for its age, or has ended, cannot be had, canceled or retried."""
        try:
            return self.stack.patient(call)
        except ApiError as e:
            if e.status not in (404, 409, 422):
                raise
            return None

    # one thread's work, again and again

    def pipeline(self, rng):
        kind = rng.choice(sorted(PIPELINES))
        p = self.stack.submit(PIPELINES[kind], project=f"soak/{rng.randrange(3)}")
        canceled = rng.random() < 0.15
        entry = (p["id"], rng.choice(p["jobs"])["id"])
        with self.lock:
            self.running.append(entry)
        if canceled:
            self.pause(rng, 3)
            self.gone(lambda: self.stack.post(f"/pipelines/{p['id']}/cancel"))
            self.count("canceled")
        self.wait_end(p["id"], kind, canceled, rng)
        with self.lock:
            self.running.remove(entry)
        self.count("pipelines")

    def wait_end(self, ident, kind, canceled, rng):
        end = time.monotonic() + HANGS_S
        while True:
            p = self.stack.patient(lambda: self.stack.get(f"/pipelines/{ident}"))
            if p["status"] in ENDED:
                break
            assert time.monotonic() < end, f"pipeline {ident} ({kind}) is {p['status']} still: {p}"
            time.sleep(0.25)
        assert canceled or p["status"] == "success", f"pipeline {ident} ({kind}): {p}"
        for j in p["jobs"]:
            self.audit(j["id"])
        if canceled and rng.random() < 0.5:
            self.gone(lambda: self.stack.post(f"/pipelines/{ident}/retry"))
            self.count("pipelines retried")

    def audit(self, job_id):
        job = self.gone(lambda: self.stack.get(f"/jobs/{job_id}"))
        if job:
            good = [a for a in job["attempts"] if a["status"] == "success"]
            assert len(good) <= 1, f"job {job_id} succeeded {len(good)} times: {job}"
            self.count("attempts", len(job["attempts"]))

    def lone(self, rng):
        jobs = [{"script": rng.choice(["true", "echo $X", "exit 3", "sleep 0.5", "seq 500"]),
                 "priority": rng.randrange(-5, 6), "variables": [{"name": "X", "value": "y" * rng.randrange(200)}],
                 "keep": "60s"} for _ in range(rng.choice([1, 1, 1, 20, 60]))]
        made = self.stack.patient(lambda: self.stack.post("/jobs", {"project": "soak/lone", "jobs": jobs}))["jobs"]
        self.count("jobs alone", len(jobs))
        if rng.random() < 0.2:
            self.gone(lambda: self.stack.post(f"/jobs/{made[0]['id']}/cancel"))
        for made_one in made[-2:]:
            end = time.monotonic() + HANGS_S
            while True:
                job = self.gone(lambda m=made_one: self.stack.get(f"/jobs/{m['id']}"))
                if not job or job["status"] in ENDED:
                    break
                assert time.monotonic() < end, job
                time.sleep(0.2)
            self.audit(made_one["id"])
        if rng.random() < 0.2:
            self.gone(lambda: self.stack.post(f"/jobs/{made[-1]['id']}/retry"))

    def follow(self, rng):
        """Half of those that follow go away in the middle."""
        entry = self.known(rng)
        if not entry:
            self.pause(rng, 0.5)
            return
        path = rng.choice([f"/jobs/{entry[1]}/log/follow", f"/pipelines/{entry[0]}/events", "/events"])
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.http_port, timeout=3)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/api/v1" + path, headers={"Authorization": "Bearer " + self.stack.token()})
            answer = connection.getresponse()
            end = time.monotonic() + rng.uniform(0.1, 6)
            while time.monotonic() < end and not self.stopping.is_set():
                if not answer.readline():
                    break
        connection.close()
        self.count("followed")

    def read(self, rng):
        entry = self.known(rng)
        paths = ["/pipelines", "/jobs", "/workers", "/jobs?status=pending", "/pipelines?status=running", "/pools",
                 "/projects", "/audit", "/doctor", "/caches?project=soak/0"]
        if entry:
            paths += [f"/jobs/{entry[1]}", f"/jobs/{entry[1]}/why", f"/pipelines/{entry[0]}"] * 2
            paths += [f"/jobs/{entry[1]}/log"]
        path = rng.choice(paths)
        self.gone(lambda: self.stack.get(path, raw=True))
        if rng.random() < 0.05:
            self.stack.patient(lambda: self.stack.request("GET", "/metrics", raw=True))
        self.count("read")
        self.pause(rng, 0.4)

    def strangers(self, rng):
        """Connections to both ports that say little, or nothing of use."""
        port = rng.choice([self.stack.fleet_port, self.stack.http_port])
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
                s.sendall(rng.choice([b"", b"\0SP\0\0\x30\0\0", b"GET / HTTP/1.1\r\n", bytes(rng.randrange(300))]))
                self.pause(rng, 0.5)
        self.count("strangers")
        self.pause(rng, 1)

    def kill_worker(self, rng):
        self.pause(rng, 20)
        worker = rng.choice(self.stack.workers[1:])
        worker.kill()
        self.pause(rng, 2)
        worker.start()
        self.count("worker kills")

    def stop(self):
        self.stopping.set()
        for t in self.threads:
            t.join(HANGS_S + 60)
            assert not t.is_alive(), "a thread of the load hangs"


def status_of(pid, field):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith(field + ":")).split()[1])


def descriptors_of(pid):
    """How many are open, and of those that are not counted in this how many are logs of jobs: the
    broker keeps the 512 that were read last."""
    fds = logs = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            if "/data/logs/" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                logs += 1
            else:
                fds += 1
    return fds, logs


def kilobytes_of(folder):
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(os.path.join(top, name)).st_blocks // 2
    return total


class Records:
    """Samples of all processes; those of one life of a process are one series."""

    def __init__(self, stack):
        self.stack = stack
        self.series = {}  # (name, pid): [{...}]
        self.started = time.monotonic()

    def take(self):
        children = [self.stack.broker] + self.stack.workers
        for child in children:
            with contextlib.suppress(OSError, StopIteration):
                pid = child.pid
                fds, logs = descriptors_of(pid)
                row = {"s": time.monotonic() - self.started, "anon kB": status_of(pid, "RssAnon"),
                       "rss kB": status_of(pid, "VmRSS"), "fds": fds, "logs": logs,
                       "threads": status_of(pid, "Threads")}
                if child is self.stack.broker:
                    row["data kB"] = kilobytes_of(self.stack.data)
                    row["store kB"] = kilobytes_of(os.path.join(self.stack.data, "store"))
                self.series.setdefault((child.name, pid), []).append(row)

    def longest(self, name):
        return max((rows for (n, _), rows in self.series.items() if n == name), key=len)

    def table(self):
        print(f"{'process':10} {'pid':>8} {'from s':>7} {'to s':>7} {'anon kB: first':>15} {'median':>8} {'most':>8} "
              f"{'last':>8} {'fds':>5} {'most':>5}")
        for (name, pid), rows in sorted(self.series.items(), key=lambda item: (item[0][0], item[1][0]["s"])):
            anon = [r["anon kB"] for r in rows]
            print(f"{name:10} {pid:8} {rows[0]['s']:7.0f} {rows[-1]['s']:7.0f} {anon[0]:15} "
                  f"{statistics.median(anon):8.0f} {max(anon):8} {anon[-1]:8} {rows[-1]['fds']:5} "
                  f"{max(r['fds'] for r in rows):5}")
        rows = self.longest("davitd")
        print(f"{'broker, s':>10} {'anon kB':>9} {'rss kB':>9} {'fds':>5} {'logs':>5} {'threads':>8} "
              f"{'store kB':>9} {'data kB':>9}")
        for r in rows[::max(1, len(rows) // 15)]:
            print(f"{r['s']:10.0f} {r['anon kB']:9} {r['rss kB']:9} {r['fds']:5} {r['logs']:5} {r['threads']:8} "
                  f"{r['store kB']:9} {r['data kB']:9}")


def slope(points):
    """Theil and Sen: half of the points may lie anywhere."""
    step = max(1, len(points) // 400)
    points = points[::step]
    return statistics.median((y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points)
                             for x2, y2 in points[i + 1:])


def grows(name, rows):
    """Prints what the line says, returns what grew."""
    warm = rows[int(len(rows) * WARM):]
    found = []
    for field, (floor, part) in ALLOWED.items():
        values = [r[field] for r in warm]
        span_s = warm[-1]["s"] - warm[0]["s"]
        rise = slope([(r["s"], r[field]) for r in warm]) * span_s
        allowed = max(floor, part * statistics.median(values))
        print(f"{name}: {field} {statistics.median(values):.0f}, {rise:+.0f} in {span_s:.0f} s, allowed {allowed:.0f}")
        if rise > allowed:
            found.append(f"{name}: {field} grew by {rise:.0f} in {span_s:.0f} s, from {values[0]} to {values[-1]}")
    return found


def kill_broker(stack, load, rng):
    stack.broker.kill()
    time.sleep(rng.choice([0, 0.5, 3]))
    stack.broker.start()
    load.count("broker kills")


def watch(stack, load, records, args):
    """The whole time: samples, and during the first quarter kills of the broker."""
    rng = random.Random(args.seed)
    end = time.monotonic() + args.minutes * 60
    next_kill = time.monotonic() + 15
    last_kill = time.monotonic() + args.minutes * 60 / 4
    while time.monotonic() < end and not load.stopping.is_set():
        records.take()
        load.stopping.wait(args.every)
        assert stack.workers[0].alive(), "the first worker ended"
        assert stack.broker.alive(), "the broker ended"
        if next_kill < time.monotonic() < last_kill:
            kill_broker(stack, load, rng)
            next_kill = time.monotonic() + rng.uniform(15, 60)


def over(stack):
    for status in ("pending", "assigned", "running", "canceling"):
        if stack.get(f"/jobs?status={status}")["items"]:
            return False
    return True


def run(args):
    with Stack(args.build, workers=args.workers, slots=4, davitd=("--keep-pipelines", KEEP)) as stack:
        load = Load(stack, args.seed)
        records = Records(stack)
        load.start(load.pipeline, 5)
        load.start(load.lone, 3)
        load.start(load.follow, 4)
        load.start(load.read, 2)
        load.start(load.strangers)
        load.start(load.kill_worker)
        try:
            watch(stack, load, records, args)
        finally:
            load.stop()
            print("seed", args.seed, load.counts)
            records.table()
        if load.failure:
            raise load.failure
        wait_for("all that was asked for is over", lambda: over(stack), HANGS_S, 0.5)
        wait_for("no process of a job is left", lambda: not stack.job_processes(), 10)
        found = grows("davitd", records.longest("davitd")) + grows("w0", records.longest("w0"))
        assert stack.workers[0].alive() and len([k for k in records.series if k[0] == "w0"]) == 1
        stack.stop()
        stack.fsck()
        assert not found, found


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--minutes", type=float, default=30)
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    p.add_argument("--workers", type=int, default=3)
    p.add_argument("--every", type=float, default=3, help="seconds between samples")
    args = p.parse_args()
    if not os.path.exists(os.path.join(args.build, "davitd")):
        print("skipped: no davitd in", args.build)
        sys.exit(SKIP)
    if args.workers < 2:
        p.error("--workers: two at least, one that lives and one to kill")
    print(f"seed {args.seed}", flush=True)
    run(args)
    print("ok   nothing grew")


if __name__ == "__main__":
    main()
