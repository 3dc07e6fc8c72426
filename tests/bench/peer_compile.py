"""The same files through processes: `davit lint` beside `gitlab-ci-local --list-json`.

gitlab-ci-local is a program of node: its time holds the start of node, which is measured alone as
well. It comes from npm into a folder of its own; where that does not work, or rsync is missing, the
figures go on without it.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

PACKAGES = ["node@22", "gitlab-ci-local"]


def install():
    """The folder with both programs below it, or None and a message."""
    folder = os.environ.get("DAVIT_BENCH_PEERS") or os.path.join(
        os.path.expanduser("~"), ".cache", "davit-bench", "peers")
    if os.path.exists(os.path.join(folder, "node_modules", ".bin", "gitlab-ci-local")):
        return folder
    if not shutil.which("npm") or not shutil.which("rsync"):
        print("  no gitlab-ci-local: it needs npm and rsync", file=sys.stderr)
        return None
    os.makedirs(folder, exist_ok=True)
    try:
        subprocess.run(["npm", "install", "--prefix", folder, "--no-audit", "--no-fund", *PACKAGES],
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, timeout=600)
    except (subprocess.SubprocessError, OSError) as e:
        why = getattr(e, "stderr", None) or str(e).encode()
        print("  no gitlab-ci-local: " + why.decode(errors="replace").strip()[-300:],
              file=sys.stderr)
        return None
    return folder


def timed(argv, cwd, env):
    """Milliseconds of one process, and whether it liked the file."""
    start = time.monotonic()
    done = subprocess.run(argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, timeout=300)
    return (time.monotonic() - start) * 1000, done.returncode == 0


def working_tree(source, folder):
    """A repository with the files of `source`: both programs want one."""
    shutil.copytree(source, folder)
    git = ["git", "-C", folder, "-c", "user.name=bench", "-c", "user.email=bench@example.org"]
    for args in (["init", "-q", "-b", "main"],
                 ["remote", "add", "origin", "git@example.org:group/demo.git"],
                 ["add", "-A", "-f"], ["commit", "-q", "-m", "Bench"]):
        subprocess.run(git + args, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)


def side_by_side(bench, sides):
    """Alternating, so that whatever else the machine does hits both."""
    peers = install()
    rounds = 9
    davit = os.path.join(bench.build, "davit")
    bin_dir = os.path.join(peers, "node_modules", ".bin") if peers else ""
    env = dict(os.environ, PATH=bin_dir + os.pathsep + os.environ["PATH"])
    with tempfile.TemporaryDirectory(prefix="davit-peer-", dir="/tmp") as tree:
        starts = {"davit version (start of the process alone)": [davit, "version"]}
        if peers:
            starts["node -e 0 (start of node alone)"] = [os.path.join(bin_dir, "node"), "-e", "0"]
        run_all(bench, starts, tree, env, rounds)
        for name, source in sides:
            folder = os.path.join(tree, name.replace(" ", "-"))
            working_tree(source, folder)
            programs = {f"davit lint --json, {name}": [davit, "lint", "--json"]}
            if peers:
                programs[f"gitlab-ci-local --list-json, {name} (with the start of node)"] = [
                    os.path.join(bin_dir, "gitlab-ci-local"), "--list-json"]
            run_all(bench, programs, folder, env, rounds)


def run_all(bench, programs, cwd, env, rounds):
    samples = {name: [] for name in programs}
    liked = {}
    for _ in range(rounds):
        for name, argv in programs.items():
            ms, ok = timed(argv, cwd, env)
            samples[name].append(ms)
            liked[name] = ok
    for name, times in samples.items():
        bench.row(name + ("" if liked[name] else " (refused the file)"), "ms", times, "-")
