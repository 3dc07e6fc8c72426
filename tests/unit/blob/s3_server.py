"""Stands in for an S3 storage: s3_server.py ROOT, with the key AKTEST:secret/test in eu-test-1.

Checks every signature by its own reckoning (AWS Signature Version 4, header and query), the time, and
the hash of the body. Objects are files of ROOT/objects; PUT, GET, HEAD, DELETE, and a list of two
objects a page. Each word in ROOT/faults answers one request with that status, or `lose`: a PUT that
is answered and not kept. Writes ROOT/port once it listens.
"""
import datetime
import hashlib
import hmac
import http.server
import os
import sys
import urllib.parse

root = sys.argv[1]
KEY, SECRET, REGION = "AKTEST", "secret/test", "eu-test-1"


def mac(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", headers=(), length=None):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code):
        self.close_connection = True
        self.answer(status, ("<Error><Code>%s</Code></Error>" % code).encode())

    def fault(self):
        try:
            with open(root + "/faults") as f:
                words = f.read().split()
        except FileNotFoundError:
            words = []
        if words:
            with open(root + "/faults", "w") as f:
                f.write(" ".join(words[1:]))
            return words[0]
        return None

    def signature(self, time, scope, names, query, payload):
        headers = "".join("%s:%s\n" % (n, " ".join(self.headers[n].split())) for n in names)
        canonical = "\n".join([self.command, urllib.parse.quote(self.url.path), query, headers,
                               ";".join(names), payload])
        text = "\n".join(["AWS4-HMAC-SHA256", time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = mac(("AWS4" + SECRET).encode(), time[:8])
        for part in (REGION, "s3", "aws4_request"):
            key = mac(key, part)
        return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()

    def refused(self, body):
        pairs = urllib.parse.parse_qsl(self.url.query, keep_blank_values=True)
        auth = self.headers.get("Authorization", "")
        try:
            if not auth.startswith("AWS4-HMAC-SHA256 "):
                return "AccessDenied"
            said = dict(p.strip().split("=", 1) for p in auth.split(" ", 1)[1].split(","))
            time, payload = self.headers["x-amz-date"], self.headers["x-amz-content-sha256"]
            then = datetime.datetime.strptime(time, "%Y%m%dT%H%M%SZ")
            now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
            if abs((now - then).total_seconds()) > 900:
                return "RequestTimeTooSkewed"
            scope = "%s/%s/s3/aws4_request" % (time[:8], REGION)
            names = said["SignedHeaders"].split(";")
            quoted = sorted((urllib.parse.quote(k, safe="-_.~"), urllib.parse.quote(v, safe="-_.~")) for k, v in pairs)
            wanted = self.signature(time, scope, names, "&".join("%s=%s" % p for p in quoted), payload)
            if said["Credential"] != KEY + "/" + scope or not {"host", "x-amz-date"} <= set(names):
                return "InvalidAccessKeyId"
            if not hmac.compare_digest(wanted, said["Signature"]):
                return "SignatureDoesNotMatch"
            if hashlib.sha256(body).hexdigest() != payload:
                return "XAmzContentSHA256Mismatch"
        except (KeyError, ValueError):
            return "MalformedXML"
        return None

    def handle_it(self):
        self.url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.fault()
        code = self.refused(body)
        name = self.url.path.removeprefix("/bucket/").replace("/", "+")
        path = root + "/objects/" + name
        with open(root + "/requests", "a") as f:
            f.write("%s %s\n" % (self.command, code or "ok"))
        if code:
            self.error(403, code)
        elif fault and fault != "lose":
            self.error(int(fault), "SlowDown")
        elif self.url.path == "/bucket":
            self.send_list()
        elif self.command == "PUT":
            if fault != "lose":
                with open(path, "wb") as f:
                    f.write(body)
            self.answer(200)
        elif not os.path.exists(path):
            self.error(404, "NoSuchKey")
        elif self.command == "DELETE":
            os.unlink(path)
            self.answer(204)
        else:
            with open(path, "rb") as f:
                bytes_ = f.read()
            self.answer(200, bytes_)

    def send_list(self):
        query = dict(urllib.parse.parse_qsl(self.url.query))
        assert query["list-type"] == "2"
        names = sorted(n.replace("+", "/") for n in os.listdir(root + "/objects"))
        names = [n for n in names if n.startswith(query.get("prefix", "")) and n > query.get("continuation-token", "")]
        text = "".join("<Contents><Key>%s</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><Size>%d</Size></Contents>"
                       % (n, os.path.getsize(root + "/objects/" + n.replace("/", "+"))) for n in names[:2])
        if len(names) > 2:
            text += "<NextContinuationToken>%s</NextContinuationToken>" % names[1]
        self.answer(200, ("<ListBucketResult>%s</ListBucketResult>" % text).encode())

    do_GET = do_PUT = do_HEAD = do_DELETE = handle_it


os.makedirs(root + "/objects", exist_ok=True)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
with open(root + "/port.new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(root + "/port.new", root + "/port")
server.serve_forever()
