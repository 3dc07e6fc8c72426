"""Jobs in containers, by a real Docker Engine: docker.py BUILD [TEST...]"""
import base64
import contextlib
import ctypes
import glob
import json
import os
import random
import shutil
import signal
import string
import subprocess
import time

from engine import Engine, bash_tree, busybox_tree, tree
from stack import Stack, free_port, main, wait_for

OPTIONS = ["--executors", "shell,docker", "--docker-pull", "if-not-present",
           "--docker-allow-pull", "always,if-not-present,never"]
engine = None


def stack(build, *more, **kw):
    return Stack(build, worker=[*OPTIONS, "--docker-socket", engine.socket, *more], **kw)


def start(s, text, **fields):
    """A pipeline whose jobs have names; returns its id."""
    return s.submit(text, **fields)["id"]


def end(s, pipeline, name="job", status="success"):
    """What the API says of the job that has ended, and its log."""
    s.wait_pipeline(pipeline)
    job = s.get(f"/jobs/{s.job(pipeline, name)['id']}")
    log = s.log(job["id"]).decode(errors="replace")
    assert job["status"] == status, f"{job['status']}, {job['attempts']}\n{log}"
    return job, log


def reason(job):
    return job["attempts"][-1]["reason"]


def detail(job):
    return job["attempts"][-1]["detail"]


def lines_run_in_the_image(build):
    with stack(build) as s:
        p = start(s, """
job:
  image: busybox:1
  variables: {WHO: world, TEXT: "it's $WHO"}
  before_script: ['cd /tmp', 'X=1']
  script:
    - 'echo "in $(pwd), $X, $TEXT"'
    - '[ ! -e /usr/lib ] && echo no host here'
    - 'echo "$CI_DISPOSABLE_ENVIRONMENT [$CI_SHARED_ENVIRONMENT] $FROM_IMAGE"'
    - 'touch /left; sleep 1000 &'
  after_script: ['echo "after $CI_JOB_STATUS"', 'ls /left']
bash:
  image: bash:1
  script: ['a=(1 2)', 'echo "bash ${a[1]} in $CI_PROJECT_DIR"', '[ "$PWD" = "$CI_PROJECT_DIR" ]']
code:
  image: busybox:1
  script: ['echo a', '(exit 103)', 'echo b']
  allow_failure: true
host:
  script: ['echo "host [$CI_DISPOSABLE_ENVIRONMENT] $CI_SHARED_ENVIRONMENT"']
without:
  image: nothing:1
  script: ['true']
  allow_failure: true
entry:
  image: {name: 'entry:1'}
  script: ['echo "script $FROM_ENTRY"']
none:
  image: {name: 'entry:1', entrypoint: ['']}
  script: ['echo "script [$FROM_ENTRY]"']
file:
  image: {name: 'busybox:1', docker: {user: user}}
  variables: {}
  script: ['id -un', 'mkdir -p out/deep; echo mine > out/deep/file; chmod 700 out/deep']
  artifacts: {paths: [out]}
""")
        _, log = end(s, p)
        assert "in /tmp, 1, it's world\n" in log and "no host here" in log, log
        assert "\ntrue [] yes\n" in log and "Ended 1 process that script left" in log, log
        assert "after success\n" in log and "\n/left\n" in log, log  # the same container
        _, log = end(s, p, "bash")
        assert "\nbash 2 in " in log, log
        job, log = end(s, p, "code", "failed")
        assert reason(job) == "script_failure" and job["exit_code"] == 103, job
        assert log.count("ended with exit code 103") == 1 and "\nb\n" not in log, log
        assert "\nhost [] true\n" in end(s, p, "host")[1]
        job, log = end(s, p, "without", "failed")
        assert reason(job) == "config_error" and "has no shell" in detail(job), job
        _, log = end(s, p, "entry")
        assert "the entry point runs\n" in log and "\nscript set\n" in log, log
        _, log = end(s, p, "none")
        assert "the entry point" not in log and "\nscript []\n" in log, log
        job, log = end(s, p, "file")
        assert "\nuser\n" in log, log
        engine.assert_clean()


def services_are_there_when_the_script_begins(build):
    with stack(build, "--docker-service-wait", "5") as s:
        p = start(s, """
job:
  image: busybox:1
  variables: {GREETING: hello}
  services:
    - name: web:1
      alias: www one,two
      variables: {NAME: "$GREETING world"}
    - {name: 'dir/late:2', command: ['sh', '-c', 'sleep 2; exec httpd -f -p 80 -h /www']}
  script:
    - 'for host in www one two web; do wget -qO- http://$host/name; done'
    - 'wget -qO- http://dir__late/name; wget -qO- http://dir-late/name'
ended:
  image: busybox:1
  services: [{name: 'web:1', command: ['sh', '-c', 'echo last words; sleep 0.5; exit 3']}]
  script: ['echo all the same']
health:
  image: busybox:1
  services: [{name: 'health:1', alias: h}]
  script: ['wget -qO- http://h/name']
""")
        _, log = end(s, p)
        assert log.count("hello world\n") == 4 and log.count("no name\n") == 2, log
        _, log = end(s, p, "ended")
        assert "all the same" in log, log
        assert "has ended with exit code 3" in log or "not all services are ready" in log, log
        _, log = end(s, p, "health")
        assert "no name\n" in log, log
        engine.assert_clean()


def artifacts_caches_and_files_of_others(build):
    with stack(build) as s:
        text = """
stages: [a, b]
make:
  stage: a
  image: {name: 'busybox:1', docker: {user: user}}
  script: ['mkdir out; echo made > out/file; chmod 700 out', 'mkdir -p kept; date >> kept/runs']
  artifacts: {paths: [out], reports: {dotenv: env}}
  before_script: ['echo VERSION=7 > env']
  cache: {key: k, paths: [kept]}
job:
  stage: b
  image: bash:1
  script: ['cat out/file; echo "version $VERSION"', 'mkdir -p deep/er && touch deep/er/x && chmod 000 deep']
  cache: {key: k, paths: [kept], policy: pull}
  after_script: ['cat kept/runs']
"""
        for _ in range(2):
            _, log = end(s, start(s, text))
            assert "\nmade\nversion 7\n" in log, log
        engine.assert_clean()


def a_canceled_job_gets_its_grace_and_is_gone(build):
    with stack(build, "--cancel-grace-ms", "8000") as s:
        p = start(s, """
job:
  image: bash:1
  script: ['trap "echo trapped; exit 9" TERM', 'echo ready', 'while true; do sleep 0.1; done']
  after_script: ['echo "after $CI_JOB_STATUS"']
hang:
  image: busybox:1
  timeout: 4s
  script: ['trap "" TERM', 'echo ready', 'while true; do sleep 0.1; done']
""")
        wait_for("it runs", lambda: b"\nready" in s.log(s.job(p, "job")["id"]), 30)
        s.post(f"/jobs/{s.job(p, 'job')['id']}/cancel")
        _, log = end(s, p, status="canceled")
        assert log.count("Ending script: the job was canceled") == 1, log
        assert "trapped\n" in log and "after canceled\n" in log, log
        job, log = end(s, p, "hang", "failed")
        assert reason(job) == "job_timeout" and "its time is up" in log, log
        engine.assert_clean()


def a_killed_worker_takes_its_containers_over(build):
    with stack(build) as s:
        p = start(s, """
job:
  image: bash:1
  script: ['for i in {1..60}; do echo "line $i"; sleep 0.1; done']
  after_script: ['echo after']
""")
        wait_for("it prints", lambda: b"line 5\n" in s.log(s.job(p, "job")["id"]), 30)
        s.workers[0].kill()
        time.sleep(1)
        s.workers[0].start()
        job, log = end(s, p)
        lines = [line for line in log.splitlines() if line.startswith("line ")]
        assert lines == [f"line {i}" for i in range(1, 61)], log
        assert job["attempt"] == 1 and "\nafter\n" in log, job
        engine.assert_clean()


def what_kills_a_container_is_no_failure_of_its_script(build):
    with stack(build, "--docker-memory", "64M", "--docker-cpu", "1500m", "--docker-pids", "100") as s:
        p = start(s, """
default: {image: 'busybox:1', retry: 0}
job: {script: ['sleep 1000']}
gone: {script: ['sleep 1000']}
shim: {script: ['sleep 1000'], on_worker_lost: fail}
memory: {script: ['x=$(tail -c 200000000 /dev/zero | tr "\\000" x)', 'echo "${#x}"']}
""")
        for name in ("job", "gone", "shim"):
            wait_for(f"{name} runs", lambda name=name: b"sleep 1000" in s.log(s.job(p, name)["id"]), 30)

        def container(name):
            mark = f"{s.job(p, name)['id']}-1-"
            return next(c for c in engine.containers() if c["Labels"]["davit.job"].startswith(mark))
        limits = engine.call("GET", f"/containers/{container('job')['Id']}/json")["HostConfig"]
        assert (limits["Memory"], limits["NanoCpus"], limits["PidsLimit"]) == (64000000, 1500000000, 100), limits
        assert not limits["Privileged"], limits
        engine.call("POST", f"/containers/{container('job')['Id']}/kill", raw=True)
        engine.call("DELETE", f"/containers/{container('gone')['Id']}?force=1", raw=True)
        mark = f"/{s.job(p, 'shim')['id']}-1-"
        os.kill(next(pid for pid, folder in s.lead_shims() if mark in folder), signal.SIGKILL)
        # To be removed it is killed first: either may be seen.
        for name, said in (("job", ["was killed"]), ("gone", ["is gone", "was killed"])):
            job, log = end(s, p, name, "failed")
            assert reason(job) == "system_failure" and any(t in detail(job) for t in said), job
            assert detail(job) in log and "ended with exit code" not in log, log
        assert reason(end(s, p, "shim", "failed")[0]) == "worker_lost"
        job, log = end(s, p, "memory", "failed")
        assert reason(job) == "system_failure" and "out of memory" in detail(job), (job, log)
        engine.assert_clean()


def a_killed_engine_is_no_failure_of_the_script(build):
    with stack(build) as s:
        p = start(s, "job: {image: 'busybox:1', retry: 0, script: ['echo ready', 'sleep 1000']}\n")
        wait_for("it runs", lambda: b"\nready" in s.log(s.job(p, "job")["id"]), 30)
        before = {c["Id"] for c in engine.containers()}
        engine.kill()
        job, log = end(s, p, status="failed")
        assert reason(job) == "system_failure" and "does not answer" in detail(job), job
        engine.start()
        assert before
        # What the job could not remove is removed when the worker starts, or some minutes later.
        s.workers[0].kill()
        s.workers[0].start()
        engine.assert_clean()


def leftovers_are_swept_by_their_label(build):
    with stack(build) as s:
        p = start(s, "job: {image: 'busybox:1', script: ['echo ready', 'sleep 1000']}\n")
        wait_for("it runs", lambda: b"\nready" in s.log(s.job(p, "job")["id"]), 30)
        mine = engine.containers()[0]
        worker = mine["Labels"]["davit.worker"]

        def leave(labels):
            body = {"Image": "busybox:1", "Cmd": ["sleep", "1000"], "Labels": labels,
                    "Volumes": {"/anonymous": {}}}
            ident = engine.call("POST", "/containers/create", body)["Id"]
            engine.call("POST", f"/containers/{ident}/start", raw=True)
            return ident
        stale = leave({"davit.worker": worker, "davit.job": "99999-1-1"})
        others = leave({"davit.worker": "0" * 32, "davit.job": "99999-1-1"})
        unlabelled = leave({})
        engine.call("POST", "/networks/create", {"Name": "davit-stale", "Labels": {
            "davit.worker": worker, "davit.job": "99999-1-1"}})
        s.workers[0].kill()
        s.workers[0].start()
        wait_for("the stale one is removed", lambda: stale not in {c["Id"] for c in engine.containers()}, 20)
        wait_for("its network, too", lambda: "davit-stale" not in {n["Name"] for n in engine.networks()}, 20)
        left = {c["Id"] for c in engine.containers()}
        assert {mine["Id"], others, unlabelled} <= left, left
        for ident in (others, unlabelled):
            engine.call("DELETE", f"/containers/{ident}?force=1&v=1", raw=True)
        s.post(f"/pipelines/{p}/cancel")
        end(s, p, status="canceled")
        engine.assert_clean()
        assert not engine.call("GET", "/volumes")["Volumes"]


def what_the_worker_does_not_allow_is_refused(build):
    with stack(build, "--docker-allow-image", "busybox:*", "--docker-allow-service", "web:*",
               "--docker-allow-pull", "never", "--docker-volume", "/etc/hostname:/given:ro",
               "--docker-volume", "named:/cache") as s:
        p = start(s, """
default: {retry: 0}
other: {image: 'bash:1', script: ['true']}
service: {image: 'busybox:1', services: ['busybox:1'], script: ['true']}
policy: {image: {name: 'busybox:1', pull_policy: always}, script: ['true']}
name: {image: 'busybox:1/../x', script: ['true']}
missing: {image: {name: 'busybox:none', pull_policy: never}, script: ['true']}
nobody: {image: {name: 'busybox:1', pull_policy: never, docker: {user: nobody-here}}, script: ['true']}
job:
  image: {name: 'busybox:1', pull_policy: [always, never]}
  script: ['cat /given; echo x > /cache/x', '(echo y > /given) 2>&1 || echo read-only']
""")
        for name, said in (("other", "not among those that this worker allows"),
                           ("service", "not among those"), ("policy", "none of the pull policies"),
                           ("name", "no name of an image"), ("nobody", "unable to find user")):
            job, log = end(s, p, name, "failed")
            assert reason(job) == "config_error" and said in log, (job, log)
        job, log = end(s, p, "missing", "failed")
        assert reason(job) == "image_pull_failure" and "pulls none" in log, (job, log)
        _, log = end(s, p)
        with open("/etc/hostname", encoding="utf-8") as f:
            assert f.read() in log and "\nread-only\n" in log, log
        engine.assert_clean()
        assert [v["Name"] for v in engine.call("GET", "/volumes")["Volumes"]] == ["named"]
        engine.call("DELETE", "/volumes/named", raw=True)


class Registry:
    """A registry with a password, in the Engine's own network."""
    USER, PASSWORD = "ci", "s3cret:with colon"

    def __init__(self):
        self.dir = os.path.join(engine.dir, "registry")
        os.makedirs(self.dir)
        self.name = f"127.0.0.1:{free_port()}"
        # The registry wants bcrypt, which the C library's crypt makes; Python's module for it is going.
        crypt = ctypes.CDLL("libcrypt.so.1").crypt
        crypt.restype = ctypes.c_char_p
        salt = "$2b$05$" + "".join(random.choices(string.ascii_letters + string.digits, k=21)) + "u"
        hashed = crypt(self.PASSWORD.encode(), salt.encode()).decode()
        assert hashed.startswith("$2b$"), hashed
        with open(self.dir + "/htpasswd", "w", encoding="ascii") as f:
            f.write(f"{self.USER}:{hashed}\n")
        with open(self.dir + "/config.yml", "w", encoding="ascii") as f:
            f.write(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.dir}/data}}}}\n"
                    f"http: {{addr: '{self.name}'}}\n"
                    f"auth: {{htpasswd: {{realm: test, path: {self.dir}/htpasswd}}}}\n")
        with open(self.dir + "/log", "wb") as log:
            self.process = subprocess.Popen(
                ["nsenter", "-t", str(engine.process.pid), "-n", "docker-registry", "serve",
                 self.dir + "/config.yml"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def push(self, image):
        """Under the name `image`:1, which is not here any more then."""
        full = f"{self.name}/{image}"
        engine.call("POST", f"/images/busybox:1/tag?repo={full}&tag=1", raw=True)
        auth = base64.urlsafe_b64encode(json.dumps(
            {"username": self.USER, "password": self.PASSWORD}).encode()).decode()

        def pushed():
            answer = engine.call("POST", f"/images/{full}/push?tag=1", raw=True, headers={"X-Registry-Auth": auth})
            return b'"error"' not in answer
        wait_for("the image is pushed", pushed, 20, 0.2)
        engine.call("DELETE", f"/images/{full}:1", raw=True)
        return full + ":1"

    def config(self, password=PASSWORD):
        auth = base64.b64encode(f"{self.USER}:{password}".encode()).decode()
        return json.dumps({"auths": {self.name: {"auth": auth}}})


@contextlib.contextmanager
def path_before(folder):
    before = os.environ["PATH"]
    os.environ["PATH"] = folder + ":" + before
    try:
        yield
    finally:
        os.environ["PATH"] = before


def a_registry_wants_a_password(build):
    if not shutil.which("docker-registry"):
        print("left out: there is no docker-registry")
        return
    with Registry() as registry:
        image = registry.push("team/tool")
        config = os.path.join(registry.dir, "config.json")
        with open(config, "w", encoding="ascii") as f:
            f.write('{"auths": {}}')
        text = f"""
default: {{retry: 0, image: {{name: '{image}', pull_policy: always}}}}
none: {{script: ['echo pulled']}}
wrong: {{script: ['echo pulled'], variables: {{DOCKER_AUTH_CONFIG: '{registry.config("wrong")}'}}}}
nowhere: {{image: '127.0.0.1:1/x', script: ['true']}}
job:
  needs: []
  image: {{name: '{image}', pull_policy: [never, if-not-present]}}
  variables: {{DOCKER_AUTH_CONFIG: '{registry.config()}'}}
  script: ['echo pulled']
"""
        helper = os.path.join(registry.dir, "docker-credential-davit-test")
        with open(helper, "w", encoding="ascii") as f:
            f.write(f"""#!/bin/sh
read -r server || true
[ "$1" = get ] || exit 2
if [ -e {registry.dir}/knows ] && [ "$server" = {registry.name} ]; then
    echo '{json.dumps({"ServerURL": registry.name, "Username": registry.USER, "Secret": registry.PASSWORD})}'
else
    echo credentials not found in native keychain
    exit 1
fi
""")
        os.chmod(helper, 0o755)
        with path_before(registry.dir), stack(build, "--docker-auth", config) as s:
            p = start(s, text)
            for name in ("none", "wrong", "nowhere"):
                job, log = end(s, p, name, "failed")
                assert reason(job) == "image_pull_failure" and "cannot pull" in log, (job, log)
            _, log = end(s, p)
            # In turn: it is not here yet, then it is.
            assert "pulls none" in log and "Trying again with pull policy `if-not-present`" in log, log
            assert "credentials from DOCKER_AUTH_CONFIG" in log and "\npulled\n" in log, log
            with open(config, "w", encoding="ascii") as f:
                f.write(registry.config())
            _, log = end(s, start(s, f"job: {{image: {{name: '{image}', pull_policy: always}}, script: ['true']}}\n"))
            assert "the worker's credentials" in log, log
            # By a program, which has nothing, has it, and is not there.
            pulls = f"job: {{retry: 0, image: {{name: '{image}', pull_policy: always}}, script: ['true']}}\n"
            for helpers, knows, status, said in (
                    ({"credHelpers": {registry.name: "davit-test"}}, False, "failed", "cannot pull"),
                    ({"credHelpers": {registry.name: "davit-test"}}, True, "success", "the worker's credentials"),
                    ({"credsStore": "davit-test"}, True, "success", "the worker's credentials"),
                    ({"credsStore": "not-there"}, True, "failed", "docker-credential-not-there, which the worker asks")):
                if knows:
                    open(os.path.join(registry.dir, "knows"), "w", encoding="ascii").close()
                with open(config, "w", encoding="ascii") as f:
                    json.dump(helpers, f)
                _, log = end(s, start(s, pulls), "job", status)
                assert said in log and registry.PASSWORD not in log, log


def a_worker_without_rights_gets_its_files_back(build):
    """The worker is nobody in particular, the containers root's."""
    if not shutil.which("setpriv"):
        print("left out: there is no setpriv")
        return
    os.chmod(engine.dir, 0o755)
    os.chmod(engine.socket, 0o666)
    with Stack(build, workers=0) as s:
        home = os.path.join(s.dir, "worker")
        os.mkdir(home)
        os.chown(home, 4321, 4321)
        os.chmod(s.dir, 0o755)
        token = os.path.join(home, "token")
        shutil.copy(os.path.join(s.data, "worker.token"), token)
        os.chown(token, 4321, 4321)
        with open(home + "/log", "wb") as log:
            worker = subprocess.Popen(
                ["setpriv", "--reuid=4321", "--regid=4321", "--clear-groups", s.program("davit-worker"),
                 "--broker", f"tcp://127.0.0.1:{s.fleet_port}", "--token-file", token, "--state", home + "/state",
                 *OPTIONS, "--docker-socket", engine.socket],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for("the worker is online", lambda: s.online() == 1)
            text = """
job:
  image: busybox:1
  script:
    - 'id -u'
    - 'mkdir -p out/deep && echo x > out/deep/file && chown -R 0:0 out && chmod -R go= out'
    - 'mkdir /davit/run/own; mkdir -p "$(dirname $KEY)/deep/er"'
    - 'while [ ! -e go ]; do sleep 0.1; done'
  artifacts: {paths: [out]}
other: {needs: [job], image: 'busybox:1', script: ['cat out/deep/file']}
"""
            for _ in range(2):
                p = start(s, text, variables=[{"name": "KEY", "value": "in a file", "file": True}])
                wait_for("it waits", lambda p=p: b"-e go" in s.log(s.job(p, "job")["id"]))
                # As when an earlier try to give the files back was killed.
                container = next(c for c in engine.containers())
                engine.call("POST", f"/containers/create?name={container['Names'][0][1:]}-own",
                            {"Image": "busybox:1", "Cmd": ["true"], "Labels": container["Labels"]})
                for tree_dir in glob.glob(home + "/state/builds/*/*"):
                    with open(tree_dir + "/go", "wb"):
                        pass
                _, log = end(s, p)
                assert "\n0\n" in log, log
                end(s, p, "other")
            wait_for("no folder of a job is left", lambda: not os.listdir(home + "/state/jobs"))
            owners = {os.lstat(os.path.join(folder, name)).st_uid
                      for folder, _, names in os.walk(home + "/state") for name in [".", *names]}
            assert owners == {4321}, owners
            engine.assert_clean()
        finally:
            worker.kill()
            worker.wait()


IMAGES = {
    "busybox:1": (busybox_tree, []),
    "bash:1": (bash_tree, []),
    "web:1": (lambda: busybox_tree({"www/name": b"no name\n", "serve": (
        b"#!/bin/sh\nsleep 0.5\n[ -z \"$NAME\" ] || echo \"$NAME\" > /www/name\nexec httpd -f -p 80 -h /www\n")}),
        ["EXPOSE 80 9999", "CMD [\"/serve\"]"]),
    "health:1": (lambda: busybox_tree({"www/name": b"no name\n"}), [
        "CMD [\"sh\", \"-c\", \"sleep 1; exec httpd -f -p 80 -h /www\"]",
        "HEALTHCHECK --interval=1s --timeout=2s CMD [\"wget\", \"-qO-\", \"http://127.0.0.1/name\"]"]),
    "entry:1": (lambda: busybox_tree({"bin/entry": (
        b"#!/bin/sh\necho the entry point runs\nexport FROM_ENTRY=set\nexec \"$@\"\n")}),
        ["ENTRYPOINT [\"entry\"]"]),
    "nothing:1": (lambda: tree({"file": b"x"}), []),
}

if __name__ == "__main__":
    with Engine() as engine:
        for name, (make, changes) in IMAGES.items():
            engine.load(name, make(), *changes)
        engine.load("dir/late:2", IMAGES["web:1"][0](), "EXPOSE 80")
        engine.load("busybox:1", busybox_tree(), "ENV FROM_IMAGE=yes")
        main([lines_run_in_the_image, services_are_there_when_the_script_begins,
              artifacts_caches_and_files_of_others, a_canceled_job_gets_its_grace_and_is_gone,
              a_killed_worker_takes_its_containers_over,
              what_kills_a_container_is_no_failure_of_its_script,
              a_killed_engine_is_no_failure_of_the_script, leftovers_are_swept_by_their_label,
              what_the_worker_does_not_allow_is_refused, a_registry_wants_a_password,
              a_worker_without_rights_gets_its_files_back])
