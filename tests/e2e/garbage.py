"""Garbage at every door: each gets a clear error, and nothing else is disturbed."""
import contextlib
import os
import random
import resource
import socket
import struct
import time

from stack import ApiError, Stack, main, wait_for

SP_REQ = b"\0SP\0\x00\x30\x00\x00"  # the hello of a REQ socket on nng's TCP transport


def submit_error(stack, text, **fields):
    body = {"project": "g", "ref": "main", "file": ".gitlab-ci.yml", "files": {".gitlab-ci.yml": text}}
    body.update(fields)
    try:
        answer = stack.post("/pipelines", body)
        raise AssertionError(f"accepted: {answer}")
    except ApiError as e:
        problem = e.problem
        assert e.status in (400, 413, 422), problem
        return problem


def rss_kb(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return int(next(line for line in f if line.startswith("VmRSS")).split()[1])


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def still_works(stack):
    p = stack.submit("job: {script: ['true']}\n")
    assert stack.wait_pipeline(p["id"])["status"] == "success"


def bad_pipeline_files_are_refused_with_their_place(build):
    with Stack(build) as stack:
        before = rss_kb(stack.broker.pid)
        bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
        cases = {
            "truncated": "job:\n  script: [echo 'a",
            "brackets": "[" * 200_000,
            "alias bomb": bomb + "job: {script: ['true']}\n",
            "tab": "job:\n\tscript: x\n",
            "unknown keyword": "job:\n  scirpt: x\n",
            "not a mapping": "- a\n- b\n",
            "empty": "",
            "cycle": "a: {needs: [b], script: x}\nb: {needs: [a], script: x}\n",
        }
        for name, text in cases.items():
            start = time.monotonic()
            problem = submit_error(stack, text)
            assert time.monotonic() - start < 2, name
            assert problem["code"] == "pipeline_invalid", (name, problem)
            first = problem["diagnostics"][0]
            assert first["message"] and first["file"] == ".gitlab-ci.yml", (name, first)
        unknown = submit_error(stack, cases["unknown keyword"])["diagnostics"][0]
        assert (unknown["line"], unknown["column"]) == (2, 3) and "script" in unknown["hint"], unknown
        assert rss_kb(stack.broker.pid) - before < 200_000
        assert stack.get("/pipelines")["items"] == []
        still_works(stack)


def bad_requests_are_refused(build):
    with Stack(build) as stack:
        noise = random.Random(1).randbytes(1 << 20)
        for body in (noise, b"{", b"[]", b"null", b'{"project":"a"', b"[" * 100_000):
            try:
                stack.post("/pipelines", body)
                raise AssertionError("accepted")
            except ApiError as e:
                assert e.status in (400, 422), (body[:20], e)
                assert e.problem["detail"]
        problem = submit_error(stack, "job: {script: x}\n", surprise=1)
        assert "surprise" in problem["detail"], problem
        try:
            stack.post("/pipelines", b" " * (17 << 20))
            raise AssertionError("accepted")
        except ApiError as e:
            assert e.status == 413, e
        except OSError:
            pass  # the connection was closed on the way: also an answer
        still_works(stack)


def a_wrong_token_opens_nothing(build):
    with Stack(build) as stack:
        for token in ("", "x", "Bearer", stack.token()[:-1], stack.token() + "a"):
            try:
                stack.request("GET", "/api/v1/pipelines", headers={"Authorization": "Bearer " + token})
                raise AssertionError("accepted")
            except ApiError as e:
                assert e.status == 401, e
        worker = open(os.path.join(stack.data, "worker.token"), encoding="ascii").read().strip()
        try:
            stack.request("GET", "/api/v1/pipelines", headers={"Authorization": "Bearer " + worker})
            raise AssertionError("accepted")
        except ApiError as e:
            assert e.status == 403, e
        still_works(stack)


def fleet_connection(stack):
    s = socket.create_connection(("127.0.0.1", stack.fleet_port), timeout=5)
    s.sendall(SP_REQ)
    assert s.recv(8)[:4] == b"\0SP\0"
    return s


def say(s, data):
    """The broker may have closed before all is said: what `closed` finds then."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        s.sendall(data)


def closed(s):
    s.settimeout(15)
    try:
        while s.recv(65536):
            pass
        return True
    except ConnectionResetError:
        return True
    except (TimeoutError, socket.timeout):
        return False


def garbage_on_the_wire_closes_the_connection(build):
    with Stack(build) as stack:
        p = stack.submit("job: {script: [sleep 4]}\n")
        stack.wait_job(p["id"], "job", "running")
        before = rss_kb(stack.broker.pid)
        rng = random.Random(2)
        frames = [rng.randbytes(1 << 19), b"", rng.randbytes(10), b"\x08\x01\x52\x00",
                  b"\x08\x63\x52\x02\x0a\x00",  # another version
                  b"\x0a" * 100_000]
        for frame in frames:
            s = fleet_connection(stack)
            message = struct.pack(">I", 0x80000001) + frame
            say(s, struct.pack(">Q", len(message)) + message)
            assert closed(s), f"still open after {frame[:16]!r}"
            s.close()
        s = fleet_connection(stack)  # a frame that claims an exabyte
        say(s, struct.pack(">Q", 1 << 60) + b"x" * 1000)
        assert closed(s)
        s = socket.create_connection(("127.0.0.1", stack.fleet_port), timeout=5)
        say(s, b"GET / HTTP/1.1\r\n\r\n" + rng.randbytes(1000))
        s.close()
        assert rss_kb(stack.broker.pid) - before < 100_000
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "success" and done["jobs"][0]["attempt"] == 1


def silent_connections_cost_nothing_and_are_dropped(build):
    with Stack(build) as stack:
        quiet = [fleet_connection(stack) for _ in range(50)]
        half = [socket.create_connection(("127.0.0.1", stack.http_port), timeout=5) for _ in range(50)]
        for s in half:
            s.sendall(b"GET /api/v1/pipelines HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        before = cpu_s(stack.broker.pid)
        time.sleep(2)
        assert cpu_s(stack.broker.pid) - before < 0.5
        still_works(stack)
        assert wait_for("a silent worker connection is closed", lambda: closed(quiet[0]), 30)
        for s in quiet + half:
            s.close()


def more_connections_than_descriptors_disturb_nothing(build):
    stack = Stack(build)
    stack.broker.argv = ["sh", "-c", 'ulimit -n 200; exec "$@"', "sh"] + stack.broker.argv
    with stack:
        p = stack.submit("job: {when: delayed, start_in: 2 seconds, script: [echo hi]}\n")
        crowd = [socket.create_connection(("127.0.0.1", stack.fleet_port), timeout=5)
                 for _ in range(260)]
        done = stack.wait_pipeline(p["id"])  # its log is opened while they all are there
        assert done["status"] == "success" and done["jobs"][0]["attempt"] == 1, done
        assert stack.broker.alive()
        for s in crowd:
            s.close()


def a_worker_with_a_wrong_token_gives_up_and_says_why(build):
    with Stack(build) as stack:
        bad = os.path.join(stack.dir, "bad.token")
        with open(bad, "w", encoding="ascii") as f:
            f.write("wrong\n")
        os.chmod(bad, 0o600)
        w = stack.workers[0]
        w.stop()
        argv = list(w.argv)
        argv[argv.index("--token-file") + 1] = bad
        w.argv = argv
        w.start()
        assert w.process.wait(20) != 0
        with open(w.log, encoding="utf-8") as f:
            assert "token" in f.read().splitlines()[-1]


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main([bad_pipeline_files_are_refused_with_their_place, bad_requests_are_refused,
          a_wrong_token_opens_nothing, garbage_on_the_wire_closes_the_connection,
          silent_connections_cost_nothing_and_are_dropped,
          more_connections_than_descriptors_disturb_nothing,
          a_worker_with_a_wrong_token_gives_up_and_says_why])
