"""A small service: VERSION and PORT from the environment, one folder of switches.

/ answers with the version; a file FAULTS/VERSION makes that share of requests fail (0.2) or, with
"sick", /healthz too. /metrics tells of both in Prometheus' text format.
"""
import http.server
import os
import random
import sys
import threading

VERSION, PORT, FAULTS = sys.argv[1], int(sys.argv[2]), sys.argv[3]
counts = {"200": 0, "500": 0}
lock = threading.Lock()


def fault():
    try:
        with open(os.path.join(FAULTS, VERSION), encoding="ascii") as f:
            return f.read().strip()
    except FileNotFoundError:
        return ""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        what = fault()
        if self.path == "/healthz":
            self.answer(503 if what == "sick" else 200, "")
        elif self.path == "/metrics":
            self.answer(200, "".join(f'requests_total{{code="{c}"}} {n}\n' for c, n in counts.items()))
        else:
            bad = what not in ("", "sick") and random.random() < float(what)
            with lock:
                counts["500" if bad else "200"] += 1
            self.answer(500 if bad else 200, VERSION)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", PORT), Handler).serve_forever()
