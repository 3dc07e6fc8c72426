"""A worker that has joined, with a certificate that is good, and keeps no rule: it takes nothing from
others, learns nothing of them, and is no burden to the broker.

Next to it an honest worker runs a job, which must end as if it were alone. `DAVIT_E2E_LONG=1`: all tests,
else those that take little.
"""
import contextlib
import os
import random
import sys
import time

import wire
from garbage import cpu_s, rss_kb
from stack import main, wait_for
from tls import TlsStack

LONG = bool(os.environ.get("DAVIT_E2E_LONG"))
BIG = (1 << 64) - 1
# What is freed is to be free: the address sanitizer keeps 256 MB of it, and the broker's growth is looked at.
os.environ["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=8"


class Rogue(TlsStack):
    """A broker, an honest worker `honest` with a job that runs (its key is in `victim`), and `rogue`, which has joined."""

    def __enter__(self):
        super().__enter__()
        try:
            self.start_joined("honest", "--slots", "2")
            done = self.join("rogue", self.new_token())
            assert done.returncode == 0, done
            self.stop_file = os.path.join(self.dir, "stop")
            self.p = self.submit(f"job: {{script: ['echo begin; until test -e {self.stop_file}; do sleep 0.1; done; echo end']}}\n")
            self.job_id = self.wait_job(self.p["id"], "job", "running")["id"]
            self.victim = wire.key(self.job_id, 1, self.get(f"/jobs/{self.job_id}")["attempts"][0]["epoch"])
            wait_for("its log begins", lambda: b"begin" in self.log(self.job_id))
            self.post(f"/workers/{self.row('honest')['id']}/pause")  # what comes next is the rogue's
            self.before = rss_kb(self.broker.pid)
        except BaseException:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def rogue(self, **kw):
        return wire.Worker(self, self.state("rogue"), "rogue", **kw)

    def unharmed(self, memory_kb=150_000):
        """The honest one's job ends as it should, the broker is well and has not grown."""
        assert self.broker.alive()
        grown = rss_kb(self.broker.pid) - self.before
        assert grown < memory_kb, f"the broker has grown by {grown} kB"
        job = self.get(f"/jobs/{self.job_id}")
        assert job["status"] == "running" and len(job["attempts"]) == 1, job
        with open(self.stop_file, "w", encoding="ascii"):
            pass
        assert self.wait_pipeline(self.p["id"])["status"] == "success"
        job = self.get(f"/jobs/{self.job_id}")
        assert [a["status"] for a in job["attempts"]] == ["success"] and job["worker"] == "honest", job
        lines = self.log(self.job_id).splitlines()
        assert lines.count(b"begin") == 1 and lines.count(b"end") == 1 and not [x for x in lines if b"lie" in x], lines
        self.stop()
        self.fsck()

    def enqueue(self, **more):
        made = self.post("/jobs", {"project": "rogue", "jobs": [{"script": "true", **more}]})
        return made["jobs"][0]["id"]


def jobs_of_others_are_not_its_own(build):
    """Ends, starts, logs and returns of the honest one's job, of old epochs, of jobs that there never were."""
    with Rogue(build) as stack:
        w = stack.rogue()
        job, attempt, epoch = (v for _, v in stack.victim)
        mine = stack.enqueue()
        own = w.start_job()
        assert own[0][1] == mine
        others = [stack.victim, wire.key(job, attempt, 0), wire.key(job, attempt + 1, epoch + 1), wire.key(job, 0, epoch),
                  wire.key(0, 0, 0), wire.key(BIG, BIG, BIG), wire.key(10**9), wire.key(mine, 1, own[2][1] + 1)]
        for k in others:
            w.finish(k)
            kind, body = w.expect(wire.FINISH_ACK)
            assert body[2] == [1] and wire.key_of(body[1][0]) == tuple(v for _, v in k), (k, body)
            for send in (lambda: w.chunk(k, 0, b"a lie\n"), lambda: w.send(wire.JOB_STARTED, [(1, k)]),
                         lambda: w.send(wire.ASSIGN_ACK, [(1, k)]), lambda: w.send(wire.ASSIGN_RETURN, [(1, k)])):
                send()
                kind, body = w.expect(wire.CANCEL)
                assert body[2] == [2], body  # fenced
            w.beat([(own, wire.RUNNING), (k, wire.RUNNING)])
            if k[0][1] != mine:
                w.expect(wire.CANCEL)
        w.finish(own)
        w.expect(wire.FINISH_ACK)
        wait_for("its own has ended", lambda: stack.get(f"/jobs/{mine}")["status"] == "success")
        w.close()
        stack.unharmed()


def logs_keep_their_bounds(build):
    with Rogue(build) as stack:
        w = stack.rogue()
        mine = stack.enqueue()
        own = w.start_job()

        def durable(size=None):
            while True:
                _, body = w.expect(wire.LOG_ACK)
                got = body.get(2, [0])[0]
                if size is None or got == size:
                    return got

        w.chunk(own, 5, b"gap")
        assert durable() == 0
        w.chunk(own, 0, b"hello ")
        assert durable() == 6
        w.chunk(own, 3, b"XXXworld")  # what is there stays as it is
        assert durable() == 11
        w.chunk(own, 0, b"XXXXX")
        assert durable() == 11
        w.chunk(own, 12, b"gap")
        assert durable() == 11
        w.finish(own, log_size=10**6)  # more than there is
        assert durable() == 11
        assert stack.get(f"/jobs/{mine}")["status"] == "running"
        piece = bytes(65536)
        for i in range(40):  # it may send on without waiting, and is answered all the same
            w.chunk(own, 11 + i * len(piece), piece)
        assert durable(11 + 40 * len(piece))
        for offset, data in ((BIG, b"x"), (BIG - 2, b"xxx"), (64 << 20, piece + b"x"), (1 << 40, b"x"), (0, bytes(70_000))):
            w.chunk(own, offset, data)
            assert w.is_closed(), (offset, len(data))
            w = stack.rogue(jobs=[(own, wire.RUNNING)])
        limit = 64 << 20
        at = 11 + 40 * len(piece)
        while at < limit:  # up to the cap of a log, and beyond
            w.chunk(own, at, piece[:min(len(piece), limit - at)])
            at = durable()
        w.chunk(own, at, b"more")
        w.is_closed(2)
        size = len(stack.log(mine))
        assert limit <= size <= limit + 65536, size
        assert stack.log(mine)[:11] == b"hello world"
        w.close()
        stack.unharmed()


def lists_have_an_end(build):
    """100,000 jobs in a beat or a Hello, lists without entries or keys, ends in hundreds."""
    with Rogue(build) as stack:
        many = [(wire.key(i + 1000), wire.RUNNING) for i in range(100_000)]
        w = stack.rogue()
        start = time.monotonic()
        with contextlib.suppress(wire.Closed):
            w.beat(many)
        assert w.is_closed() and time.monotonic() - start < 10
        w = stack.rogue(hello=False)
        with contextlib.suppress(wire.Closed):
            w.send(wire.HELLO, [(3, [(1, k), (2, s)]) for k, s in many])
        assert w.is_closed()
        for body in (lambda w: w.beat([([], wire.RUNNING)] * 5),
                     lambda w: w.send(wire.HEARTBEAT, [(2, [])] * 3),
                     lambda w: w.send(wire.JOB_FINISHED, [(1, [])]),
                     lambda w: w.send(wire.JOB_FINISHED, [(1, [(1, stack.victim)])]),
                     lambda w: w.send(wire.JOB_FINISHED, [(1, [(1, wire.key(i)), (2, [(1, 8)])]) for i in range(1025)]),
                     lambda w: w.send(wire.LOG_CHUNK, []),
                     lambda w: w.send(wire.ASSIGN_RETURN, [])):
            w = stack.rogue()
            body(w)
            if not w.is_closed(3):  # a job without a number is one that there is not: fenced
                assert wire.CANCEL in w.got or wire.FINISH_ACK in w.got, w.got
            w.close()
        w = stack.rogue()
        w.send(wire.JOB_FINISHED, [(1, [(1, wire.key(10**6 + i)), (2, [(1, 8)])]) for i in range(1024)])
        keys = 0
        while keys < 1024:
            keys += len(w.expect(wire.FINISH_ACK)[1][1])
        w.close()
        stack.unharmed()


def garbage_ends_a_session_and_nothing_else(build):
    """Bytes that are no message, lengths that are none, numbers out of order, bits that were turned."""
    with Rogue(build) as stack:
        rng = random.Random(7)
        for data in (b"\xff" * 12, b"\0" * 8, b"\0" * 7 + b"\x03" + wire.REQUEST, (1 << 63).to_bytes(8, "big"),
                     ((1 << 20) + 5).to_bytes(8, "big") + wire.REQUEST, b"\0" * 7 + b"\x08\0\0\0\1abcd"):
            w = stack.rogue()
            with contextlib.suppress(wire.Closed):
                w.raw(data)
            assert w.is_closed(), data
        w = stack.rogue()
        w.raw((1 << 20).to_bytes(8, "big") + wire.REQUEST + b"x" * 1000)  # and the rest never comes
        for number in ({"session": 1}, {"seq": 77}, {"seq": 2, "ack": 1000}, {"version": 99}, {"session": BIG}, {"seq": BIG}):
            v = stack.rogue()
            v.send(wire.LOG_CHUNK, [(1, stack.victim), (3, b"a lie")], **number)
            assert v.is_closed(), number
        for kind in (*range(18, 22), *range(30, 43), 99):  # of clients, of brokers, of nobody
            v = stack.rogue()
            v.send(kind, [(1, 1), (2, b"x")])
            assert v.is_closed(), kind
        good = wire.pack([(1, 3), (3, 2), (wire.JOB_FINISHED, [(1, [(1, stack.victim), (2, [(1, 8), (4, "x" * 30)])])])])
        for _ in range(150 if LONG else 30):
            v = stack.rogue()
            noise = bytearray(good if rng.random() < 0.7 else rng.randbytes(rng.randrange(400)))
            for _ in range(rng.randrange(6)):
                noise[rng.randrange(len(noise))] ^= 1 << rng.randrange(8) if noise else 0
            with contextlib.suppress(wire.Closed):
                v.frame(bytes(noise))
                v.frame(bytes(noise))  # twice: one of them has a number that is wrong
            assert v.is_closed()
        w.close()
        stack.unharmed()


def one_identity_is_one_session(build):
    """The newer one ends the older; neither makes the other's jobs its own twice."""
    with Rogue(build) as stack:
        one = stack.rogue()
        mine = stack.enqueue()
        own = one.start_job()
        two = stack.rogue(jobs=[(own, wire.RUNNING)])
        assert one.is_closed()
        with contextlib.suppress(wire.Closed):
            one.finish(own)  # into a connection that is nobody's
        two.finish(own)
        two.expect(wire.FINISH_ACK)
        two.finish(own)  # and once more
        _, body = two.expect(wire.FINISH_ACK)
        assert body[2] == [1], body
        attempts = stack.get(f"/jobs/{mine}")["attempts"]
        assert [a["status"] for a in attempts] == ["success"], attempts
        two.close()
        for other in ({"name": "honest"}, {"uid": b"0123456789abcdef"}):
            w = stack.rogue(hello=False)
            w.hello(other.get("name", "rogue"), other.get("uid"), 1, stack.state("rogue"))
            assert w.refused and w.refused[1] == "unauthorized", w.refused
        start = time.monotonic()
        sessions = [stack.rogue() for _ in range(60)]  # as fast as they come
        assert sum(s.is_closed(2) for s in sessions[:-1]) == 59
        assert time.monotonic() - start < 60
        sessions[-1].beat()
        sessions[-1].expect(wire.HEARTBEAT_ACK)
        stack.unharmed()


def a_deaf_worker_gets_no_more_than_its_credit(build):
    """It reads, but acknowledges nothing; then it does not read either."""
    with Rogue(build) as stack:
        w = stack.rogue()
        w.mute = True
        ack = w.seen
        with contextlib.suppress(wire.Closed):
            for i in range(6000):
                w.chunk(wire.key(10**6 + i), 0, b"x")
        assert w.is_closed(), "4096 messages wait for it"
        assert 1 <= w.got.count(wire.CANCEL) <= 32, w.got.count(wire.CANCEL)
        assert ack == w.seen
        w.close()
        w = stack.rogue()
        w.s.settimeout(5)
        with contextlib.suppress(wire.Closed, TimeoutError):
            for i in range(30_000):
                w.seen += 1  # lies about what it has read
                w.chunk(wire.key(10**7 + i), 0, b"x" * 1000)
        w.close()
        w = stack.rogue()
        w.s.settimeout(5)
        with contextlib.suppress(wire.Closed, TimeoutError):
            for i in range(100_000):
                w.beat()
        w.close()
        stack.unharmed()


def a_job_that_is_given_back_again_and_again_comes_slower_and_slower(build):
    with Rogue(build) as stack:
        w = stack.rogue()
        mine = stack.enqueue()
        busy = cpu_s(stack.broker.pid)
        start = time.monotonic()
        end = start + 4
        returns = 0
        beat = 0
        while time.monotonic() < end:
            if time.monotonic() > beat:
                w.beat()
                beat = time.monotonic() + 0.4
            with contextlib.suppress(TimeoutError):
                kind, body = w.receive(0.2)
                if kind == wire.ASSIGN:
                    job = wire.key(*wire.key_of(wire.unpack(body[1][0])[1][0]))
                    w.send(wire.ASSIGN_RETURN, [(1, job), (2, "no mood")])
                    returns += 1
        assert 2 <= returns <= 6, returns  # at 0, 0.25, 0.75, 1.75, 3.75 s
        assert cpu_s(stack.broker.pid) - busy < 3
        stack.post(f"/workers/{stack.row('honest')['id']}/resume")  # it is anybody's
        wait_for("another does it", lambda: stack.get(f"/jobs/{mine}")["status"] == "success")
        job = stack.get(f"/jobs/{mine}")
        assert job["worker"] == "honest", job
        w.close()
        stack.unharmed()


def certificates_are_for_ones_own_name(build):
    """A request under another's name gets a certificate that says who really asked, if any; other serials get none."""
    with Rogue(build) as stack:
        requests = []
        for name in ("honest", "rogue"):
            path = os.path.join(stack.dir, name + ".csr")
            done = stack.run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                             "-keyout", path + ".key", "-subj", f"/CN={name}", "-out", path)
            assert done.returncode == 0, done
            with open(path, "rb") as f:
                requests.append(f.read())
        serials = {}
        for name in ("honest", "rogue"):
            done = stack.run("openssl", "x509", "-serial", "-noout", "-in",
                             os.path.join(stack.state(name), "tls", "identity.pem"))
            serials[name] = bytes.fromhex(done.stdout.strip().split("=")[1])
        w = stack.rogue()
        for request, serial in ((requests[0], serials["honest"]), (requests[1], serials["honest"]), (b"", b""),
                                (b"-----BEGIN", serials["rogue"]), (os.urandom(5000), serials["rogue"]),
                                (requests[0], b"\0" * 16), (requests[0], serials["rogue"]), (requests[1], serials["rogue"])):
            w.send(wire.CERTIFICATE_REQUEST, [(1, request), (2, serial)])
            _, body = w.expect(wire.CERTIFICATE)
            text = body.get(1, [b""])[0]
            assert text and not body.get(3, [b""])[0], body  # a new one has no successor: before half of its time
        w.close()
        assert stack.row("honest")["online"] and not stack.row("honest")["revoked"]
        stack.unharmed()


if __name__ == "__main__":
    tests = [jobs_of_others_are_not_its_own, garbage_ends_a_session_and_nothing_else,
             a_job_that_is_given_back_again_and_again_comes_slower_and_slower]
    more = [logs_keep_their_bounds, lists_have_an_end, one_identity_is_one_session,
            a_deaf_worker_gets_no_more_than_its_credit, certificates_are_for_ones_own_name]
    main(tests + more if LONG or sys.argv[2:] else tests)
