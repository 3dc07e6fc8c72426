"""Kills broker, workers and shims at random under load, then audits.

    crash.py BUILD [--seed N] [--pipelines N] [--jobs N] [--workers N] [--kills N]

What must hold at the end, whatever was killed:
  - every pipeline that was acknowledged ends in success;
  - every job has exactly one attempt that succeeded;
  - every log holds exactly the bytes that the job's script wrote, once;
  - the store passes its audit, and no process is left over.
"""
import argparse
import os
import random
import signal
import sys
import threading
import time

from stack import SKIP, Stack, wait_for

LOSS_BUDGET = 2  # how often one job may lose its shim before Davit gives it up


def payload_of(rng, size):
    """Bytes that no tool would leave alone by chance: control characters, bad UTF-8, long lines."""
    return bytes(rng.getrandbits(8) for _ in range(size))


class Load:
    """The pipelines: three stages, some jobs with needs, each writing its own payload in pieces."""

    def __init__(self, args, rng, folder):
        self.rng = rng
        self.folder = folder
        self.payloads = {}
        os.makedirs(folder)
        emit = os.path.join(folder, "emit")
        with open(emit, "w", encoding="ascii") as f:
            f.write('#!/bin/sh\nd=$(dirname "$0")\nprintf "<<<BEGIN %s>>>" "$1"\n'
                    'for p in 0 1 2; do cat "$d/$1.$p"; sleep "$2"; done\n'
                    'printf "<<<END %s>>>" "$1"\n')
        os.chmod(emit, 0o755)
        self.texts = [self.pipeline_text(i, args.jobs, emit) for i in range(args.pipelines)]

    def pipeline_text(self, number, jobs, emit):
        lines = ["stages: [a, b, c]"]
        for j in range(jobs):
            name = f"job-{number}-{j}"
            stage = "abc"[j * 3 // jobs]
            payload = payload_of(self.rng, self.rng.choice([0, 1, 300, 5000, 70000]))
            self.payloads[name] = payload
            cut = len(payload) // 3
            for k, piece in enumerate((payload[:cut], payload[cut:2 * cut], payload[2 * cut:])):
                with open(os.path.join(self.folder, f"{name}.{k}"), "wb") as f:
                    f.write(piece)
            pause = self.rng.choice(["0", "0.05", "0.2", "0.5"])
            lines += [f"{name}:", f"  stage: {stage}", f"  script: [{emit} {name} {pause}]"]
            if stage != "a" and self.rng.random() < 0.3:
                lines.append(f"  needs: [job-{number}-{self.rng.randrange(jobs // 3)}]")
        return "\n".join(lines) + "\n"


class Killer(threading.Thread):
    """Kills one thing after the other, and starts broker and workers again."""

    def __init__(self, stack, rng, kills):
        super().__init__()
        self.stack = stack
        self.rng = rng
        self.kills = kills
        self.count = {"broker": 0, "worker": 0, "shim": 0}
        self.shim_kills = {}
        self.failure = None

    def done(self):
        return sum(self.count.values()) >= self.kills

    def run(self):
        try:
            while not self.done():
                time.sleep(self.rng.uniform(0.05, 0.6))
                self.kill_one(self.rng.choice(["broker", "worker", "worker", "shim"]))
        except Exception as e:  # handed to the main thread
            self.failure = e

    def kill_one(self, what):
        if what == "broker":
            self.stack.broker.kill()
            time.sleep(self.rng.choice([0, 0.1, 1.0]))
            self.stack.broker.start()
        elif what == "worker":
            worker = self.rng.choice(self.stack.workers)
            worker.kill()
            time.sleep(self.rng.choice([0, 0.2, 1.0]))
            worker.start()
        elif not self.kill_shim():
            return
        self.count[what] += 1

    def kill_shim(self):
        """Only within the budget: beyond it a job is given up, and rightly so."""
        shims = [(pid, folder) for pid, folder in self.stack.lead_shims()
                 if self.shim_kills.get(self.job_of(folder), 0) < LOSS_BUDGET]
        if not shims:
            return False
        pid, folder = self.rng.choice(sorted(shims))
        job = self.job_of(folder)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        self.shim_kills[job] = self.shim_kills.get(job, 0) + 1
        return True

    @staticmethod
    def job_of(folder):
        return os.path.basename(folder.rstrip("/")).split("-")[0]


def audit_job(stack, job, payload):
    name = job["name"]
    detail = stack.patient(lambda: stack.get(f"/jobs/{job['id']}"))
    good = [a for a in detail["attempts"] if a["status"] == "success"]
    assert detail["status"] == "success", f"{name} is {detail['status']}: {detail['attempts']}"
    assert len(good) == 1, f"{name} has {len(good)} successes: {detail['attempts']}"
    assert good[0]["attempt"] == max(a["attempt"] for a in detail["attempts"]), f"{name}: success is not last"
    log = stack.log(job["id"])
    assert good[0]["log_complete"] and good[0]["log_size"] == len(log), f"{name}: log size"
    begin, end = (f"<<<{w} {name}>>>".encode() for w in ("BEGIN", "END"))
    assert log.count(begin) == 1 and log.count(end) == 1, f"{name}: markers in the log: {log[:200]!r}"
    written = log[log.index(begin) + len(begin):log.index(end)]
    assert written == payload, f"{name}: {len(written)} bytes in the log, {len(payload)} written"
    return len(detail["attempts"])


def audit(stack, load, ids):
    jobs = 0
    attempts = 0
    for ident in ids:
        pipeline = stack.pipeline(ident)
        for job in sorted(pipeline["jobs"], key=lambda j: j["status"] != "failed"):
            attempts += audit_job(stack, job, load.payloads[job["name"]])
            jobs += 1
        assert pipeline["status"] == "success", f"pipeline {ident} is {pipeline['status']}"
    return jobs, attempts


def run(args):
    rng = random.Random(args.seed)
    # Killed processes lose nothing either way: what was written is the kernel's.
    durability = "relaxed:50" if args.seed % 2 else "full"
    with Stack(args.build, workers=args.workers, slots=4, heartbeat_ms=300, lease_ms=2000,
               davitd=["--durability", durability]) as stack:
        load = Load(args, rng, os.path.join(stack.dir, "load"))
        killer = Killer(stack, random.Random(args.seed + 1), args.kills)
        started = time.monotonic()
        killer.start()
        ids = [stack.submit(text)["id"] for text in load.texts]
        try:
            for ident in ids:
                stack.wait_pipeline(ident, timeout_s=args.timeout)
            while killer.is_alive() and not killer.done():  # a fast machine wants more load
                ids.append(stack.submit(load.texts[len(ids) % len(load.texts)])["id"])
                stack.wait_pipeline(ids[-1], timeout_s=args.timeout)
        finally:
            killer.kills = 0
            killer.join()
        if killer.failure:
            raise killer.failure
        took = time.monotonic() - started
        jobs, attempts = audit(stack, load, ids)
        wait_for("no process is left", lambda: not stack.job_processes(), 10)
        stack.stop()
        stack.fsck()
        print(f"ok   {jobs} jobs in {len(ids)} pipelines, {attempts} attempts, kills {killer.count}, "
              f"{took:.1f} s, seed {args.seed}")
        return killer.count


def main():
    p = argparse.ArgumentParser()
    p.add_argument("build")
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    p.add_argument("--pipelines", type=int, default=10)
    p.add_argument("--jobs", type=int, default=30)
    p.add_argument("--workers", type=int, default=3)
    p.add_argument("--kills", type=int, default=30)
    p.add_argument("--timeout", type=float, default=300)
    args = p.parse_args()
    if not os.path.exists(os.path.join(args.build, "davitd")):
        print("skipped: no davitd in", args.build)
        sys.exit(SKIP)
    print(f"seed {args.seed}", flush=True)
    count = run(args)
    assert sum(count.values()) >= args.kills, count


if __name__ == "__main__":
    main()
