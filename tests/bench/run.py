"""Drives the benchmarks and prints one table: `run.py BUILD [--quick] [--only NAME[,NAME]]`.

Everything runs on the disk that holds BUILD. Each figure is the median of its samples; the spread
is the lowest and the highest of them.
"""
import argparse
import contextlib
import http.client
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e"))
import blobs  # noqa: E402
import executors  # noqa: E402
import generate  # noqa: E402
import peer_compile  # noqa: E402
import queue_bench  # noqa: E402
import rollout_bench  # noqa: E402
import tls_bench  # noqa: E402
from stack import Stack, wait_for  # noqa: E402

EVERY_STEP = "each step on disk before its answer"


class Bench:
    def __init__(self, build, quick, runs=0):
        self.build = build
        self.quick = quick
        self.runs = runs  # of each line of `rollouts`; 0: what it likes
        self.rounds = 3 if quick else 5
        self.rows = []

    def program(self, name):
        return os.path.join(self.build, "tests", "bench", name)

    @staticmethod
    def folder(name):
        """A new one on the disk that is measured; other users' servers may look into it."""
        path = os.path.join(tempfile.gettempdir(), name)
        os.mkdir(path, 0o755)
        return path

    @staticmethod
    def now_us():
        return time.monotonic_ns() // 1000

    def row(self, name, unit, samples, durable):
        """Keeps one line of the table and shows it at once."""
        digits = 0 if min(samples) >= 1000 else 1 if min(samples) >= 10 else 2
        numbers = [f"{x:,.{digits}f}" for x in
                   (statistics.median(samples), min(samples), max(samples))]
        self.rows.append([name, unit, *numbers, str(len(samples)), durable])
        print(f"  {name}: {numbers[0]} {unit}", file=sys.stderr)

    def load(self, mode, stack, *args):
        """Runs bench_load against a stack; its answers, a dict a line."""
        with open(os.path.join(stack.data, "worker.token"), encoding="ascii") as f:
            worker_token = f.read().strip()
        done = subprocess.run(
            [self.program("bench_load"), mode, "--port", str(stack.http_port),
             "--token", stack.token(), "--url", f"tcp://127.0.0.1:{stack.fleet_port}",
             "--worker-token", worker_token, *args],
            stdout=subprocess.PIPE, text=True, check=True, timeout=120)
        return [json.loads(line) for line in done.stdout.splitlines()]


def percentile(samples, p):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def floors(bench):
    """What the machine can do without us."""
    done = subprocess.run([bench.program("bench_floor"), tempfile.gettempdir()],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    for line in done.stdout.splitlines():
        floor = json.loads(line)
        durable = "on disk" if "fdatasync" in floor["name"] or "commit" in floor["name"] else "-"
        bench.row("floor: " + floor["name"], floor["unit"], floor["samples"], durable)


def cycle(bench):
    """Submit over HTTP, assignment and result over nng: a job from nothing to its recorded end."""
    for clients in (1, 8, 64):
        with Stack(bench.build, workers=0, heartbeat_ms=3000, lease_ms=10000) as stack:
            rounds = bench.load("cycle", stack, "--clients", str(clients),
                                "--rounds", str(bench.rounds + 1),
                                "--round-ms", "1000" if bench.quick else "3000")
        del rounds[0]  # it warms up
        name = f"durable cycle, {clients} client{'s' if clients > 1 else ''}"
        bench.row(name, "jobs/s", [r["jobs_per_s"] for r in rounds], EVERY_STEP)
        bench.row(name + ", p50", "ms", [r["p50_us"] / 1000 for r in rounds], EVERY_STEP)
        bench.row(name + ", p99", "ms", [r["p99_us"] / 1000 for r in rounds], EVERY_STEP)


def dispatch(bench):
    """From the answer to a submit to the first command of the script, on a worker that idles."""
    times = []
    with Stack(bench.build, workers=1, heartbeat_ms=3000, lease_ms=10000) as stack:
        mark = os.path.join(stack.dir, "mark")
        text = f"job: {{script: ['echo $EPOCHREALTIME > {mark}.new', 'mv {mark}.new {mark}']}}\n"
        body = json.dumps({"project": "bench", "ref": "main", "file": ".gitlab-ci.yml",
                           "files": {".gitlab-ci.yml": text}})
        headers = {"Authorization": "Bearer " + stack.token(), "Content-Type": "application/json"}
        connection = http.client.HTTPConnection("127.0.0.1", stack.http_port)
        for _ in range(30 if bench.quick else 200):
            connection.request("POST", "/api/v1/pipelines", body, headers)
            answer = connection.getresponse()
            answered = time.time()
            pipeline = json.loads(answer.read())
            assert answer.status == 201, pipeline
            wait_for("the script runs", lambda: os.path.exists(mark), pause_s=0.001)
            with open(mark, encoding="ascii") as f:
                times.append((float(f.read()) - answered) * 1000)
            os.unlink(mark)
            stack.wait_pipeline(pipeline["id"])
    third = len(times) // 3
    parts = [times[:third], times[third:2 * third], times[2 * third:]]
    for p in (50, 99):
        bench.row(f"dispatch to an idle worker: 201 of the submit to script start, p{p}", "ms",
                  [percentile(part, p) for part in parts],
                  "submit, assignment, and the spec on the worker's disk")


def local_run(bench):
    """`davit run` as a user times it: private broker and worker, snapshot, jobs, clean-up."""
    for jobs in (1, 10, 100):
        times = []
        for _ in range(bench.rounds):
            # Not below BUILD: there the command would find the repository around it.
            with tempfile.TemporaryDirectory(prefix="davit-bench-", dir="/tmp") as tree:
                with open(os.path.join(tree, ".gitlab-ci.yml"), "w", encoding="ascii") as f:
                    f.write("".join(f"job-{i}: {{script: ['true']}}\n" for i in range(jobs)))
                start = time.monotonic()
                done = subprocess.run([os.path.join(bench.build, "davit"), "run"], cwd=tree,
                                      stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, check=False, timeout=300)
                times.append(time.monotonic() - start)
                assert done.returncode == 0, done.stdout[-2000:]
        bench.row(f"davit run of {jobs} trivial job{'s' if jobs > 1 else ''}", "s", times,
                  EVERY_STEP + ", in /tmp")


def restart(bench):
    """kill -9 under 100,000 pending jobs, then: start of davitd to the first job at a worker."""
    pipelines = 5 if bench.quick else 50
    with Stack(bench.build, workers=0, heartbeat_ms=3000, lease_ms=10000) as stack:
        filled = bench.load("fill", stack, "--pipelines", str(pipelines), "--jobs", "2000")[0]
        jobs = filled["jobs"]
        bench.row(f"submit of {jobs:,} jobs, 2,000 a pipeline", "jobs/s",
                  [jobs / filled["seconds"]], "on disk before the 201")
        times = []
        for _ in range(bench.rounds):
            stack.broker.kill(signal.SIGKILL)
            start = time.monotonic()
            stack.broker.start()
            times.append(bench.load("first", stack)[0]["first_us"] / 1e6 - start)
        bench.row(f"restart with {jobs:,} pending jobs: process start to first assignment", "s",
                  times, "the assignment")
        size = os.path.getsize(os.path.join(stack.data, "store", "data.mdb"))
        bench.row(f"store file with {jobs:,} pending jobs", "MB", [size / 1e6], "-")


COMPILE_JOBS = (10, 100, 500, 1000, 2000)
COMPILE_INCLUDES = (10, 100, 500)
ROOT = ".gitlab-ci.yml"


def real_projects():
    """Folders of the corpora with a root file at their top; none where they are not there."""
    root = os.environ.get("DAVIT_CORPORA") or os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "..", "..", "shared", "corpora")
    folder = os.path.join(root, "real-world")
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    if not names:
        print(f"  no projects below {folder}: left out", file=sys.stderr)
    return [(name, os.path.join(folder, name)) for name in names
            if os.path.isfile(os.path.join(folder, name, ROOT))]


def compile_one(bench, name, folder, memory=True):
    """Rows for one folder, with `memory` for processor and memory, too; the processor's median."""
    done = subprocess.run([bench.program("bench_compile"), folder, ROOT,
                           "9" if bench.quick else "25"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    result = json.loads(done.stdout)
    times = [us / 1000 for us in result["samples_us"]]
    what = f"{result['jobs']} jobs" if result["errors"] == 0 else f"{result['errors']} errors"
    bench.row(f"compile {name} ({what})", "ms", times, "-")
    cpu = [us / 1000 for us in result["cpu_us"]]
    if memory:
        bench.row(f"compile {name}: time of the processor alone", "ms", cpu, "-")
        bench.row(f"compile {name}: peak memory of the process", "MB",
                  [result["peak_kib"] / 1000], "-")
    return statistics.median(cpu)


def compile_files(bench):
    """The compiler alone: the text of the files is in memory, a plan comes out."""
    curve = []
    with tempfile.TemporaryDirectory(prefix="davit-compile-", dir="/tmp") as tree:
        for make, sizes in ((generate.jobs, COMPILE_JOBS), (generate.includes, COMPILE_INCLUDES)):
            for size in sizes:
                folder = os.path.join(tree, f"{make.__name__}-{size}")
                make(folder, size)
                name = f"{size} generated {make.__name__}"
                curve.append((name, size, compile_one(bench, name, folder, size >= 500)))
        for name, size, median in curve:
            print(f"  curve: {name}: {1000 * median / size:.1f} us each "
                  + "#" * round(500 * median / size), file=sys.stderr)
        projects = [(compile_one(bench, name, folder, name == "mesa"), name, folder)
                    for name, folder in real_projects()]
        sides = [(f"{size} generated jobs", os.path.join(tree, f"jobs-{size}"))
                 for size in (10, 1000)]
        sides += [(name, folder) for _, name, folder in sorted(projects)[-1:]]
        peer_compile.side_by_side(bench, sides)


def rollout_stats(bench):
    """Sequential tests of rollouts beside rules of thresholds, on the same traffic of a seed."""
    done = subprocess.run([bench.program("bench_rollout_stats"), "1000" if bench.quick else "10000"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=3600)
    for line in done.stdout.splitlines():
        figure = json.loads(line)
        if "found" in figure:
            figure["name"] += f" ({figure['found']:g} %)"
        if figure["samples"]:
            bench.row(figure["name"], figure["unit"], figure["samples"], "-")


BENCHES = {
    "floors": floors,
    "cycle": cycle,
    "dispatch": dispatch,
    "run": local_run,
    "compile": compile_files,
    "restart": restart,
    "blobs": blobs.blobs,
    "queue": queue_bench.queue,
    "backlog": queue_bench.backlog,
    "fleet": queue_bench.fleet,
    "fairness": queue_bench.fairness,
    "executors": executors.executors,
    "rollouts": rollout_bench.rollouts,
    "rollout-stats": rollout_stats,
    "tls": tls_bench.tls,
}


def filesystem(path):
    done = subprocess.run(["stat", "-f", "-c", "%T", path], stdout=subprocess.PIPE, text=True,
                          check=True)
    return done.stdout.strip()


def cpu_model():
    with contextlib.suppress(OSError):
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.machine()


def print_table(bench, directory):
    head = ["figure", "unit", "median", "lowest", "highest", "samples", "durable"]
    widths = [max(len(row[i]) for row in [head] + bench.rows) for i in range(len(head))]
    print(f"kernel {platform.release()}, {os.cpu_count()} CPUs ({cpu_model()}), "
          f"{filesystem(directory)} at {directory}")
    print(f"load at the end {os.getloadavg()[0]:.1f}; release build; broker, workers and clients "
          "share the machine")
    print()
    for row in [head, ["-" * w for w in widths]] + bench.rows:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |")


def main():
    parser = argparse.ArgumentParser(description="Davit's figures")
    parser.add_argument("build")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--only", help="of " + ", ".join(BENCHES))
    parser.add_argument("--runs", type=int, help="rollouts of each line of `rollouts`: 1 to 1000")
    parser.add_argument("names", nargs="*", metavar="NAME", help="the same as --only")
    args = parser.parse_intermixed_args()
    wanted = args.names + (args.only.split(",") if args.only else []) or list(BENCHES)
    for name in wanted:
        if name not in BENCHES:
            parser.error(f"there is no benchmark {name}")
    if args.runs is not None and not 1 <= args.runs <= 1000:
        parser.error("--runs: 1 to 1000")
    if args.runs and "rollouts" not in wanted:
        parser.error("--runs is for `rollouts`")
    # Not /tmp: it may live in memory, where nothing is durable.
    directory = tempfile.mkdtemp(prefix="bench-", dir=os.path.abspath(args.build))
    os.chmod(directory, 0o755)
    tempfile.tempdir = os.environ["TMPDIR"] = directory
    bench = Bench(os.path.abspath(args.build), args.quick, args.runs or 0)
    try:
        for name in wanted:
            print(f"{name}: {BENCHES[name].__doc__}", file=sys.stderr)
            BENCHES[name](bench)
        print_table(bench, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


main()
