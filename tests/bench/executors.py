"""Models of concurrency side by side: a process a job, processes that are there already, an event loop."""
import asyncio
import os
import shutil
import sys
import threading
import time

from stack import Stack, wait_for

ANSWER_S = 0.1  # what the server of the I/O-bound jobs takes
HASHES = 4000   # of the CPU-bound jobs

WORK = f"""
import hashlib
def work(text):
    digest = text.encode()
    for _ in range({HASHES}):
        digest = hashlib.sha256(digest * 16).digest()
    return digest.hex()
"""
FETCH = """
import urllib.request
def work(text):
    return urllib.request.urlopen(text).read().decode()
"""
NOTHING = """
def work(text):
    return text
"""
LOOP = """
import json, sys
{work}
print(json.dumps({{"ready": True}}), flush=True)
for line in sys.stdin:
    job = json.loads(line)
    print(json.dumps({{"id": job["id"], "output": work(job["input"])}}), flush=True)
"""
ALONE = """
import sys
{work}
print(work(sys.argv[1]))
"""


async def serve_client(reader, writer):
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(ANSWER_S)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    writer.close()


def start_slow_server():
    """One that answers after ANSWER_S, any number at a time; its port."""
    ready = threading.Event()
    found = []

    async def serve():
        server = await asyncio.start_server(serve_client, "127.0.0.1", 0, backlog=4096)
        found.append(server.sockets[0].getsockname()[1])
        ready.set()
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    ready.wait()
    return found[0]


def unfinished(stack):
    return any(stack.get(f"/jobs?project=bench&status={status}&limit=1")["items"]
               for status in ("pending", "assigned", "running"))


def flood(stack, job, count):
    """Jobs a second: from the first request to the last one's end."""
    start = time.monotonic()
    ids = []
    while len(ids) < count:
        some = min(1000, count - len(ids))
        ids += [j["id"] for j in stack.post("/jobs", {"project": "bench", "jobs": [job] * some})["jobs"]]
    wait_for("the jobs end", lambda: not unfinished(stack), 600, pause_s=0.01)
    spent = time.monotonic() - start
    for ident in ids[:: max(1, count // 20)]:
        done = stack.get(f"/jobs/{ident}")
        assert done["status"] == "success", done
    return count / spent


def alone(stack, job):
    """ms from the request to the end of one job on an idle worker."""
    start = time.monotonic()
    ident = stack.post("/jobs", {"project": "bench", "jobs": [job]})["jobs"][0]["id"]
    wait_for("the job ends", lambda: stack.get(f"/jobs/{ident}")["status"] == "success", 60, pause_s=0.002)
    return (time.monotonic() - start) * 1000


class Model:
    """A way to run jobs: a worker's options, and each kind of work as a job of it."""

    def __init__(self, name, options, jobs):
        self.name = name
        self.options = options
        self.jobs = jobs  # kind -> job


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def process_jobs(folder, executor, url):
    kinds = {"nothing": (NOTHING, "x"), "cpu": (WORK, "x"), "io": (FETCH, url)}
    jobs = {}
    for kind, (work, text) in kinds.items():
        path = write(folder, f"alone-{kind}.py", ALONE.format(work=work))
        jobs[kind] = {"command": [sys.executable, path, text], "executor": executor}
    jobs["bare"] = {"command": ["true"], "executor": executor}
    return jobs


def models(folder, url, quick):
    cores = os.cpu_count()
    wide = 64
    pools = []
    for kind, work in (("nothing", NOTHING), ("cpu", WORK), ("io", FETCH)):
        path = write(folder, f"loop-{kind}.py", LOOP.format(work=work))
        many = wide if kind == "io" else cores
        pools += ["--prefork", f"{kind}:{many}={sys.executable} {path}"]
    prefork = {kind: {"action": {"prefork": {"name": kind, "input": url if kind == "io" else "x"}}}
               for kind in ("nothing", "cpu", "io")}
    yield Model("process a job (shell)", ["--slots", str(wide)], process_jobs(folder, "shell", url))
    if shutil.which("bwrap") and not quick:
        read = ["--sandbox-read", os.path.realpath(folder)]
        if not os.path.realpath(sys.executable).startswith("/usr/"):
            read += ["--sandbox-read", sys.prefix]
        yield Model("process a job in a sandbox", ["--executors", "sandbox", "--slots", str(wide), *read],
                    process_jobs(folder, "sandbox", url))
    yield Model("pool of processes (prefork)", [*pools, "--actions", str(4 * wide)], prefork)
    yield Model("event loop (action)", ["--executors", "shell,action", "--actions", "1000"],
                {"nothing": {"action": {"wait": 0}}, "io": {"action": {"http": {"url": url}}}})


def executors(bench):
    """What a job costs by itself, and jobs a second of CPU-bound and I/O-bound work, by executor."""
    url = f"http://127.0.0.1:{start_slow_server()}/"
    counts = {"nothing": 60, "bare": 100, "cpu": 60, "io": 100} if bench.quick else \
        {"nothing": 1000, "bare": 1000, "cpu": 600, "io": 1000}
    what = {"bare": "/bin/true", "nothing": "an empty job", "cpu": f"{HASHES} hashes in Python",
            "io": f"a request that takes {ANSWER_S * 1000:.0f} ms"}
    folder = bench.folder("executors")
    for model in models(folder, url, bench.quick):
        with Stack(bench.build, workers=1, heartbeat_ms=3000, lease_ms=10000, worker=model.options) as stack:
            for kind, job in model.jobs.items():
                job = {**job, "keep": "10m"}
                alone(stack, job)
                if kind != "io":
                    bench.row(f"{model.name}: {what[kind]}, alone", "ms",
                              [alone(stack, job) for _ in range(10 if bench.quick else 30)], "-")
                count = counts[kind] * (1 if model.name.startswith("process") else 10)
                bench.row(f"{model.name}: {what[kind]}", "jobs/s",
                          [flood(stack, job, count) for _ in range(bench.rounds)], "queue durable")
