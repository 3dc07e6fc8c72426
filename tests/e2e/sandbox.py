"""Jobs in namespaces, by bubblewrap: sandbox.py BUILD [TEST...]"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

from stack import SKIP, Stack, main, wait_for


def end(s, pipeline, name="job", status="success"):
    s.wait_pipeline(pipeline)
    job = s.get(f"/jobs/{s.job(pipeline, name)['id']}")
    log = s.log(job["id"]).decode(errors="replace")
    assert job["status"] == status, f"{job['status']}, {job['attempts']}\n{log}"
    return job, log


def jobs_see_the_system_and_their_tree(build):
    with Stack(build, worker=["--executors", "sandbox", "--sandbox-read", "/var/log"]) as s:
        with open(os.path.join(s.dir, "secret"), "w", encoding="ascii") as f:
            f.write("of the host")
        p = s.submit(f"""
stages: [a, b]
job:
  stage: a
  variables: {{KEY: "of the job"}}
  script:
    - 'pwd; echo "home $HOME, $KEY, $CI_DISPOSABLE_ENVIRONMENT"'
    - 'touch /usr/x 2>/dev/null || echo read-only'
    - 'cat {s.dir}/secret 2>/dev/null || echo no host'
    - 'ls {s.dir}/worker-0/jobs/*/spec.pb 2>/dev/null || echo no job folders'
    - 'cat /etc/shadow 2>/dev/null || echo no shadow'
    - 'echo "$(ls /tmp | wc -l) $(ls /var)"; touch /tmp/mine; (mount -t tmpfs x /mnt) 2>/dev/null || echo no mount'
    - 'grep CapEff /proc/self/status; ls /proc | grep -c "^[0-9]"'
    - 'mkdir out; echo made > out/file'
  after_script: ['echo "after $CI_JOB_STATUS $(ls /tmp/mine 2>&1)"']
  artifacts: {{paths: [out]}}
code: {{stage: a, script: ['exit 7'], allow_failure: true}}
next: {{stage: b, script: ['cat out/file', 'touch /var/log/x 2>/dev/null || echo read-only']}}
named: {{stage: b, image: debian, executor: sandbox, script: ['true'], allow_failure: true, retry: 0}}
""")["id"]
        _, log = end(s, p)
        for part in ("home /tmp, of the job, true\n", "\nread-only\n", "\nno host\n", "\nno job folders\n",
                     "\nno shadow\n", "\nno mount\n", "CapEff:\t0000000000000000\n", "after success ls: "):
            assert part in log, (part, log)
        job, _ = end(s, p, "code", "failed")
        assert job["exit_code"] == 7 and job["attempts"][-1]["reason"] == "script_failure", job
        _, log = end(s, p, "next")
        assert "\nmade\n" in log and "\nread-only\n" in log, log
        job, log = end(s, p, "named", "failed")
        assert "the sandbox executor starts no containers" in log, log
        q = s.submit("job: {image: debian, script: ['true']}\n")["id"]
        why = s.get(f"/jobs/{s.job(q, 'job')['id']}/why")
        assert "no executor docker" in str(why), why


def the_worker_keeps_its_state_to_itself(build):
    shown = tempfile.gettempdir()  # where the state lies
    with Stack(build, worker=["--executors", "sandbox", "--sandbox-read", shown]) as s:
        p = s.submit(f"""
job:
  script:
    - 'ls -d {s.dir}/worker-0 && test -e {s.dir}/davitd.log && echo shown'
    - 'cat {s.dir}/worker-0/jobs/*/spec.pb {s.dir}/worker-0/worker.uid >/dev/null 2>&1 || echo no state'
    - 'test -e {s.dir}/data/worker.token && ! grep . {s.dir}/data/worker.token && echo no token'
    - 'echo mine > file && cat file'
""")["id"]
        _, log = end(s, p)
        for part in ("\nshown\n", "\nno state\n", "\nno token\n", "\nmine\n"):
            assert part in log, (part, log)


def variables_reach_no_program_outside(build):
    with Stack(build, worker=["--executors", "sandbox"]) as s:
        p = s.submit(rf"""
job:
  variables: {{LD_DEBUG: libs, LD_DEBUG_OUTPUT: "{s.dir}/loader", MANY: "lines\nand 'quotes' \" $$HOME", EMPTY: ""}}
  script: ['echo "<$LD_DEBUG,$MANY,${{EMPTY-unset}}>"']
  after_script: ['echo "after <$LD_DEBUG>"']
""")["id"]
        _, log = end(s, p)
        assert "\n<libs,lines\nand 'quotes' \" $HOME,>\n" in log and "\nafter <libs>\n" in log, log
        written = [name for name in os.listdir(s.dir) if name.startswith("loader")]
        assert not written, written


def a_network_is_there_or_not(build):
    text = "job: {script: ['echo > /dev/tcp/127.0.0.1/$PORT && echo reached']}\n"
    for options, reaches in ((["--sandbox-no-network"], False), ([], True)):
        with Stack(build, worker=["--executors", "sandbox", *options]) as s:
            p = s.submit(text, variables=[{"name": "PORT", "value": str(s.http_port)}])["id"]
            _, log = end(s, p, status="success" if reaches else "failed")
            assert ("\nreached\n" in log) == reaches, log


def it_ends_with_grace_and_outlives_its_worker(build):
    with Stack(build, worker=["--executors", "sandbox", "--cancel-grace-ms", "8000"]) as s:
        p = s.submit("""
job:
  script: ['trap "echo trapped; exit 9" TERM', 'echo ready', 'while true; do sleep 0.1; done']
  after_script: ['echo "after $CI_JOB_STATUS"']
long:
  script: ['for i in {1..40}; do echo "line $i"; sleep 0.1; done']
""")["id"]
        wait_for("both run", lambda: b"\nready" in s.log(s.job(p, "job")["id"]) and
                 b"line 3\n" in s.log(s.job(p, "long")["id"]), 30)
        s.workers[0].kill()
        time.sleep(0.5)
        s.workers[0].start()
        wait_for("the worker is back", lambda: s.online() == 1)
        s.post(f"/jobs/{s.job(p, 'job')['id']}/cancel")
        _, log = end(s, p, "long")
        lines = [line for line in log.splitlines() if line.startswith("line ")]
        assert lines == [f"line {i}" for i in range(1, 41)], log
        _, log = end(s, p, status="canceled")
        assert "trapped\n" in log and "after canceled\n" in log, log
        wait_for("no process is left", lambda: not s.job_processes())


if __name__ == "__main__":
    bwrap = shutil.which("bwrap")
    if not bwrap or subprocess.run([bwrap, "--unshare-all", "--ro-bind", "/", "/", "true"], check=False).returncode:
        print("skipped: bubblewrap makes no sandbox here")
        sys.exit(SKIP)
    main([jobs_see_the_system_and_their_tree, the_worker_keeps_its_state_to_itself, variables_reach_no_program_outside,
          a_network_is_there_or_not, it_ends_with_grace_and_outlives_its_worker])
