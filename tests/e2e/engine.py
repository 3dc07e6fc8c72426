"""A Docker Engine of the tests' own, and images for it that need no network.

It has its own network namespace, folder and socket, so that neither another Engine of the machine
nor its network is touched; the worker speaks to it by the socket alone.
"""
import contextlib
import http.client
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import urllib.parse

from stack import SKIP, wait_for

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("docker", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def tree(files, links=(), folders=()):
    """The bytes of a tar: {path in the image: path here, or bytes}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in folders:
            info = tarfile.TarInfo(name)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(info)
        for name, source in files.items():
            content = source
            if isinstance(source, str):
                with open(source, "rb") as f:
                    content = f.read()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def busybox_tree(more=()):
    busybox = shutil.which("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return tree({"bin/busybox": busybox, "etc/passwd": PASSWD.encode(), **dict(more)},
                [("bin/" + a, "busybox") for a in applets if a != "busybox"],
                ["tmp", "root", "home", "home/user", "proc", "dev", "sys"])


def bash_tree():
    """bash and some others with the libraries that they are linked with."""
    files = {"etc/passwd": PASSWD.encode()}
    for program in ("bash", "cat", "sleep", "ls", "id", "mkdir", "touch", "chmod", "env"):
        path = os.path.realpath(shutil.which(program))
        files["bin/" + program] = path
        for line in subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout.splitlines():
            library = next((w for w in line.split() if w.startswith("/")), None)
            if library:
                files[library.lstrip("/")] = os.path.realpath(library)
    return tree(files, [], ["tmp", "root", "proc", "dev", "sys"])


class Engine:
    """Use as a context. Skips the test where no Engine can run."""

    def __init__(self, *options):
        for program in ("dockerd", "busybox", "unshare", "iptables"):
            if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                self.skip(f"there is no {program}")
        if os.geteuid() != 0:
            self.skip("an Engine needs root")
        self.dir = tempfile.mkdtemp(prefix="davit-engine-")
        self.socket = os.path.join(self.dir, "docker.sock")
        self.log = os.path.join(self.dir, "log")
        self.options = options
        self.process = None

    @staticmethod
    def skip(why):
        print("skipped:", why)
        sys.exit(SKIP)

    def start(self):
        command = ["dockerd", "-H", "unix://" + self.socket, "--data-root", self.dir + "/data",
                   "--exec-root", self.dir + "/exec", "--pidfile", self.dir + "/pid", "-l", "warn",
                   *self.options]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["unshare", "--net", "--mount", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", *command],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

        def serves():
            if self.process.poll() is not None:
                raise AssertionError("dockerd ended")
            with contextlib.suppress(OSError):
                return self.call("GET", "/_ping", raw=True) == b"OK"
        wait_for("the Engine serves", serves, 40)

    def __enter__(self):
        try:
            self.start()
        except AssertionError as e:
            with open(self.log, encoding="utf-8", errors="replace") as f:
                print(f.read()[-2000:])
            self.__exit__(*sys.exc_info())
            self.skip(f"no Engine starts here: {e}")
        return self

    def __exit__(self, kind, value, trace):
        with contextlib.suppress(OSError, AssertionError):
            for c in self.containers():
                self.call("DELETE", f"/containers/{c['Id']}?force=1&v=1", raw=True)
        if kind and os.path.exists(self.log):
            with open(self.log, encoding="utf-8", errors="replace") as f:
                print("--- the Engine's log\n" + f.read()[-3000:])
        self.stop()
        self.unmount()
        shutil.rmtree(self.dir, ignore_errors=True)

    def unmount(self):
        with open("/proc/self/mounts", encoding="utf-8") as f:
            points = [line.split()[1] for line in f if self.dir in line]
        for point in reversed(points):
            subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def kill(self):
        """dockerd alone: its containerd and the containers live on, until it is back."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def call(self, method, path, body=None, raw=False, kind="application/json", timeout=60, headers=()):
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = UnixConnection(self.socket, timeout)
        try:
            connection.request(method, path, data, {**({"Content-Type": kind} if data else {}), **dict(headers)})
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as e:
            raise OSError(str(e)) from e
        finally:
            connection.close()
        if answer.status >= 400:
            raise AssertionError(f"{method} {path}: {answer.status} {content!r}")
        return content if raw else json.loads(content or b"null")

    def load(self, name, tar, *changes):
        """docker import, with lines of a Dockerfile."""
        repo, tag = name.rsplit(":", 1)
        query = [("fromSrc", "-"), ("repo", repo), ("tag", tag)] + [("changes", c) for c in changes]
        answer = self.call("POST", "/images/create?" + urllib.parse.urlencode(query), tar, raw=True,
                           kind="application/x-tar")
        assert b"error" not in answer, answer

    def containers(self):
        return self.call("GET", "/containers/json?all=1")

    def networks(self):
        return [n for n in self.call("GET", "/networks") if n["Name"].startswith("davit-")]

    def assert_clean(self, timeout_s=20):
        """Nothing is left of any job."""
        wait_for("no container or network of a job is left",
                 lambda: not self.containers() and not self.networks(), timeout_s)
