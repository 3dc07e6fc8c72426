"""Jobs without a process: what they bring, and what becomes of them when their worker is killed."""
import contextlib
import http.server
import os
import threading

from enqueue import enqueue, job, wait_status
from stack import Stack, main, wait_for

FLIGHT = 1000


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/good" else 503)
        self.end_headers()
        self.wfile.write(b"all is well")

    def log_message(self, *args):
        pass


def with_actions(stack, count):
    stack.workers[0].argv += ["--executors", "shell,action", "--actions", str(count)]
    stack.workers[0].kill()
    stack.workers[0].start()


def an_action_brings_its_answer(build):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_port
    with Stack(build, workers=1) as stack:
        early = enqueue(stack, {"action": {"wait": 0}})[0]
        why = stack.patient(lambda: stack.get(f"/jobs/{early}/why"))
        assert "no executor action" in str(why), why
        with_actions(stack, 50)
        wait_status(stack, early, "success")
        good, bad, open_port, closed, meta = enqueue(
            stack, {"action": {"http": {"url": f"http://127.0.0.1:{port}/$P", "expect_body": "/well/"}},
                    "variables": [{"name": "P", "value": "good"}]},
            {"action": {"http": {"url": f"http://127.0.0.1:{port}/bad"}}, "retry": 1},
            {"action": {"tcp": {"host": "127.0.0.1", "port": port}}},
            {"action": {"tcp": {"host": "127.0.0.1", "port": 1}}},
            {"action": {"http": {"url": "http://169.254.169.254/"}}})
        result = wait_status(stack, good, "success")["attempts"][-1]["action"]
        assert result["status"] == 200 and result["body"] == "all is well", result
        failed = wait_status(stack, bad, "failed")
        assert failed["attempt"] == 2 and failed["attempts"][1]["action"]["code"] == "status", failed
        wait_status(stack, open_port, "success")
        for ident, code in ((closed, "unreachable"), (meta, "denied")):
            result = wait_status(stack, ident, "failed")["attempts"][-1]["action"]
            assert result["code"] == code, result
        long = enqueue(stack, {"action": {"wait": "1h"}})[0]
        wait_status(stack, long, "running")
        stack.post(f"/jobs/{long}/cancel", {})
        wait_status(stack, long, "canceled")
        stack.stop()
        stack.fsck()
    server.shutdown()


def none_is_lost_or_ends_twice_when_its_worker_is_killed(build):
    with Stack(build, workers=1) as stack:
        with_actions(stack, FLIGHT)
        ids = enqueue(stack, *[{"action": {"wait": "2s"}}] * FLIGHT)
        wait_status(stack, ids[-1], "running")
        stack.workers[0].kill()
        stack.workers[0].start()
        for ident in ids:
            done = wait_status(stack, ident, "success", "failed")
            good = [a for a in done["attempts"] if a["status"] == "success"]
            assert done["status"] == "success" and len(good) == 1, done
        assert any(job(stack, ident)["attempt"] > 1 for ident in ids[-5:])
        stack.stop()
        stack.fsck()


def processes_do_one_job_after_the_other(build):
    loop = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "prefork", "loop.py")
    with Stack(build, workers=1) as stack:
        early = enqueue(stack, {"action": {"prefork": {"name": "words", "input": "a b c"}}})[0]
        why = stack.patient(lambda: stack.get(f"/jobs/{early}/why"))
        assert "no executor prefork/words" in str(why), why
        stack.workers[0].argv += ["--prefork", f"words:2=python3 {loop}"]
        stack.workers[0].kill()
        stack.workers[0].start()
        done = wait_status(stack, early, "success")
        assert done["attempts"][-1]["action"]["body"] == "3", done
        assert b"of this process" in stack.log(early), stack.log(early)
        ids = enqueue(stack, *[{"action": {"prefork": {"name": "words", "input": "w " * (i % 50)}}} for i in range(FLIGHT)])
        stack.workers[0].kill()  # in the middle: what was lost is begun anew
        stack.workers[0].start()
        for i, ident in enumerate(ids):
            done = wait_status(stack, ident, "success", "failed")
            assert done["status"] == "success" and done["attempts"][-1]["action"]["body"] == str(i % 50), done
        left = processes_of(stack)
        assert len(left) == 2, left
        stack.workers[0].kill()
        wait_for("the end of the processes", lambda: not processes_of(stack))  # their stdin has ended
        stack.stop()
        stack.fsck()


def processes_of(stack):
    """The interpreters in pools of this stack's workers."""
    mark = b"DAVIT_PREFORK_STATE=" + os.fsencode(stack.dir)
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as env, \
                open(f"/proc/{pid}/cmdline", "rb") as argv:
            if mark in env.read() and argv.read().startswith(b"python3"):
                found.append(int(pid))
    return found


if __name__ == "__main__":
    main([an_action_brings_its_answer, none_is_lost_or_ends_twice_when_its_worker_is_killed,
          processes_do_one_job_after_the_other])
