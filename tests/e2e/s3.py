"""Blobs in S3: davitd and its workers with a real store of objects behind them, OpenStack Swift."""
import contextlib
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import swift_s3
from stack import SKIP, ApiError, Stack, main, wait_for

LONG = bool(os.environ.get("DAVIT_E2E_LONG"))

PREFIX = "/davit/one"
TEXT = """
stages: [make, use]
make:
  stage: make
  tags: [first]
  cache: {key: things, paths: [cached]}
  script: [mkdir -p cached, echo kept > cached/file, head -c 3000000 /dev/urandom > big, sha256sum big > sum]
  artifacts: {paths: [big, sum]}
use:
  stage: use
  tags: [second]
  cache: {key: things, paths: [cached], policy: pull}
  script: [sha256sum -c sum, cat cached/file]
"""
AWAY = """
stages: [make, use]
make: {stage: make, tags: [first], script: [echo text > file], artifacts: {paths: [file]}}
use: {stage: use, tags: [second], script: [cat file]}
"""
BIG = 24 << 20
running = None  # one Swift for all tests: it takes seconds to start


def options(key, url=None):
    return ("--s3", (url or running.url) + PREFIX, "--s3-key", "command:printf '%s' '" + key + "'", "--s3-keep", "1")


@contextlib.contextmanager
def stack_of_two(build, **kw):
    with Stack(build, workers=2, davitd=options(running.key), **kw) as stack:
        for worker, tag in zip(stack.workers, ("first", "second")):
            worker.stop()
            worker.argv += ["--tags", tag]
            worker.start()
        wait_for("both workers online", lambda: stack.online() == 2)
        yield stack


def local_blobs(stack):
    return [os.path.join(top, name) for top, _, names in os.walk(os.path.join(stack.data, "blobs")) for name in names
            if len(name) == 64]


def what_one_worker_makes_another_reads(build):
    with stack_of_two(build) as stack:
        before = set(running.objects())
        p = stack.submit(TEXT)
        assert stack.wait_pipeline(p["id"], timeout_s=120)["status"] == "success"
        new = set(running.objects()) - before
        assert len(new) >= 2 and all(name.startswith("davit/one/") for name in new), new
        # Without the folder's copies, it all comes from there again.
        for path in local_blobs(stack):
            os.unlink(path)
        use = stack.job(p["id"], "use")["id"]
        stack.post(f"/jobs/{use}/retry", {})
        wait_for("the job is done again", lambda: stack.pipeline(p["id"])["status"] == "success"
                 and stack.get(f"/jobs/{use}")["attempt"] == 2, timeout_s=60)
        log = stack.log(use)
        assert b"big: OK" in log and b"kept" in log, log
        assert local_blobs(stack), "nothing was fetched"
        for name in new:
            digest = hashlib.sha256(running.ask("GET", "/" + name)[1]).hexdigest()
            assert name.endswith(digest), (name, digest)
        stack.stop()
        stack.fsck()


def begin(stack, size):
    request = urllib.request.Request(stack.url + "/api/v1/uploads", method="POST", headers={
        "Authorization": "Bearer " + stack.token(), "Tus-Resumable": "1.0.0", "Upload-Length": str(size)})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.headers["Location"]


def tus(stack, method, path, offset=None, body=None):
    headers = {"Authorization": "Bearer " + stack.token(), "Tus-Resumable": "1.0.0"}
    if offset is not None:
        headers |= {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
    request = urllib.request.Request(stack.url + path, method=method, headers=headers, data=body)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.status, answer.headers


def a_kill_in_the_middle_costs_no_bytes(build):
    """The broker is killed while it receives, and again while it sends to the storage."""
    with Stack(build, workers=0, davitd=options(running.key)) as stack:
        data = os.urandom(BIG)
        path = begin(stack, BIG)
        half = BIG // 2 + 17
        tus(stack, "PATCH", path, 0, data[:half])
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        assert tus(stack, "HEAD", path)[1]["Upload-Offset"] == str(half)

        def last_part():
            with contextlib.suppress(OSError, urllib.error.HTTPError):
                tus(stack, "PATCH", path, half, data[half:])
        sender = threading.Thread(target=last_part)
        sender.start()
        name = hashlib.sha256(data).hexdigest()
        wait_for("the blob has its name", lambda: os.path.exists(f"{stack.data}/blobs/{name[:2]}/{name}"), pause_s=0.001)
        stack.broker.kill()
        sender.join()
        stack.broker.start()
        stack.wait_broker()
        # The answer was lost: whoever sent it does so again, and only then it is there for sure.
        try:
            offset = int(tus(stack, "HEAD", path)[1]["Upload-Offset"])
        except urllib.error.HTTPError as e:
            assert e.code == 404, e
            path, offset = begin(stack, BIG), 0
        if offset < BIG:
            tus(stack, "PATCH", path, offset, data[offset:])
        status, body = running.ask("GET", f"{PREFIX}/{name[:2]}/{name}")
        assert status == 200 and body == data, (status, len(body))
        stack.stop()
        stack.fsck()


def a_storage_that_is_away_is_waited_for(build):
    with stack_of_two(build) as stack:
        for child in running.children.values():
            child.kill()
        try:
            p = stack.submit(AWAY)
            make = stack.job(p["id"], "make")["id"]
            wait_for("the upload is tried", lambda: b"Uploading artifacts" in stack.log(make), timeout_s=60)
            time.sleep(1)
            assert stack.get(f"/jobs/{make}")["status"] == "running"
            wait_for("the broker says so", lambda: "blobs: cannot" in open(stack.broker.log, encoding="utf-8").read(),
                     timeout_s=60)
            # Nobody needs the storage to start.
            stack.broker.kill()
            stack.broker.start()
            stack.wait_broker()
            assert "uploads wait for it" in open(stack.broker.log, encoding="utf-8").read()
        finally:
            running.start()
        assert stack.wait_pipeline(p["id"], timeout_s=180)["status"] == "success"
        assert b"text" in stack.log(stack.job(p["id"], "use")["id"])
        stack.stop()
        stack.fsck()


def refused(build, *arguments):
    with tempfile.TemporaryDirectory(prefix="davit-e2e-") as data:
        done = subprocess.run([os.path.join(build, "davitd"), "--data", data, "--listen", "tcp://127.0.0.1:0",
                               "--http", "127.0.0.1:0", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode not in (0, -9, -6, 1), done
    return done.stderr


def a_wrong_key_or_bucket_is_said_at_the_start(build):
    said = refused(build, *options("test:tester\nwrong"))
    assert "403 SignatureDoesNotMatch" in said and running.url in said, said
    said = refused(build, *options("nobody:here:x"))
    assert "HTTP status 403" in said, said
    said = refused(build, *options(running.key, running.url + "x"))
    assert "404 NoSuchBucket" in said, said


def the_unit_tests_pass_with_it(build):
    """Sweeping, copies, and bytes that are wrong: as against the stand-in."""
    done = subprocess.run([os.path.join(build, "tests/unit/blob/test_s3")], capture_output=True, text=True, timeout=240,
                          check=False, env=os.environ | {"DAVIT_TEST_S3": running.url + "/unit", "DAVIT_TEST_S3_KEY": running.key})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stderr + done.stdout, done


if __name__ == "__main__":
    why = swift_s3.missing()
    if why:
        print("skipped:", why)
        sys.exit(SKIP)
    with swift_s3.Swift(tempfile.mkdtemp(prefix="davit-e2e-")) as running:
        tests = [what_one_worker_makes_another_reads, a_kill_in_the_middle_costs_no_bytes,
                 a_wrong_key_or_bucket_is_said_at_the_start, the_unit_tests_pass_with_it]
        more = [a_storage_that_is_away_is_waited_for]
        main(tests + more if LONG or sys.argv[2:] else tests)
