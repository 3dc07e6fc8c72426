"""The worker protocol, as somebody else would write it: docs/protocol.md and proto/wire.proto, over TLS.

Nothing of it is checked before it is sent: whoever uses this says what he wants. Messages are lists of
(field number, value): an int is a varint, bytes or str are themselves, a list is a message.
"""
import contextlib
import os
import socket
import ssl
import struct
import time

GREETING = b"\0SP\0\0\x30\0\0"
REQUEST = b"\x80\0\0\1"
VERSION = 3

# Of Envelope.
HELLO, HEARTBEAT, ASSIGN_ACK, JOB_STARTED, LOG_CHUNK, JOB_FINISHED, ASSIGN_RETURN, BYE = range(10, 18)
CERTIFICATE_REQUEST = 22
WELCOME, HEARTBEAT_ACK, ASSIGN, CANCEL, LOG_ACK, FINISH_ACK, DRAIN, REFUSED, BYE_ACK = range(30, 39)
CERTIFICATE = 42
ACCEPTED, RUNNING, FINISHED = range(3)  # HeldState
SUCCESS, FAILED = 8, 9                  # JobState


def varint(n):
    n &= (1 << 64) - 1
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def pack(fields):
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts += [varint(number << 3), varint(value)]
            continue
        if isinstance(value, str):
            value = value.encode()
        elif not isinstance(value, bytes):
            value = pack(value)
        parts += [varint(number << 3 | 2), varint(len(value)), value]
    return b"".join(parts)


def unpack(data):
    """{field: [values]}: ints, and bytes that may be a message."""
    found = {}
    at = 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n

    while at < len(data):
        tag = number()
        if tag & 7 == 0:
            value = number()
        else:
            size = {1: 8, 5: 4}.get(tag & 7)
            size = number() if size is None else size
            value = data[at:at + size]
            at += size
        found.setdefault(tag >> 3, []).append(value)
    return found


def key(job, attempt=1, epoch=1):
    return [(1, job), (2, attempt), (3, epoch)]


def key_of(data):
    k = unpack(data)
    return tuple(k.get(i, [0])[0] for i in (1, 2, 3))


class Closed(Exception):
    """The broker ended the connection."""


class Worker:
    """A connection with a certificate: `state` is the folder of a worker that has joined. None: a plain one."""

    def __init__(self, stack, state, name=None, uid=None, slots=1, hello=True, jobs=(), token=""):
        self.token = token
        self.s = socket.create_connection(("127.0.0.1", stack.fleet_port), timeout=20)
        if state:
            context = ssl.create_default_context(cafile=stack.ca)
            context.load_cert_chain(os.path.join(state, "tls", "identity.pem"))
            self.s = context.wrap_socket(self.s, server_hostname="127.0.0.1")
        self.session = self.seq = self.seen = self.worker_id = 0
        self.mute = False  # acknowledges nothing
        self.refused = None
        self.got = []
        self.s.sendall(GREETING)
        assert self.read(8) == b"\0SP\0\0\x31\0\0"
        if hello:
            self.hello(name, uid, slots, state, jobs)

    def hello(self, name, uid, slots, state, jobs=()):
        if uid is None:
            with open(os.path.join(state, "worker.uid"), "rb") as f:
                uid = f.read()
            uid = bytes.fromhex(uid.decode().strip()) if len(uid) > 16 else uid
        who = [(1, uid), (2, name), (3, ""), (4, "shell"), (6, slots), (7, 1), (8, "rogue"), (9, "rogue")]
        self.send(HELLO, [(1, self.token), (2, who), *[(3, [(1, j), (2, state_of)]) for j, state_of in jobs]])
        body = self.expect(WELCOME, REFUSED)
        if body[0] == REFUSED:
            self.refused = {i: v[0].decode() if isinstance(v[0], bytes) else v[0] for i, v in body[1].items()}
            return
        self.session, self.worker_id = body[1][1][0], body[1][2][0]

    def read(self, n):
        data = b""
        try:
            while len(data) < n:
                part = self.s.recv(n - len(data))
                if not part:
                    raise Closed
                data += part
        except (ConnectionError, ssl.SSLError) as e:
            raise Closed from e
        return data

    def raw(self, data):
        try:
            self.s.sendall(data)
        except (ConnectionError, ssl.SSLError) as e:
            raise Closed from e

    def frame(self, data):
        self.raw(struct.pack(">Q", len(data) + 4) + REQUEST + data)

    def send(self, kind, body, session=None, seq=None, ack=None, version=VERSION):
        if seq is None:
            self.seq += kind != HEARTBEAT
            seq = 0 if kind == HEARTBEAT else self.seq
        self.frame(pack([(1, version), (2, self.session if session is None else session), (3, seq),
                         (4, self.seen if ack is None else ack), (kind, body)]))

    def receive(self, timeout_s=10):
        """(kind, body); TimeoutError when nothing comes."""
        self.s.settimeout(timeout_s)
        (n,) = struct.unpack(">Q", self.read(8))
        e = unpack(self.read(n)[4:])
        seq = e.get(3, [0])[0]
        if seq and not self.mute:
            self.seen = seq
        kind = next(k for k in e if k >= 10)
        body = unpack(e[kind][0])
        self.got.append(kind)
        return kind, body

    def expect(self, *kinds, timeout_s=20):
        """The next message of one of these kinds; acknowledges what else comes."""
        end = time.monotonic() + timeout_s
        while True:
            kind, body = self.receive(max(0.1, end - time.monotonic()))
            if kind in kinds:
                return kind, body

    def beat(self, jobs=(), **more):
        self.send(HEARTBEAT, [(2, [(1, j), (2, state)]) for j, state in jobs], **more)

    def take_job(self, timeout_s=20):
        _, body = self.expect(ASSIGN, timeout_s=timeout_s)
        job = key(*key_of(unpack(body[1][0])[1][0]))
        self.send(ASSIGN_ACK, [(1, job)])
        return job

    def start_job(self):
        job = self.take_job()
        self.send(JOB_STARTED, [(1, job)])
        return job

    def chunk(self, job, offset, data):
        self.send(LOG_CHUNK, [(1, job), (2, offset), (3, data)])

    def finish(self, job, result=SUCCESS, log_size=0):
        self.send(JOB_FINISHED, [(1, [(1, job), (2, [(1, result), (5, log_size)])])])

    def is_closed(self, timeout_s=10):
        """Reads until the broker closes. False: it did not."""
        end = time.monotonic() + timeout_s
        with contextlib.suppress(TimeoutError):
            try:
                while time.monotonic() < end:
                    self.receive(end - time.monotonic())
            except Closed:
                return True
        return False

    def close(self):
        self.s.close()
