"""What has ended goes after its time, also when the broker is killed meanwhile; the rest stays."""
import os
import subprocess

from stack import ApiError, Stack, main, wait_for

PIPELINE = """
stages: [a, b]
make: {stage: a, script: ["echo made > out"], artifacts: {paths: [out]}}
use: {stage: b, script: [cat out]}
"""
SITE = """
live: {script: [echo deployed], environment: {name: production}}
"""
OPEN = """
ask: {script: [echo asked], when: manual, allow_failure: false}
"""


def status_of(stack, path):
    try:
        stack.patient(lambda: stack.get(path))
        return 200
    except ApiError as e:
        return e.status


def what_has_ended_goes_and_what_is_needed_stays(build):
    with Stack(build, davitd=("--keep-pipelines", "3s")) as stack:
        site = stack.submit(SITE)["id"]
        waiting = stack.submit(OPEN)["id"]
        old = [stack.submit(PIPELINE)["id"] for _ in range(5)]
        jobs = [stack.job(old[0], name)["id"] for name in ("make", "use")]
        for ident in (*old, site):
            assert stack.wait_pipeline(ident)["status"] == "success"
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        for ident in old:
            wait_for(f"pipeline {ident} is gone", lambda i=ident: status_of(stack, f"/pipelines/{i}") == 404)
        for ident in jobs:
            assert status_of(stack, f"/jobs/{ident}") == 404
            assert status_of(stack, f"/jobs/{ident}/log") == 404
        assert status_of(stack, f"/pipelines/{site}") == 200
        assert status_of(stack, f"/pipelines/{waiting}") == 200
        listed = [p["id"] for p in stack.get("/pipelines?project=e2e")["items"]]
        assert sorted(listed) == sorted([site, waiting]), listed
        again = stack.submit(PIPELINE)["id"]
        assert stack.wait_pipeline(again)["status"] == "success"
        stack.stop()
        stack.fsck()


def nonsense_is_refused(build):
    for value in ("x", "-1", "10ms", ""):
        done = subprocess.run([os.path.join(build, "davitd"), "--data", "/nonexistent/x",
                               "--keep-pipelines", value], capture_output=True, timeout=20, check=False)
        assert done.returncode == 64 and b"bad value" in done.stderr, (value, done)


if __name__ == "__main__":
    main([what_has_ended_goes_and_what_is_needed_stays, nonsense_is_refused])
