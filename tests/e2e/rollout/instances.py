"""A driver of instances for the tests, as a user might write one: `instances.py FOLDER FIRST_PORT`.

One JSON object in, one out (docs/rollouts.md). Every instance is a process of service.py, known by a
file FOLDER/SLOT-INDEX.json. They outlive whoever calls this.
"""
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

FOLDER, FIRST = sys.argv[1], int(sys.argv[2])
SERVICE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "service.py")


def path(slot, index):
    return os.path.join(FOLDER, f"{slot}-{index}.json")


def alive(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return SERVICE.encode() in f.read()
    except FileNotFoundError:
        return False


def known(slot):
    found = {}
    for name in os.listdir(FOLDER):
        if name.startswith(slot + "-") and name.endswith(".json"):
            with open(os.path.join(FOLDER, name), encoding="ascii") as f:
                found[int(name[2:-5])] = json.load(f)
    return found


def start(slot, index, wish):
    port = FIRST + (0 if slot == "a" else 50) + index
    process = subprocess.Popen(
        [sys.executable, SERVICE, wish["version"], str(port), os.path.join(FOLDER, "faults")],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    row = {"pid": process.pid, "port": port, "snapshot": wish["snapshot"], "since": time.time()}
    with open(path(slot, index) + ".part", "w", encoding="ascii") as f:
        json.dump(row, f)
    os.rename(path(slot, index) + ".part", path(slot, index))


def stop(slot, index, row):
    if alive(row["pid"]):
        os.kill(row["pid"], signal.SIGKILL)
        while alive(row["pid"]):
            time.sleep(0.01)
    os.unlink(path(slot, index))


def is_ready(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def main():
    wish = json.load(sys.stdin)
    slot = wish["slot"]
    os.makedirs(os.path.join(FOLDER, "faults"), exist_ok=True)
    if wish["verb"] != "status":
        wanted = 0 if wish["verb"] == "remove" else wish["instances"]
        for index, row in known(slot).items():
            if index >= wanted or row["snapshot"] != wish["snapshot"] or not alive(row["pid"]):
                stop(slot, index, row)
        for index in range(wanted):
            if index not in known(slot):
                start(slot, index, wish)
    answer = []
    for index, row in sorted(known(slot).items()):
        running = alive(row["pid"])
        ready = running and is_ready(row["port"])
        answer.append({"index": index, "address": f"127.0.0.1:{row['port']}", "running": running, "ready": ready,
                       "restarts": 0, "snapshot": row["snapshot"], "detail": "" if ready else "no answer",
                       "ready_for_ms": int((time.time() - row["since"]) * 1000)})
    json.dump({"instances": answer}, sys.stdout)


main()
