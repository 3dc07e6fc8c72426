#!/usr/bin/env python3
"""What TLS costs: `tls.py BUILD` prints one table, TLS beside plain text on the same machine.

A handshake is a worker's, with a certificate on both sides, and its cost the broker's own processor
time (the client is this script, whose time does not count). Memory is the broker's, for connections
that have shaken hands and said nothing yet. Jobs are run by real workers, which start processes:
what is small against that does not show.
"""
import os
import socket
import ssl
import statistics
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
# pylint: disable=wrong-import-position
from stack import Stack, wait_for
from tls import TlsStack

CONNECTIONS = 400
JOBS = 200
LOG_MB = 40
ROUNDS = 5
GREETING = b"\0SP\0\0\x30\0\0"


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def connect(stack, context):
    s = socket.create_connection(("127.0.0.1", stack.fleet_port), timeout=20)
    if context:
        s = context.wrap_socket(s, server_hostname="127.0.0.1")
    s.sendall(GREETING)
    assert s.recv(8) == b"\0SP\0\0\x31\0\0"
    return s


def connections(stack, context):
    """CPU time (ms) and memory (kB) of a connection, at the broker."""
    for _ in range(50):
        connect(stack, context).close()  # what is made once
    time.sleep(0.5)
    cpu, rss = cpu_s(stack.broker.pid), rss_kb(stack.broker.pid)
    held = [connect(stack, context) for _ in range(CONNECTIONS)]
    cpu, rss = cpu_s(stack.broker.pid) - cpu, rss_kb(stack.broker.pid) - rss
    for s in held:
        s.close()
    return cpu * 1000 / CONNECTIONS, rss / CONNECTIONS


def jobs_a_second(stack):
    jobs = [{"name": f"j{i}", "command": ["true"]} for i in range(JOBS)]
    start = time.monotonic()
    ids = [j["id"] for j in stack.post("/jobs", {"project": "bench", "jobs": jobs})["jobs"]]
    wait_for("all jobs end", lambda: not stack.get("/jobs?status=pending")["items"] and
             not stack.get("/jobs?status=running")["items"] and
             not stack.get("/jobs?status=assigned")["items"], 300, 0.05)
    assert len(ids) == JOBS
    return JOBS / (time.monotonic() - start)


def log_mb_a_second(stack):
    p = stack.submit(f"log: {{script: ['seq {LOG_MB * 125000}']}}\n")  # eight bytes a line, about
    start = time.monotonic()
    assert stack.wait_pipeline(p["id"], 300)["status"] == "success"
    return LOG_MB / (time.monotonic() - start)


def spread(values):
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(build):
    with Stack(build, workers=1, slots=8) as plain, TlsStack(build) as tls:
        tls.start_joined("w", "--slots", "8")
        context = ssl.create_default_context(cafile=tls.ca)
        context.load_cert_chain(os.path.join(tls.state("w"), "tls", "identity.pem"))
        pairs = [(plain, None), (tls, context)]
        costs = [connections(stack, how) for stack, how in pairs]
        jobs, logs = ([], []), ([], [])
        for _ in range(ROUNDS):  # in turn: what else the machine does hits both
            for i, (stack, _) in enumerate(pairs):
                jobs[i].append(jobs_a_second(stack))
                logs[i].append(log_mb_a_second(stack))
    print(f"{'':42} {'plain':>24} {'TLS 1.3':>24}")
    rows = [("connection: broker's CPU, ms", *[f"{cpu:.2f}" for cpu, _ in costs]),
            ("connections a second, one core", *[f"{1000 / max(cpu, 0.01):.0f}" for cpu, _ in costs]),
            ("memory of an idle connection, kB", *[f"{kb:.1f}" for _, kb in costs]),
            ("jobs a second, one worker, 8 slots", spread(jobs[0]), spread(jobs[1])),
            ("log of one job, MB/s", spread(logs[0]), spread(logs[1]))]
    for name, a, b in rows:
        print(f"{name:42} {a:>24} {b:>24}")


if __name__ == "__main__":
    main(sys.argv[1])
