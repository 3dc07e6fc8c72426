"""What the network does between hosts: a broker and two workers over TLS, each in a namespace of its own.

This process moves into a new network namespace, which is the broker's host: a bridge, with a port for
each worker. Workers know the broker by its name alone, from a hosts file of their own. Skipped where
the machine gives no namespaces. `DAVIT_E2E_LONG=1` adds what takes minutes: other lengths of cuts,
the times that a broker has by default, loss, delay.

What must hold, whatever the network does: each job is recorded as successful once at most, its log is
whole, a cut that is shorter than the lease costs nothing (the same attempt goes on), and after a longer
one another worker has the job, and the first kills its copy.
"""
import os
import signal
import subprocess
import sys
import time

from stack import SKIP, Child, main, wait_for
from tls import TlsStack

NAME = "broker.test"
HERE = "10.77.0.1"
ELSEWHERE = "10.77.0.2"
INSIDE = "DAVIT_E2E_IN_NAMESPACE"
LONG = bool(os.environ.get("DAVIT_E2E_LONG"))


def sh(*argv, check=True):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 or not check, (argv, done.stderr)
    return done


class Host:
    """A worker's machine: a network of its own with one cable, and its own /etc/hosts."""

    def __init__(self, number, folder):
        self.address = f"10.77.0.{10 + number}"
        self.port = f"port{number}"
        self.hosts = os.path.join(folder, f"hosts-{number}")
        self.broker_is_at(HERE)
        # It only keeps the namespaces, for as long as we live; "ready" is said from within.
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             'mount --bind "$1" /etc/hosts && ip link set lo up && echo ready && exec cat', "sh", self.hosts],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"
        sh("ip", "link", "add", self.port, "type", "veth", "peer", "name", "cable", "netns", str(self.holder.pid))
        sh("ip", "link", "set", self.port, "master", "switch", "up")
        sh(*self.inside("ip", "address", "add", self.address + "/24", "dev", "cable"))
        sh(*self.inside("ip", "link", "set", "cable", "up"))

    def inside(self, *argv):
        """The command that runs argv on this host, under the process id that it is started with."""
        return ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", f"--mount=/proc/{self.holder.pid}/ns/mnt", *argv]

    def broker_is_at(self, address):
        with open(self.hosts, "w", encoding="ascii") as f:  # in place: it is mounted
            f.write(f"127.0.0.1 localhost\n{address} {NAME}\n")

    def close(self):
        sh("ip", "link", "del", self.port)  # its namespace goes some time later
        self.holder.kill()
        self.holder.wait()

    # Each of these loses packets without a word to anybody, as a cut cable does.

    def unplug(self):
        sh("ip", "link", "set", self.port, "down")

    def plug(self):
        sh("ip", "link", "set", self.port, "up")

    def rule(self, change):
        for chain, side in self.dropped:
            sh("iptables", "-w", change, chain, side, self.address, *self.which, "-j", "DROP")

    def cut(self, from_worker=True, from_broker=True, which=()):
        self.dropped = [("INPUT", "-s")] * from_worker + [("OUTPUT", "-d")] * from_broker
        self.which = which
        self.rule("-A")

    def mend(self):
        self.rule("-D")


class Net(TlsStack):
    """A broker with two joined workers, `one` and `two`, on hosts of their own."""

    def __init__(self, build, lease_ms=4000, heartbeat_ms=400, workers=2, davitd=()):
        super().__init__(build, lease_ms=lease_ms, heartbeat_ms=heartbeat_ms, davitd=("--name", NAME, *davitd))
        argv = self.broker.argv
        argv[argv.index("--listen") + 1] = f"tls://0.0.0.0:{self.fleet_port}"
        argv[argv.index("--http") + 1] = f"https://0.0.0.0:{self.http_port}"
        self.hosts = []
        self.count = workers

    def __enter__(self):
        sh("ip", "link", "add", "switch", "type", "bridge")
        sh("ip", "address", "add", HERE + "/24", "dev", "switch")
        sh("ip", "link", "set", "switch", "up")
        super().__enter__()
        try:
            for i in range(self.count):
                self.add_worker(i, ("one", "two")[i])
            return self
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise

    def add_worker(self, i, name):
        host = Host(i, self.dir)
        self.hosts.append(host)
        done = self.run(*host.inside(self.program("davit-worker"), "join", f"https://{NAME}:{self.http_port}", "--token",
                                     self.new_token(), "--state", self.state(name), "--name", name))
        assert done.returncode == 0, done
        child = Child(name, host.inside(self.program("davit-worker"), "--state", self.state(name), "--slots", "4"),
                      os.path.join(self.dir, name + ".log"))
        self.workers.append(child)
        child.start()
        wait_for(f"{name} is online", lambda: self.is_online(name))

    def __exit__(self, kind, value, trace):
        super().__exit__(kind, value, trace)
        for host in self.hosts:
            host.close()
        sh("iptables", "-F")
        sh("ip", "link", "del", "switch")

    def start_job(self, lasts_s):
        """A job that says what it does, in its log and in a file that all its copies write to. It runs at `one`."""
        self.trace = os.path.join(self.dir, f"trace-{time.monotonic()}")
        self.lines = int(lasts_s * 5)
        other = self.get_worker_id("two") if self.count > 1 else None
        if other:
            self.post(f"/workers/{other}/pause")
        p = self.submit(f"job:\n  script:\n    - echo start $DAVIT_JOB_FOLDER >> {self.trace}\n"
                        f"    - for i in $(seq {self.lines}); do echo line $i; sleep 0.2; done\n"
                        f"    - echo end >> {self.trace}\n")
        self.wait_job(p["id"], "job", "running")
        if other:
            self.post(f"/workers/{other}/resume")
        self.ident = self.job(p["id"], "job")["id"]
        wait_for("it writes", lambda: os.path.exists(self.trace))
        return p["id"]

    def get_worker_id(self, name):
        return self.row(name)["id"]

    def traced(self, what):
        with open(self.trace, encoding="ascii") as f:
            return sum(line.startswith(what) for line in f)

    def attempts(self):
        return self.get(f"/jobs/{self.ident}")["attempts"]

    def end(self, attempts, timeout_s=60):
        """The job ends well after so many attempts; its log is whole, one attempt has succeeded."""
        job = wait_for("the job ends", lambda: (lambda j: j if j["status"] in ("success", "failed") else None)(
            self.get(f"/jobs/{self.ident}")), timeout_s)
        said = [(a["worker"], a["status"], a["reason"]) for a in job["attempts"]]
        assert job["status"] == "success" and len(said) == attempts, said
        assert [s for _, s, _ in said].count("success") == 1 and said[-1][1] == "success", said
        log = self.log(self.ident).decode()
        lines = [line for line in log.splitlines() if line.startswith("line ")]
        assert lines == [f"line {i + 1}" for i in range(self.lines)], log
        assert job["attempts"][-1]["log_complete"], job
        return job

    def copies(self):
        """The processes of this job, wherever they are."""
        return [pid for pid, folder in self.shims() if os.path.basename(folder).startswith(f"{self.ident}-")]

    def second_has_it(self):
        wait_for("the other worker has it", lambda: self.attempts()[-1]["worker"] == "two", 30)


def a_cut_shorter_than_the_lease_costs_nothing(build):
    """Three fifths of it: TCP tries again after 0.2, 0.6, 1.4, 3.0 and 6.2 s, which alone would be too late."""
    with Net(build, lease_ms=6000) as net:
        one = net.hosts[0]
        cuts = [(one.unplug, one.plug), (one.cut, one.mend)]
        cuts += [(lambda: one.cut(from_broker=False), one.mend), (lambda: one.cut(from_worker=False), one.mend)]
        for cut, mend in cuts if LONG else cuts[1:2]:
            net.start_job(6)
            cut()
            time.sleep(3.5)
            mend()
            net.end(1)
            assert net.traced("start") == net.traced("end") == 1
            wait_for("it is online", lambda: net.is_online("one"))


def after_a_cut_longer_than_the_lease_another_has_the_job(build):
    with Net(build, lease_ms=2500) as net:
        one = net.hosts[0]
        cuts = [(one.cut, one.mend)]
        if LONG:
            cuts += [(one.unplug, one.plug), (lambda: one.cut(from_broker=False), one.mend),
                     (lambda: one.cut(from_worker=False), one.mend)]
        for cut, mend in cuts:
            net.start_job(12)
            cut()
            net.second_has_it()
            wait_for("both run", lambda: net.traced("start") == 2)
            assert len(net.copies()) >= 2, "the first one goes on while it hears nothing"
            mend()
            wait_for("the first kills its copy", lambda: not [p for p, f in net.shims() if net.state("one") in f], 20)
            assert net.traced("end") == 0, "before it ended"
            net.end(2)
            assert net.traced("end") == 1
            assert net.attempts()[0]["reason"] == "worker_lost", net.attempts()
            wait_for("it is back", lambda: net.is_online("one"))


def a_success_that_comes_too_late_counts_for_nothing(build):
    """The cut one ends its copy well, and says so when it is back: the other one's is what counts."""
    with Net(build, lease_ms=2000) as net:
        net.start_job(5)
        net.hosts[0].cut()
        net.second_has_it()
        wait_for("the first copy has ended", lambda: net.traced("end") == 1, 30)
        net.hosts[0].mend()
        wait_for("it is back", lambda: net.is_online("one"))
        net.end(2)
        wait_for("it has forgotten the job", lambda: not os.listdir(os.path.join(net.state("one"), "jobs")))
        assert [a["status"] for a in net.attempts()].count("success") == 1


def a_peer_that_is_gone_without_a_word_is_replaced(build):
    """Half-open connections: each side in turn is killed behind a cut, and nobody hears its end."""
    with Net(build, workers=1) as net:
        one, host = net.workers[0], net.hosts[0]
        net.start_job(6)
        host.cut()
        one.kill()
        one.start()
        time.sleep(0.5)
        host.mend()  # the broker still believes in the old connection
        net.end(1)
        net.start_job(6)
        host.cut()
        net.broker.kill()
        host.mend()
        net.broker.start()
        net.wait_broker()
        net.end(1)
        assert net.traced("start") == net.traced("end") == 1
        net.stop()
        net.fsck()


def a_broker_that_moves_is_found_by_its_name(build):
    with Net(build, workers=1) as net:
        net.start_job(7)
        for host in net.hosts:
            host.broker_is_at(ELSEWHERE)
        sh("ip", "address", "add", ELSEWHERE + "/24", "dev", "switch")
        sh("ip", "address", "del", HERE + "/24", "dev", "switch")  # and with it the other
        sh("ip", "address", "replace", ELSEWHERE + "/24", "dev", "switch")
        net.end(1)
        assert net.is_online("one")


def a_cable_that_comes_and_goes_costs_nothing(build):
    with Net(build) as net:
        net.start_job(8)
        for _ in range(12):
            net.hosts[0].unplug()
            time.sleep(0.3)
            net.hosts[0].plug()
            time.sleep(0.3)
        net.end(1)


def packets_that_are_lost_cost_nothing(build):
    with Net(build) as net:
        for host in net.hosts:
            host.cut(which=("-m", "statistic", "--mode", "random", "--probability", "0.1"))
        for _ in range(3):
            net.start_job(6)
            net.end(1)


def a_slow_network_costs_nothing(build):
    with Net(build) as net:
        done = sh("tc", "qdisc", "add", "dev", net.hosts[0].port, "root", "netem", "delay", "300ms", "100ms", check=False)
        if done.returncode != 0:
            print("skipped: no netem here:", done.stderr.strip().splitlines()[-1])
            return
        net.start_job(6)
        net.end(1)


def the_usual_times_bear_half_a_lease(build):
    """Heartbeats of 3 s, a lease of 10 s: cuts of up to 5 s."""
    with Net(build, lease_ms=10000, heartbeat_ms=3000) as net:
        for cut_s in (1, 2, 3, 4, 5):
            net.start_job(cut_s + 8)
            net.hosts[0].cut()
            time.sleep(cut_s)
            net.hosts[0].mend()
            net.end(1)


def enter():
    """Goes on in new namespaces, or says why not."""
    if os.environ.get(INSIDE):
        sh("ip", "link", "set", "lo", "up")
        return
    for tool in (["unshare", "--net", "--mount", "true"], ["ip", "-V"], ["iptables", "-V"], ["nsenter", "--version"]):
        try:
            done = subprocess.run(tool, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            print("skipped: no", tool[0])
            sys.exit(SKIP)
        if done.returncode != 0:
            print("skipped: no namespaces here:", done.stderr.strip())
            sys.exit(SKIP)
    os.environ[INSIDE] = "1"
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.execvp("unshare", ["unshare", "--net", "--mount", "--propagation", "private", sys.executable, *sys.argv])


if __name__ == "__main__":
    enter()
    tests = [a_cut_shorter_than_the_lease_costs_nothing, after_a_cut_longer_than_the_lease_another_has_the_job,
             a_peer_that_is_gone_without_a_word_is_replaced]
    more = [a_success_that_comes_too_late_counts_for_nothing, a_broker_that_moves_is_found_by_its_name,
            a_cable_that_comes_and_goes_costs_nothing, packets_that_are_lost_cost_nothing, a_slow_network_costs_nothing,
            the_usual_times_bear_half_a_lease]
    main(tests + more if LONG or sys.argv[2:] else tests)
