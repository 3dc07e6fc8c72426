"""The durable queue beside its peers, the fleet, and fairness: see README.md for what is compared.

A cycle is: submit, the worker has it, its end is acknowledged. All load generators are modes of
bench_queue, on one thread; all peers run at the same time and take turns, round by round, with the
disk settled in between.
"""
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time

import servers

WINDOWS = (1, 8, 64, 256)
BACKLOG_WINDOW = 64
# What was found to be worth a try, per system: (variant, connections). A connection of Redis is a
# set of three, of the others one to submit and one to take (beanstalkd: one to submit in all).
CHOICES = {
    "davit": (("", 1), ("", 2), ("", 4)),
    "redis-list": (("", 1), ("", 2), ("", 4), ("", 8)),
    "redis-stream": (("", 1), ("", 2), ("", 4), ("", 8)),
    "postgres": (("notify", 1), ("notify", 2), ("poll", 1), ("poll", 2), ("poll", 4), ("poll", 8)),
    "beanstalkd": (("", 1), ("", 8), ("", 64)),
    "nats": (("", 1), ("", 2), ("", 4)),
    "rabbitmq": (("", 1), ("", 2), ("", 4), ("", 8)),
}
# These are also tried with a connection for each job in flight: nothing to send together, as where
# each job is submitted and taken by a process of its own.
APART = ("davit", "redis-list", "redis-stream")
NAMES = {
    "davit": ("Davit", "each step"),
    "redis-list": ("Redis lists, appendfsync always", "each step"),
    "redis-stream": ("Redis streams, appendfsync always", "each step"),
    "postgres": ("PostgreSQL, SKIP LOCKED", "each step"),
    "beanstalkd": ("beanstalkd -f 0", "submit and end, never the assignment"),
    "nats": ("NATS JetStream, file", "written; flushed every 2 minutes"),
    "rabbitmq": ("RabbitMQ, quorum queue", "submit; an end when its channel took it"),
}


def run(bench, server, mode, *args, timeout_s=600):
    """One run of bench_queue: its answer, with the server's processor seconds."""
    os.sync()
    before = server.cpu_s()
    done = subprocess.run([bench.program("bench_queue"), mode, "--system", server.system,
                           "--port", str(server.port), *server.options(), *map(str, args)],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=timeout_s)
    answer = json.loads(done.stdout)
    if "all_jobs" in answer:
        time.sleep(0.1)  # processes that served the connections end, and are counted where they went
        answer["server_cpu_s"] = server.cpu_s() - before
    return answer


def installed():
    found = []
    for peer in servers.PEERS:
        if peer.find():
            found.append(peer)
        else:
            print(f"  {peer.program} is not installed: left out", file=sys.stderr)
    return found


def make_servers(bench, folder):
    made = [servers.Davit(folder, bench.build)]
    made += [peer(folder) for peer in installed()]
    return made


def choose(bench, server, window):
    """The variant and the number of connections that suit the server best."""
    choices = [c for c in CHOICES[server.system] if c[1] <= window]
    if len(choices) == 1:
        return choices[0]
    if bench.quick:
        return choices[0 if window == 1 else len(choices) // 2]
    rates = [run(bench, server, "cycle", "--window", window, "--variant", variant, "--connections",
                 connections, "--warm-ms", 300, "--ms", 700)["jobs_per_s"]
             for variant, connections in choices]
    return choices[rates.index(max(rates))]


def report(bench, name, system, results):
    durable = NAMES[system][1]
    bench.row(name, "jobs/s", [r["jobs_per_s"] for r in results], durable)
    for what, key in (("server", "server_cpu_s"), ("generator", "cpu_s")):
        bench.row(f"{name}: processor of the {what}", "us/job",
                  [r[key] * 1e6 / max(1, r["all_jobs"]) for r in results], "-")
    if "cycle_p500_us" in results[0]:
        for point in ("500", "990"):
            bench.row(f"{name}: a cycle, p{point[:2]}", "us",
                      [r[f"cycle_p{point}_us"] for r in results], durable)


def alternate(bench, sides, args):
    """Rounds in turn. sides: (name, server, more arguments)."""
    results = {name: [] for name, _, _ in sides}
    for _ in range(few(bench)):
        for name, server, more in sides:
            results[name].append(run(bench, server, "cycle", *args, *more))
    for name, server, _ in sides:
        report(bench, name, server.system, results[name])


def few(bench):
    """Rounds of what takes long."""
    return 1 if bench.quick else bench.rounds


def times(bench):
    return ("--warm-ms", 200, "--ms", 500) if bench.quick else ("--warm-ms", 500, "--ms", 2000)


def cycles(bench, all_servers):
    for window in (1, 64) if bench.quick else WINDOWS:
        sides = []
        for server in all_servers:
            variant, connections = choose(bench, server, window)
            more = ["--variant", variant, "--connections", connections]
            title = f"{NAMES[server.system][0]}, {window} in flight, {connections} conn."
            sides.append((title + (f" ({variant})" if variant else ""), server, more))
            if server.system == "davit":
                sides.append((title + ", records kept 1 h", server,
                              ["--variant", "keep", "--connections", connections]))
            if window > 1 and server.system in APART:
                sides.append((f"{NAMES[server.system][0]}, {window} in flight, a connection each",
                              server, ["--connections", window]))
        alternate(bench, sides, ("--window", window, *times(bench)))


def latencies(bench, all_servers):
    """An idle queue, a job every few milliseconds: submit to the worker having it."""
    jobs = 200 if bench.quick else 2000
    results = {server.system: [] for server in all_servers}
    for _ in range(few(bench)):
        for server in all_servers:
            results[server.system].append(run(bench, server, "latency", "--jobs", jobs))
    for server in all_servers:
        name, durable = NAMES[server.system]
        for point, title in (("500", "p50"), ("990", "p99"), ("999", "p99.9")):
            bench.row(f"idle queue, submit to worker: {name}, {title}", "us",
                      [r[f"has_p{point}_us"] for r in results[server.system]], durable)


def queue(bench):
    """Durable cycles and dispatch latency, Davit and its peers in turn, each at its best."""
    with servers.running(make_servers(bench, bench.folder("queue"))) as all_servers:
        for server in all_servers:
            server.start()
        cycles(bench, all_servers)
        latencies(bench, all_servers)


def restarts(bench, all_servers, jobs):
    """Killed with a backlog: process start to the first job at a worker."""
    for server in all_servers:
        taken = []
        for _ in range(few(bench)):
            server.kill()
            begin_us = bench.now_us()
            server.start(wait=False)
            if server.system == "davit":
                server.stack.wait_broker()
            first = run(bench, server, "first")
            taken.append((first["first_us"] - begin_us) / 1e6)
        bench.row(f"restart with {jobs:,} pending, to the first assignment: "
                  f"{NAMES[server.system][0]}", "s", taken, NAMES[server.system][1])


def backlog(bench):
    """The same with jobs that wait: in the same lane as the load, and in another one."""
    for jobs in (20000,) if bench.quick else (100000, 1000000):
        folder = bench.folder(f"backlog-{jobs}")
        with servers.running(make_servers(bench, folder)) as all_servers:
            sides = []
            for server in all_servers:
                server.start(relaxed=True)
                variant, connections = choose(bench, server, BACKLOG_WINDOW)
                filled = run(bench, server, "fill", "--jobs", jobs, "--window", 4096)
                bench.row(f"submit of {jobs:,} jobs alone: {NAMES[server.system][0]}", "jobs/s",
                          [filled["jobs_per_s"]],
                          "as said" if server.system == "davit" else "less than said: to fill it")
                server.stop()
                server.start()
                more = ["--variant", variant, "--connections", connections]
                for lane, options in (("empty lane beside", ["--queue", "empty"]),
                                      ("same lane as", ["--backlog"])):
                    sides.append((f"{NAMES[server.system][0]}, {BACKLOG_WINDOW} in flight, {lane} "
                                  f"{jobs:,} pending", server, more + options))
            alternate(bench, sides, ("--window", BACKLOG_WINDOW, *times(bench)))
            restarts(bench, all_servers, jobs)


class Fleet:
    """A running bench_fleet: commands in, answers out."""

    def __init__(self, bench, server, *args):
        self.process = subprocess.Popen(
            [bench.program("bench_fleet"), "--port", str(server.port), *server.options(),
             *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)

    def do(self, *words):
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"bench_fleet ended at {words}")
        return json.loads(line)


def run_fleet(bench, workers):
    name = f"{workers:,} workers"
    jobs = 2000 if bench.quick else 50000
    idle_ms = 3000 if bench.quick else 15000
    with servers.running([servers.Davit(bench.folder(f"fleet-{workers}"), bench.build)]) as (broker,):
        broker.start()
        pid = broker.child.pid
        before_mb = servers.resident_mb(pid)
        with Fleet(bench, broker, "--workers", workers) as fleet:
            bench.row(f"{name}: all connect at once", "s", [fleet.do("connect")["seconds"]],
                      "who they are")
            bench.row(f"{name}: memory of the broker a worker", "KiB",
                      [(servers.resident_mb(pid) - before_mb) * 1000 / workers], "-")
            used = broker.cpu_s()
            fleet.do("idle", idle_ms)
            bench.row(f"{name}: processor of the broker, nothing but heartbeats", "%",
                      [(broker.cpu_s() - used) * 100000 / idle_ms], "-")
            rates = []
            costs = []
            for _ in range(few(bench)):
                used = broker.cpu_s()
                rates.append(jobs / fleet.do("jobs", jobs)["seconds"])
                costs.append((broker.cpu_s() - used) * 1e6 / jobs)
            bench.row(f"{name}, a slot each: whole cycles", "jobs/s", rates, "each step")
            bench.row(f"{name}, a slot each: processor of the broker", "us/job", costs, "-")
            answers = [fleet.do("reconnect", workers) for _ in range(few(bench))]
            bench.row(f"{name} with a running job each cut off at once: all back", "s",
                      [a["seconds"] for a in answers], "-")
            bench.row(f"{name} with a running job each cut off at once: jobs lost", "jobs",
                      [a["lost_jobs"] for a in answers], "-")


def fleet(bench):
    """Protocol-true workers, all from one process, against one broker."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the broker inherits it
    for workers in (100, 1000) if bench.quick else (100, 1000, 10000):
        run_fleet(bench, workers)


def fairness(bench):
    """One project floods four slots with jobs of 100 ms; how long does another's only job wait?"""
    jobs = 5000 if bench.quick else 100000
    job_ms = 100
    with servers.running([servers.Davit(bench.folder("fairness"), bench.build)]) as (broker,):
        broker.start()
        with Fleet(bench, broker, "--workers", 1, "--slots", 4, "--job-ms", job_ms) as crowd:
            crowd.do("connect")
            crowd.do("flood", jobs)
            waits = []
            for _ in range(5 if bench.quick else 30):
                crowd.do("idle", random.randrange(job_ms))  # at any point of the others' jobs
                waits.append(crowd.do("single")["wait_us"] / 1000 / job_ms)
    bench.row(f"a single job beside a flood of {jobs:,} by another project: its wait",
              "job lengths", waits, "each step")
    print(f"  fairness: median {statistics.median(waits):.2f}, longest {max(waits):.2f}",
          file=sys.stderr)
