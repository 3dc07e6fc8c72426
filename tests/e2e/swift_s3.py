"""OpenStack Swift on loopback, with its S3 API: one proxy, one account, container and object server
each, one replica, in a folder. A real store of objects, which Debian's python3-swift brings.

Use as a context: `with Swift(folder) as swift:`; then swift.url is what `davitd --s3` takes, without
a prefix, and swift.key its owner's access key and secret in two lines. The bucket is there.
"""
import base64
import datetime
import hashlib
import hmac
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

from stack import Child, free_port, wait_for

PYTHON = "/usr/bin/python3"  # whose packages those of Debian are
REGION = "us-east-1"
BUCKET = "blobs"
KEY, SECRET = "test:tester", "testing"

SERVER = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = %(port)d
devices = %(dir)s/devices
mount_check = false
swift_dir = %(dir)s
user = root
workers = 0
log_address = %(dir)s/no-syslog
fallocate_reserve = 0
[pipeline:main]
pipeline = %(pipeline)s
"""
BACK = """[app:%(kind)s-server]
use = egg:swift#%(kind)s
"""
FRONT = """[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
s3_acl = false
check_bucket_owner = false
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
user_test_stranger = nobody
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:bulk]
use = egg:swift#bulk
"""
RUN = """
import sys
from swift.common import utils
from swift.common.storage_policy import reload_storage_policies
from swift.common.wsgi import run_wsgi
utils.set_swift_dir(sys.argv[1])
reload_storage_policies()
sys.exit(run_wsgi(sys.argv[2], sys.argv[3]))
"""
RING = "import sys\nfrom swift.cli.ringbuilder import main\nmain(['swift-ring-builder'] + sys.argv[1:])\n"


def missing():
    """Why there can be no Swift here, or None."""
    done = subprocess.run([PYTHON, "-I", "-c", "import swift.proxy.server"], capture_output=True, check=False)
    if done.returncode != 0:
        return "there is no python3-swift"
    if os.geteuid() != 0:
        return "Swift's servers want to be started by root"
    return None


def sign(method, host, path, payload=b"", query="", key=KEY, secret=SECRET):
    """The headers of a signed request; for the test's own questions, apart from davitd's code."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(payload).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": now}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([method, path, query, lines, names, digest])
    scope = f"{now[:8]}/{REGION}/s3/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    mac = ("AWS4" + secret).encode()
    for part in (now[:8], REGION, "s3", "aws4_request", text):
        mac = hmac.new(mac, part.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={key}/{scope},SignedHeaders={names},Signature={mac.hex()}"
    del headers["host"]
    return headers


class Swift:
    def __init__(self, folder):
        self.dir = folder
        self.ports = {kind: free_port() for kind in ("proxy", "account", "container", "object")}
        self.host = f"127.0.0.1:{self.ports['proxy']}"
        self.url = f"http://{self.host}/{BUCKET}"
        self.key = f"{KEY}\n{SECRET}"
        self.children = {}

    def write(self, name, text):
        with open(os.path.join(self.dir, name), "w", encoding="utf-8") as f:
            f.write(text)

    def prepare(self):
        os.makedirs(os.path.join(self.dir, "devices", "d1"))
        random = base64.b16encode(os.urandom(8)).decode()
        self.write("swift.conf", f"[swift-hash]\nswift_hash_path_suffix = {random}\nswift_hash_path_prefix = {random}\n"
                                 "[storage-policy:0]\nname = only\ndefault = yes\n")
        for kind in ("account", "container", "object"):
            values = {"dir": self.dir, "port": self.ports[kind], "kind": kind, "pipeline": kind + "-server"}
            self.write(kind + ".conf", (SERVER + BACK) % values)
            builder = os.path.join(self.dir, kind + ".builder")
            for line in (["create", "4", "1", "0"],
                         ["add", f"r1z1-127.0.0.1:{self.ports[kind]}/d1", "1"], ["rebalance"]):
                subprocess.run([PYTHON, "-I", "-c", RING, builder, *line], check=True, capture_output=True)
        pipeline = "catch_errors cache listing_formats bulk s3api tempauth copy slo proxy-server"
        self.write("proxy.conf", SERVER % {"dir": self.dir, "port": self.ports["proxy"], "pipeline": pipeline} + FRONT)

    def start(self):
        for kind in self.ports:
            child = Child("swift " + kind, [
                "/usr/bin/env", "EVENTLET_NO_GREENDNS=yes",  # whose resolver waits for a name server
                PYTHON, "-I", "-c", RUN, self.dir, os.path.join(self.dir, kind + ".conf"), kind + "-server"],
                os.path.join(self.dir, kind + ".log"))
            child.start()
            self.children[kind] = child
        wait_for("Swift answers", lambda: self.ask("GET", "")[0] in (200, 404), timeout_s=120, pause_s=0.2)

    def stop(self):
        for child in self.children.values():
            child.kill()

    def ask(self, method, path, body=b"", query=""):
        """The status and the body of one request for the bucket, or with a path for one object."""
        path = f"/{BUCKET}{path}"
        request = urllib.request.Request(f"http://{self.host}{path}{'?' + query if query else ''}", method=method,
                                         data=body or None, headers=sign(method, self.host, path, body, query))
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as e:
            return e.code, e.read()
        except OSError:
            return 0, b""

    def objects(self):
        """The names in the bucket."""
        status, body = self.ask("GET", "", query="list-type=2")
        assert status == 200, (status, body)
        return [part.split("</Key>")[0] for part in body.decode().split("<Key>")[1:]]

    def __enter__(self):
        try:
            self.prepare()
            self.start()
            status, body = self.ask("PUT", "")
            assert status == 200, (status, body)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.stop()
        if kind is not None:
            for name in self.ports:
                with open(os.path.join(self.dir, name + ".log"), errors="replace", encoding="utf-8") as f:
                    print(f"--- swift {name}", *f.readlines()[-15:], sep="\n", file=sys.stderr)
        shutil.rmtree(self.dir, ignore_errors=True)
