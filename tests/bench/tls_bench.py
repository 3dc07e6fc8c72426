"""What TLS costs: each figure with and without it, on the same machine in the same run, in turns.

A handshake is a worker's, with a certificate on both sides; what it costs is the broker's own processor
time, as the client is this script. Memory is the broker's. A worker that runs nothing takes jobs and
ends them in batches, so that what is measured is the broker and the wire; one that runs them starts
processes, beside which the wire is small.
"""
import os
import socket
import ssl
import time

import wire
from stack import Stack, wait_for
from tls import TlsStack

CONNECTIONS = 300
BATCHES = 4
IDLE_BATCH = 150
WORKER_BATCH = 20
WORKERS = 5 + BATCHES * WORKER_BATCH
IDLE_JOBS = 3000
REAL_JOBS = 100
LOG_MB = 16
TIMES = {"heartbeat_ms": 3000, "lease_ms": 60000}
DURABLE = "each step on disk before its answer"
HOW = ("plain", "TLS 1.3")


def cpu_s(pid):
    total = 0  # of the threads that there are: none of the broker's ends
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/schedstat", encoding="ascii") as f:
            total += int(f.read().split()[0])
    return total / 1e9


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("RssAnon")).split()[1])


class Side:
    """One of the two brokers, and what it takes to speak to it."""

    def __init__(self, stack, joined):
        self.stack = stack
        self.pid = stack.broker.pid
        self.joined = joined  # state folders; empty: plain
        self.context = None
        if joined:
            self.context = ssl.create_default_context(cafile=stack.ca)
            self.context.load_cert_chain(os.path.join(joined[0], "tls", "identity.pem"))
        self.token = "" if joined else open(os.path.join(stack.data, "worker.token"), encoding="ascii").read().strip()

    def connect(self):
        s = socket.create_connection(("127.0.0.1", self.stack.fleet_port), timeout=20)
        if self.context:
            s = self.context.wrap_socket(s, server_hostname="127.0.0.1")
        s.sendall(wire.GREETING)
        assert s.recv(8) == b"\0SP\0\0\x31\0\0"
        return s

    def worker(self, i, slots=1):
        state = self.joined[i] if self.joined else None
        return wire.Worker(self.stack, state, f"sim-{i}", uid=None if state else f"{i:016}".encode(), slots=slots,
                           token=self.token)

    def memory(self):
        """Memory (kB) of a worker with its session, and of a connection that says nothing, in batches on top of
        each other: what was freed once would be had for nothing."""
        held, samples = [], []
        for size, connect in ((WORKER_BATCH, self.worker), (IDLE_BATCH, lambda i: self.connect())):
            held += [connect(i) for i in range(5)]
            kept = []
            for batch in range(BATCHES):
                rss = rss_kb(self.pid)
                held += [connect(5 + batch * size + i) for i in range(size)]
                kept.append((rss_kb(self.pid) - rss) / size)
            samples.append(kept)
        for s in held:
            s.close()
        return samples

    def connections(self):
        """Processor time (ms) of a connection, its handshake and its end."""
        cpu = cpu_s(self.pid)
        for _ in range(CONNECTIONS):
            self.connect().close()
        return (cpu_s(self.pid) - cpu) * 1000 / CONNECTIONS

    def idle_jobs(self):
        """Jobs a second, and the broker's processor time (us) a job, with a worker that runs nothing."""
        for _ in range(0, IDLE_JOBS, 1000):
            jobs = [{"script": "true", "keep": 0}] * 1000
            self.stack.post("/jobs", {"project": "bench", "jobs": jobs})
        cpu, start = cpu_s(self.pid), time.monotonic()
        w = self.worker(0, slots=256)
        done = 0
        while done < IDLE_JOBS:
            kind, body = w.expect(wire.ASSIGN, wire.FINISH_ACK, timeout_s=60)
            if kind == wire.FINISH_ACK:
                done += len(body[1])
                continue
            keys = [wire.unpack(spec)[1][0] for spec in body[1]]
            w.send(wire.JOB_FINISHED, [(1, [(1, k), (2, [(1, wire.SUCCESS)])]) for k in keys])
        took, cpu = time.monotonic() - start, cpu_s(self.pid) - cpu
        w.send(wire.BYE, [])
        w.expect(wire.BYE_ACK)
        w.close()
        return IDLE_JOBS / took, cpu * 1e6 / IDLE_JOBS

    def real_jobs(self):
        jobs = [{"command": ["true"]}] * REAL_JOBS
        start = time.monotonic()
        self.stack.post("/jobs", {"project": "bench", "jobs": jobs})
        wait_for("all jobs end", lambda: not any(self.stack.get(f"/jobs?status={s}")["items"]
                                                 for s in ("pending", "assigned", "running")), 300, 0.02)
        return REAL_JOBS / (time.monotonic() - start)

    def log(self):
        p = self.stack.submit(f"log: {{script: ['seq {LOG_MB * 125000}']}}\n")  # eight bytes a line, about
        start = time.monotonic()
        assert self.stack.wait_pipeline(p["id"], 300)["status"] == "success"
        return LOG_MB / (time.monotonic() - start)


def join(stack, i):
    done = stack.join(f"sim-{i}", stack.new_token())
    assert done.returncode == 0, done
    return stack.state(f"sim-{i}")


def simulated(bench, rounds):
    """Without a real worker, which would take the jobs."""
    with Stack(bench.build, workers=0, **TIMES) as plain, TlsStack(bench.build, **TIMES) as tls:
        sides = [Side(plain, []), Side(tls, [join(tls, i) for i in range(WORKERS)])]
        memory = [side.memory() for side in sides]
        figures = [[], []]
        for _ in range(rounds):
            for side, kept in zip(sides, figures):
                kept.append((side.connections(), *side.idle_jobs()))
    for how, kept, (worker, idle) in zip(HOW, figures, memory):
        cpu, jobs, job_cpu = zip(*kept[1:])  # the first warms up
        bench.row(f"{how}: broker's processor time of a connection, with its handshake", "ms", cpu, "-")
        bench.row(f"{how}: connections a second, of one core of the broker's", "1/s", [1000 / c for c in cpu], "-")
        bench.row(f"{how}: memory of an idle connection", "kB", idle, "-")
        bench.row(f"{how}: memory of a worker with its session", "kB", worker, "-")
        bench.row(f"{how}: jobs of a worker that runs nothing", "jobs/s", jobs, DURABLE)
        bench.row(f"{how}: broker's processor time of such a job", "us", job_cpu, "-")


def real(bench, rounds):
    with Stack(bench.build, workers=1, slots=8, **TIMES) as plain, TlsStack(bench.build, **TIMES) as tls:
        tls.start_joined("w", "--slots", "8")
        figures = [[], []]
        for _ in range(rounds):
            for side, kept in zip((Side(plain, []), Side(tls, [tls.state("w")])), figures):
                kept.append((side.real_jobs(), side.log()))
    for how, kept in zip(HOW, figures):
        jobs, log = zip(*kept[1:])
        bench.row(f"{how}: jobs of a worker with 8 slots, each a process", "jobs/s", jobs, DURABLE)
        bench.row(f"{how}: log of one job", "MB/s", log, "each acknowledged byte on disk")


def tls(bench):
    """What TLS costs the broker: the same with and without it."""
    simulated(bench, bench.rounds + 1)
    real(bench, bench.rounds + 1)
