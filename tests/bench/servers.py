"""The queues that ./bench compares, each started with its own settings for what it promises.

A server lives in a folder of its own below the benchmark's, on the same disk as all others, listens
on 127.0.0.1 alone, and ends with the benchmark. What is not installed is left out with a message.
"""
import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time

from stack import Child, Stack, free_port

START_S = 60


def wait_port(child, port, timeout_s=START_S):
    end = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if not child.alive() or time.monotonic() > end:
            raise AssertionError(f"{child.name} does not listen; see {child.log}")
        time.sleep(0.01)


def cpu_s(pid):
    """Processor seconds of a process and of all below it, ended ones that were waited for too."""
    tick = os.sysconf("SC_CLK_TCK")
    parents = {}
    used = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="ascii",
                                                errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
            parents[int(entry)] = int(fields[1])
            used[int(entry)] = sum(int(x) for x in fields[11:15]) / tick
    total = 0.0
    for process, seconds in used.items():
        at = process
        while at not in (0, 1, pid):
            at = parents.get(at, 0)
        total += seconds if at == pid else 0
    return total


def resident_mb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1000
    return 0


class Server:
    """One process with a port. `relaxed` starts it without waits for the disk where it can: to fill
    a queue."""
    system = ""          # as bench_queue knows it
    program = ""
    port_name = "--port"

    def __init__(self, folder):
        self.dir = os.path.join(folder, self.system)
        self.port = free_port()
        self.child = None
        os.makedirs(self.dir)

    @classmethod
    def find(cls):
        return shutil.which(cls.program, path=os.environ.get("PATH", "") + ":/usr/sbin")

    @classmethod
    def version(cls):
        done = subprocess.run([cls.find(), "--version"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "?"

    def argv(self, relaxed):
        raise NotImplementedError

    def prepare(self):
        pass

    def start(self, relaxed=False, wait=True):
        if self.child is None:
            self.prepare()
        self.child = Child(self.program, self.argv(relaxed), os.path.join(self.dir, "log"))
        self.child.start()
        if wait:
            wait_port(self.child, self.port)
            self.settle()

    def settle(self):
        """Behind the open port: until it serves."""

    def stop(self):
        if self.child is not None:
            try:
                self.child.stop(START_S)
            finally:
                self.kill()

    def kill(self):
        """As a crash would, with all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.process.wait()

    def close(self):
        self.stop()

    def options(self):
        return []

    def cpu_s(self):
        return cpu_s(self.child.pid)


class Redis(Server):
    system = "redis-list"
    program = "redis-server"

    def argv(self, relaxed):
        return [self.find(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.dir,
                "--save", "", "--appendonly", "yes",
                "--appendfsync", "no" if relaxed else "always",
                "--auto-aof-rewrite-percentage", "0"]

    def settle(self):
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                s.sendall(b"PING\r\n")
                if s.recv(64).startswith(b"+PONG"):
                    return
            time.sleep(0.02)
        raise AssertionError("redis-server does not end loading")


class RedisStream(Redis):
    system = "redis-stream"


class Beanstalkd(Server):
    system = "beanstalkd"
    program = "beanstalkd"

    @classmethod
    def version(cls):
        return subprocess.run([cls.find(), "-v"], stdout=subprocess.PIPE, text=True,
                              check=False).stdout.strip()

    def argv(self, relaxed):
        return [self.find(), "-l", "127.0.0.1", "-p", str(self.port), "-b", self.dir,
                *(["-F"] if relaxed else ["-f", "0"])]


class Nats(Server):
    system = "nats"
    program = "nats-server"

    def argv(self, relaxed):
        return [self.find(), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.dir]


class Rabbitmq(Server):
    system = "rabbitmq"
    program = "rabbitmq-server"
    lib = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    def __init__(self, folder):
        super().__init__(folder)
        self.epmd = None
        self.epmd_port = free_port()
        self.dist_port = free_port()
        self.starts = 0

    def count_starts(self):
        with open(os.path.join(self.dir, "log"), encoding="utf-8", errors="replace") as f:
            return f.read().count("completed with")

    @classmethod
    def find(cls):
        return cls.lib if os.path.exists(cls.lib) and shutil.which("epmd") else None

    @classmethod
    def version(cls):
        done = subprocess.run(["dpkg-query", "-W", "-f", "RabbitMQ ${Version}", "rabbitmq-server"],
                              stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout

    def prepare(self):
        # A daemon that finds Erlang's nodes: our own, so that none stays behind.
        self.epmd = Child("epmd", ["epmd", "-address", "127.0.0.1", "-port", str(self.epmd_port)],
                          os.path.join(self.dir, "epmd.log"))
        self.epmd.start()
        with open(os.path.join(self.dir, "rabbitmq.conf"), "w", encoding="ascii") as f:
            f.write(f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
                    "vm_memory_high_watermark.relative = 0.6\ndisk_free_limit.absolute = 1GB\n")
        with open(os.path.join(self.dir, "enabled_plugins"), "w", encoding="ascii") as f:
            f.write("[].\n")

    def argv(self, relaxed):
        settings = {
            "HOME": self.dir, "ERL_EPMD_PORT": self.epmd_port,
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_DIST_PORT": self.dist_port,
            "RABBITMQ_CONFIG_FILE": os.path.join(self.dir, "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.dir, "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": os.path.join(self.dir, "mnesia"),
            "RABBITMQ_LOG_BASE": os.path.join(self.dir, "logs"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS":
                "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        return ["env", *(f"{name}={value}" for name, value in settings.items()), self.find()]

    def settle(self):
        """It listens before all of it is there."""
        end = time.monotonic() + START_S
        while self.count_starts() <= self.starts:
            if not self.child.alive() or time.monotonic() > end:
                raise AssertionError(f"rabbitmq does not start; see {self.child.log}")
            time.sleep(0.1)
        self.starts = self.count_starts()

    def close(self):
        self.stop()
        if self.epmd is not None:
            self.epmd.kill()


class Postgres(Server):
    system = "postgres"
    program = "postgres"

    @classmethod
    def find(cls):
        found = sorted(glob.glob("/usr/lib/postgresql/*/bin/postgres"))
        return found[-1] if found and (os.getuid() != 0 or cls.user()) else None

    @staticmethod
    def user():
        """It does not run as root."""
        with contextlib.suppress(KeyError):
            return pwd.getpwnam("postgres")
        return None

    def as_user(self, argv):
        return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *argv] \
            if os.getuid() == 0 else argv

    def prepare(self):
        data = os.path.join(self.dir, "data")
        os.mkdir(data, 0o700)
        if os.getuid() == 0:
            shutil.chown(self.dir, "postgres", "postgres")
            shutil.chown(data, "postgres", "postgres")
        initdb = os.path.join(os.path.dirname(self.find()), "initdb")
        subprocess.run(self.as_user([initdb, "-D", data, "-U", "postgres", "-A", "trust", "-N"]),
                       stdout=subprocess.DEVNULL, check=True, cwd=self.dir)

    def argv(self, relaxed):
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.dir, "synchronous_commit": "off" if relaxed else "on",
            # Room enough that neither a checkpoint nor a lack of memory falls into a round.
            "shared_buffers": "2GB", "max_wal_size": "16GB", "min_wal_size": "2GB",
            "checkpoint_timeout": "1h", "wal_buffers": "64MB", "max_connections": 200,
            "autovacuum_naptime": "1s", "jit": "off",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self.as_user([self.find(), "-D", os.path.join(self.dir, "data"), *words])

    def settle(self):
        ready = [os.path.join(os.path.dirname(self.find()), "pg_isready"), "-q", "-h", "127.0.0.1",
                 "-p", str(self.port)]
        end = time.monotonic() + START_S
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > end:
                raise AssertionError("postgres does not serve")
            time.sleep(0.02)


class Davit(Server):
    system = "davit"
    program = "davitd"

    def __init__(self, folder, build, davitd=()):
        self.stack = Stack(build, workers=0, heartbeat_ms=3000, lease_ms=10000, davitd=davitd)
        shutil.rmtree(self.stack.dir)
        os.makedirs(self.stack.dir)
        self.port = self.stack.fleet_port
        self.child = self.stack.broker

    def start(self, relaxed=False, wait=True):
        self.child.start()
        if wait:
            self.stack.wait_broker()

    def options(self):
        with open(os.path.join(self.stack.data, "worker.token"), encoding="ascii") as f:
            return ["--token", self.stack.token(), "--worker-token", f.read().strip()]


PEERS = (Redis, RedisStream, Postgres, Beanstalkd, Nats, Rabbitmq)


@contextlib.contextmanager
def running(servers):
    """Stops all of them at the end, whatever happens."""
    try:
        yield servers
    finally:
        for server in servers:
            with contextlib.suppress(AssertionError):
                server.close()
