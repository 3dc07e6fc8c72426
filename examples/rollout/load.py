"""Users: `load.py PORT FILE` asks http://127.0.0.1:PORT/ a hundred times a second until SIGTERM, and writes a line
"TIME VERSION STATUS" for every answer (0: there was none); `load.py FILE` says what became of them."""
import collections
import http.client
import signal
import sys
import threading
import time

RATE, THREADS = 100, 4


def ask(port, out, ends):
    connection = None
    due = time.time()
    while not ends.is_set():
        version, status = "-", 0
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            version, status = answer.getheader("X-Version") or "-", answer.status
        except (OSError, http.client.HTTPException):
            connection = None
        out.write(f"{time.time():.3f} {version} {status}\n")
        due = max(due + THREADS / RATE, time.time() - 1)
        ends.wait(max(0, due - time.time()))


def run(port, path):
    ends = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ends.set())
    with open(path, "w", encoding="ascii", buffering=1) as out:
        threads = [threading.Thread(target=ask, args=(port, out, ends)) for _ in range(THREADS)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()


def summary(path):
    with open(path, encoding="ascii") as f:
        seen = sorted((float(when), version, int(status)) for when, version, status in map(str.split, f))
    bad = [when for when, _, status in seen if status != 200]
    by_version = collections.Counter(version for _, version, _ in seen)
    lost = sum(1 for _, _, status in seen if status == 0)
    print(f"requests              {len(seen)}  ({', '.join(f'{v}: {n}' for v, n in sorted(by_version.items()))})")
    print(f"failures users saw    {len(bad)}  ({100 * len(bad) / max(1, len(seen)):.2f} %), {lost} of them without an answer")
    if bad:
        print(f"time to roll back     {bad[-1] - bad[0]:.1f} s from the first failure to the last")
    else:
        print("time to roll back     nothing failed")


if len(sys.argv) == 3:
    run(int(sys.argv[1]), sys.argv[2])
else:
    summary(sys.argv[1])
