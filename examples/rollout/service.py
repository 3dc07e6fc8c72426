"""A service in one file: it says its version. Listens on $PORT; $BUG is the share of its answers that fail.

    /          the version
    /healthz   200
    /metrics   shop_requests_total by code, in Prometheus' text format
"""
import http.server
import os
import random
import threading

VERSION = os.environ.get("DAVIT_VERSION", "none")
BUG = float(os.environ.get("BUG", "0"))
counts = {200: 0, 500: 0}
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self, code, text):
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("X-Version", VERSION)
        self.end_headers()
        self.wfile.write(text.encode())

    def do_GET(self):
        if self.path == "/healthz":
            self.answer(200, "")
        elif self.path == "/metrics":
            self.answer(200, "".join(f'shop_requests_total{{code="{c}"}} {n}\n' for c, n in counts.items()))
        else:
            code = 500 if random.random() < BUG else 200
            with lock:
                counts[code] += 1
            self.answer(code, VERSION + "\n")

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
