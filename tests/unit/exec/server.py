"""Stands in for the broker's blobs and caches, and for a plain web server: server.py ROOT PORT.

POST /api/v1/blobs, GET /api/v1/blobs/DIGEST in ROOT/blobs, with the token of the fixture; GET, HEAD
and PUT of /api/v1/jobs/ID/cache; uploads of several requests in ROOT/uploads, by the keys of ROOT/caches.json; GET /files/... from ROOT/files.
ROOT/requests has a line for each request: method, path, bytes sent. Each line in ROOT/faults answers one request with that HTTP status, or with `cut`:
half an answer, or half a PATCH taken. Writes ROOT/port once it listens.
"""
import hashlib
import http.server
import json
import os
import sys
import urllib.parse

root, port = sys.argv[1], int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", cut=False, etag=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if etag:
            self.send_header("ETag", '"%s"' % etag)
        self.end_headers()
        with open(root + "/requests", "a") as f:
            f.write("%s %s %d\n" % (self.command, self.path, len(body)))
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def fault(self):
        try:
            with open(root + "/faults") as f:
                lines = f.read().split()
        except FileNotFoundError:
            return None
        if lines:
            with open(root + "/faults", "w") as f:
                f.write("\n".join(lines[1:]))
            return lines[0]
        return None

    def refused(self, fault):
        if fault not in (None, "cut", "none", "forget"):
            self.answer(int(fault))
            return True
        if self.headers.get("Authorization") != "Bearer dvj_test":
            self.answer(401)
            return True
        return False

    def send_file(self, path, cut):
        try:
            with open(path, "rb") as f:
                body = f.read()
            start = self.headers.get("Range", "bytes=0-")[6:-1]
            if int(start) > 0:
                self.answer(206, body[int(start):], cut)
            else:
                self.answer(200, body, cut)
        except OSError:
            self.answer(404)

    def caches(self):
        try:
            with open(root + "/caches.json") as f:
                return json.load(f)
        except FileNotFoundError:
            return {}

    def send_cache(self, cut):
        key = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["key"][0]
        cache = self.caches().get(key)
        if cache is None:
            self.answer(404)
            return
        with open(root + "/blobs/" + cache["digest"], "rb") as f:
            self.answer(200, f.read(), cut, etag=cache["digest"])

    def do_PUT(self):
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused(self.fault()):
            return
        if os.path.getsize(root + "/blobs/" + said["digest"]) != said["size"]:
            self.answer(409)
            return
        caches = self.caches()
        caches[said["key"]] = said
        with open(root + "/caches.json", "w") as f:
            json.dump(caches, f)
        self.answer(200, b"{}")

    def do_HEAD(self):
        if self.path.startswith("/api/v1/uploads/"):
            if not self.refused(self.fault()):
                self.answer_upload(200)
        else:
            self.do_GET()

    def answer_upload(self, status, etag=None):
        path = root + "/uploads/" + os.path.basename(self.path)
        if not os.path.exists(path):
            self.answer(404)
            return
        self.send_response(status)
        self.send_header("Upload-Offset", str(os.path.getsize(path)))
        if etag:
            self.send_header("ETag", '"%s"' % etag)
        self.end_headers()
        with open(root + "/requests", "a") as f:
            f.write("%s %s %d\n" % (self.command, self.path, os.path.getsize(path)))

    def begin_upload(self):
        if self.refused(self.fault()):
            return
        os.makedirs(root + "/uploads", exist_ok=True)
        name = str(len(os.listdir(root + "/uploads")))
        with open(root + "/uploads/" + name + ".size", "w") as f:
            f.write(self.headers["Upload-Length"])
        open(root + "/uploads/" + name, "w").close()
        self.send_response(201)
        self.send_header("Location", "/api/v1/uploads/" + name)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PATCH(self):
        path = root + "/uploads/" + os.path.basename(self.path)
        length = int(self.headers["Content-Length"])
        fault = self.fault()
        if fault == "forget":
            os.unlink(path)
        if not os.path.exists(path):
            self.answer(404)
            self.close_connection = True
            return
        if int(self.headers["Upload-Offset"]) != os.path.getsize(path):
            self.answer(409)
            self.close_connection = True
            return
        body = self.rfile.read(length // 2 if fault == "cut" else length)
        with open(path, "ab") as f:
            f.write(body)
        if fault == "cut":
            self.close_connection = True
            return
        with open(path, "rb") as f:
            body = f.read()
        with open(path + ".size") as f:
            assert int(f.read()) == len(body)
        digest = hashlib.sha256(body).hexdigest()
        os.makedirs(root + "/blobs", exist_ok=True)
        with open(root + "/blobs/" + digest, "wb") as f:
            f.write(body)
        self.answer_upload(204, digest)

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/files/") and ".." not in path:
            self.send_file(root + path, False)
            return
        fault = self.fault()
        if self.refused(fault):
            return
        if path.endswith("/cache"):
            self.send_cache(fault == "cut")
        else:
            self.send_file(root + "/blobs/" + os.path.basename(path), fault == "cut")

    def do_POST(self):
        if self.path == "/api/v1/uploads":
            self.begin_upload()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused(self.fault()):
            return
        digest = hashlib.sha256(body).hexdigest()
        os.makedirs(root + "/blobs", exist_ok=True)
        with open(root + "/blobs/" + digest, "wb") as f:
            f.write(body)
        self.answer(201, ('{"digest":"%s","size":%d}' % (digest, len(body))).encode())


server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
with open(root + "/port.new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(root + "/port.new", root + "/port")
server.serve_forever()
