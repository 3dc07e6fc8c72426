"""Rollouts on a real HAProxy: how long a bad version is seen, what a change of weight costs its users."""
import json
import os
import random
import shutil
import socket
import subprocess
import time

from rollouts import Load, Town
from stack import wait_for

PIPELINE = """
deploy:
  environment: production
  rollout:
    target: web
    version: {version}
    steps:
      - {{ weight: 50, hold: 30m }}
    analysis:
      - {{ metric: error_rate, tolerance: 1.2, critical: true }}
"""

# Requests a second at the new version, share of them that fail. What is slower (1 a second with 5 %)
# takes minutes by its nature: ./bench rollout-stats has it without a clock.
CELLS = [(100, 1), (100, 0.2), (100, 0.05), (10, 1), (10, 0.2), (1, 1)]

# The rule of thresholds that others have by default: a measurement every 10 s, failed above 5 %, five
# in a row.
RULE_S, RULE_SHARE, RULE_TIMES, RULE_MOST_S = 10, 0.05, 5, 3600


def rule_seconds(rng, rps, share):
    """When that rule would have ended it, on requests of the same rate and share."""
    row = 0
    for i in range(1, RULE_MOST_S // RULE_S + 1):
        requests = rps * RULE_S
        bad = sum(rng.random() < share for _ in range(requests))
        row = row + 1 if bad > RULE_SHARE * requests else 0
        if row == RULE_TIMES:
            return i * RULE_S
    return RULE_MOST_S


def weight(town):
    """What the router has, in basis points."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(os.path.join(town.dir, "admin.sock"))
        s.sendall(f"show map {town.dir}/weights.map\n".encode())
        text = b""
        while more := s.recv(4096):
            text += more
    return int(text.split()[2])


def live_rollout(town):
    return wait_for("a live rollout", lambda: next(
        (r for r in town.get("/rollouts?project=e2e&state=live")["items"]), None), 30)


def one_bad_version(town, load, name, share):
    """Seconds from its first bad answer to its last answer of any kind."""
    town.fault(name, str(share))
    pipeline = town.submit(PIPELINE.format(version=name))["id"]
    assert town.wait_pipeline(pipeline, 1200)["status"] == "failed"
    seen = [(when, status) for when, version, status in load.seen if version == name]
    first = next(when for when, status in seen if status >= 500)
    return seen[-1][0] - first


def bad_versions(bench, town, runs):
    rng = random.Random(1)
    for rps, share in CELLS:
        times = []
        with Load(town.port, rps=2 * rps, threads=min(8, 2 * rps)) as load:
            for i in range(runs):
                times.append(one_bad_version(town, load, f"bad-{rps}-{int(share * 100)}-{i}", share))
                load.seen.clear()
        name = f"{rps} requests/s at the new version, {share:.0%} bad: first bad answer to its last answer"
        bench.row(name, "s", times, "-")
        bench.row(f"{name}, p99", "s", [sorted(times)[min(runs - 1, int(runs * 0.99))]], "-")
        bench.row(f"{rps} requests/s, {share:.0%} bad: a threshold of {RULE_SHARE:.0%}, {RULE_TIMES} times {RULE_S} s "
                  "(simulated)", "s", [rule_seconds(rng, rps, share) for _ in range(runs)], "-")


def aborts(bench, town, runs):
    """From the request of a person to the router's weight."""
    times = []
    with Load(town.port, rps=50):
        for i in range(runs):
            stable = weight(town)
            pipeline = town.submit(PIPELINE.format(version=f"fine-{i}"))["id"]
            wait_for("it has traffic", lambda: weight(town) not in (0, 10000), 60)
            ident = live_rollout(town)["id"]
            began = time.monotonic()
            town.post(f"/rollouts/{ident}/abort", {})
            wait_for("the weight is back", lambda: weight(town) == stable, 30, pause_s=0.001)
            times.append((time.monotonic() - began) * 1000)
            town.wait_pipeline(pipeline, 120)
    bench.row("abort: request to the weight in HAProxy", "ms", times, "each step on disk")


def changes(bench, town):
    """Weights up and down while there is load; every request must be answered."""
    count = 200 if bench.quick else 1000
    pipeline = town.submit(PIPELINE.format(version="steady"))["id"]
    wait_for("it has traffic", lambda: weight(town) not in (0, 10000), 60)
    ident = live_rollout(town)["id"]
    town.post(f"/rollouts/{ident}/pause", {})
    folder = os.path.join(town.dir, "router")
    os.makedirs(folder)
    with Load(town.port, rps=300, threads=8) as load:
        done = subprocess.run([bench.program("bench_router"), folder, os.path.join(town.dir, "admin.sock"),
                               os.path.join(town.dir, "weights.map"), str(count), "20"],
                              stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    bad = sum(status != 200 for _, _, status in load.seen)
    bench.row("change of weight in HAProxy, written, set, read back", "ms",
              [us / 1000 for us in json.loads(done.stdout)["us"]], "map file flushed")
    bench.row(f"requests that failed, of {len(load.seen)} during {count} changes", "requests", [bad], "-")
    town.post(f"/rollouts/{ident}/abort", {})
    town.wait_pipeline(pipeline, 120)


def rollouts(bench):
    """From the first bad answer to the last; changes of weight under load; aborts."""
    if not shutil.which("haproxy", path=os.environ["PATH"] + ":/usr/sbin"):
        print("rollouts: no haproxy here")
        return
    runs = bench.runs or (5 if bench.quick else 30)
    with Town(bench.build) as town:
        town.deployed("v1", 120)
        changes(bench, town)
        aborts(bench, town, runs)
        bad_versions(bench, town, runs)
