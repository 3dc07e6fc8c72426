"""The fleet over TLS: joining, being refused, renewal, revocation, with real processes."""
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

from stack import ApiError, Child, Stack, free_port, main, wait_for


class TlsStack(Stack):
    """A broker whose two listeners speak TLS, and workers that join it."""

    def __init__(self, build, davitd=(), **kw):
        super().__init__(build, workers=0, davitd=davitd, **kw)
        self.fleet_url = f"tls://127.0.0.1:{self.fleet_port}"
        self.url = f"https://127.0.0.1:{self.http_port}"
        argv = self.broker.argv
        argv[argv.index("--listen") + 1] = self.fleet_url
        argv[argv.index("--http") + 1] = self.url
        self.ca = os.path.join(self.data, "tls", "ca.pem")

    def wait_broker(self):
        wait_for("the authority is there", lambda: os.path.exists(self.ca))
        self.context = ssl.create_default_context(cafile=self.ca)
        super().wait_broker()

    def run(self, *argv, **kw):
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False,
                              stdin=subprocess.DEVNULL, **kw)

    def davit(self, *argv):
        return self.run(self.program("davit"), *argv, "--data", self.data)

    def new_token(self, *argv):
        done = self.davit("token", "create", "--worker", *argv)
        assert done.returncode == 0, done
        return done.stdout.strip()

    def state(self, name):
        return os.path.join(self.dir, "state-" + name)

    def join(self, name, token, url=None):
        return self.run(self.program("davit-worker"), "join", url or self.url, "--token", token,
                        "--state", self.state(name), "--name", name)

    def worker(self, name, *argv):
        child = Child(name, [self.program("davit-worker"), "--state", self.state(name), *argv],
                      os.path.join(self.dir, name + ".log"))
        self.workers.append(child)
        child.start()
        return child

    def start_joined(self, name, *argv, token_options=()):
        done = self.join(name, self.new_token(*token_options))
        assert done.returncode == 0, done
        child = self.worker(name, *argv)
        wait_for(f"{name} is online", lambda: self.is_online(name))
        return child

    def is_online(self, name):
        return any(w["online"] for w in self.get("/workers")["items"] if w["name"] == name)

    def row(self, name):
        return next(w for w in self.get("/workers")["items"] if w["name"] == name)

    def log_of(self, child):
        with open(child.log, encoding="utf-8", errors="replace") as f:
            return f.read()


def refused(done, *words):
    assert done.returncode != 0, done
    for word in words:
        assert word in done.stderr, (word, done)


def serial_at(port, ca):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        context = ssl.create_default_context(cafile=ca)
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as tls:
            assert tls.version() == "TLSv1.3", tls.version()
            return tls.getpeercert()["serialNumber"]


def joined_workers_do_all_that_jobs_need(build):
    with TlsStack(build) as stack:
        stack.start_joined("a", "--slots", "2", token_options=("--pool", "linux", "--tags", "x,y"))
        assert stack.row("a")["pool"] == "linux" and stack.row("a")["tags"] == ["x", "y"]
        for name in ("identity.pem", "ca.pem", "joined"):
            mode = os.stat(os.path.join(stack.state("a"), "tls", name)).st_mode
            assert mode & 0o777 == 0o600, (name, oct(mode))
        p = stack.submit("""
one:
  stage: build
  tags: [x]
  script: ['echo hello > out.txt', 'seq 20000']
  artifacts: {paths: [out.txt]}
  cache: {key: k, paths: [out.txt]}
two:
  stage: test
  tags: [y]
  script: ['grep hello out.txt']
  cache: {key: k, paths: [out.txt]}
""")
        done = stack.wait_pipeline(p["id"])
        assert done["status"] == "success", done
        log = stack.log(stack.job(p["id"], "one")["id"])
        assert b"\n20000\n" in log
        stack.stop()
        stack.fsck()


def tokens_that_are_no_good_are_refused(build):
    with TlsStack(build) as stack:
        token = stack.new_token("--pool", "p")
        done = stack.join("a", token)
        assert done.returncode == 0, done
        refused(stack.join("b", token), "used already, by worker a")
        short = stack.new_token("--ttl", "1s")
        time.sleep(1.2)
        refused(stack.join("b", short), "expired")
        refused(stack.join("b", "dvj_" + "A" * 43 + "_" + token[-64:]), "401")
        refused(stack.join("b", "nonsense"), "no join token")
        refused(stack.join("b", open(os.path.join(stack.data, "admin.token")).read().strip()),
                "no join token")
        refused(stack.join("a", stack.new_token(), url=f"http://192.0.2.1:{stack.http_port}"),
                "https:// alone")
        shutil.rmtree(stack.state("b"))
        os.rename(stack.state("a"), stack.state("b"))  # another machine of that name
        refused(stack.join("a", stack.new_token()), "another worker is called a")
        try:
            stack.request("POST", "/api/v1/join-tokens", {"ttl": "31d"})
            raise AssertionError("accepted")
        except ApiError as e:
            assert e.status == 422, e


def a_token_that_was_stolen_opens_nothing_else(build):
    with TlsStack(build) as stack:
        token = stack.new_token()
        for path in ("/api/v1/workers", "/api/v1/version", "/metrics"):
            try:
                stack.request("GET", path, headers={"Authorization": "Bearer " + token})
                raise AssertionError(path)
            except ApiError as e:
                assert e.status in (401, 403), e
        # Whoever came first has it; the owner is told who that was, and revokes it.
        assert stack.join("thief", token).returncode == 0
        refused(stack.join("a", token), "used already, by worker thief")
        stack.worker("thief")
        wait_for("the thief is online", lambda: stack.is_online("thief"))
        done = stack.davit("workers", "revoke", "thief")
        assert done.returncode == 0, done
        wait_for("the thief is out", lambda: not stack.is_online("thief"))
        wait_for("the thief's process ends", lambda: not stack.workers[0].alive())
        assert "was revoked" in stack.log_of(stack.workers[0])


def the_answer_may_be_lost(build):
    """The same machine asks again with the same token: a broker killed in between has it written."""
    with TlsStack(build) as stack:
        token = stack.new_token()
        assert stack.join("a", token).returncode == 0
        key = os.path.join(stack.state("a"), "tls")
        # As if the answer had not come: the key of the try is there, and no certificate.
        pem = open(os.path.join(key, "identity.pem")).read()
        with open(os.path.join(key, "joining.key"), "w") as f:
            f.write(pem[:pem.index("-----BEGIN CERTIFICATE")])
        os.remove(os.path.join(key, "identity.pem"))
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        refused(stack.join("b", token), "used already, by worker a")
        assert stack.join("a", token).returncode == 0
        stack.worker("a")
        wait_for("a is online", lambda: stack.is_online("a"))


def a_broker_of_another_authority_is_seen(build):
    with TlsStack(build) as stack, TlsStack(build) as other:
        token = stack.new_token()
        refused(other.join("a", token, url=other.url), "another authority", "not shown")
        assert stack.join("a", token).returncode == 0  # it was not used up
        # Afterwards, too: the worker does not speak to one that answers at the same place.
        joined = os.path.join(stack.state("a"), "tls", "joined")
        text = open(joined).read().replace(str(stack.fleet_port), str(other.fleet_port))
        with open(joined, "w") as f:
            f.write(text)
        child = stack.worker("a")
        wait_for("it says why", lambda: "unable to get local issuer certificate" in stack.log_of(child))
        assert child.alive() and other.get("/workers")["items"] == []


def a_server_of_another_name_is_refused(build):
    with TlsStack(build) as stack:
        assert stack.join("a", stack.new_token()).returncode == 0
        child = stack.worker("a", "--broker", f"tls://127.0.0.2:{stack.fleet_port}")
        wait_for("nothing listens there", lambda: "refused" in stack.log_of(child).lower())
        child.kill()
    with TlsStack(build) as stack:
        stack.broker.stop()
        argv = stack.broker.argv
        argv[argv.index("--listen") + 1] = f"tls://0.0.0.0:{stack.fleet_port}"
        stack.broker.start()
        stack.wait_broker()
        assert stack.join("a", stack.new_token()).returncode == 0
        child = stack.worker("a", "--broker", f"tls://127.0.0.2:{stack.fleet_port}")
        wait_for("it says why", lambda: "IP address mismatch" in stack.log_of(child))
        child.kill()
        stack.broker.stop()
        argv += ["--name", "127.0.0.2"]  # a new certificate, under the same authority
        stack.broker.start()
        stack.wait_broker()
        child.start()
        wait_for("now it is", lambda: stack.is_online("a"))


def older_versions_and_plain_text_are_refused(build):
    with TlsStack(build) as stack:
        stack.start_joined("a")
        for port in (stack.fleet_port, stack.http_port):
            serial_at(port, stack.ca)
            for version in ("-tls1_2", "-tls1_1"):
                done = stack.run("openssl", "s_client", version, "-connect", f"127.0.0.1:{port}")
                assert done.returncode != 0 and "New, (NONE)" in done.stdout, done
            done = stack.run("openssl", "s_client", "-tls1_3", "-CAfile", stack.ca, "-verify_return_error",
                             "-connect", f"127.0.0.1:{port}")
            assert "TLSv1.3" in done.stdout, done
        for garbage in (b"\0SP\0\0\x30\0\0" * 100, os.urandom(4000), b"\x16\x03\x01\xff\xff" + b"A" * 70000, b""):
            with socket.create_connection(("127.0.0.1", stack.fleet_port)) as s:
                s.settimeout(20)
                with contextlib.suppress(OSError):
                    s.sendall(garbage)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(4096):
                        pass
        assert stack.is_online("a")


def a_worker_without_a_certificate_is_told_what_to_do(build):
    with TlsStack(build) as stack:
        plain = Child("plain", [stack.program("davit-worker"), "--state", stack.state("p"), "--broker",
                                stack.fleet_url, "--token-file", os.path.join(stack.data, "worker.token")],
                      os.path.join(stack.dir, "plain.log"))
        stack.workers.append(plain)
        plain.start()
        wait_for("it ends", lambda: not plain.alive())
        assert "davit-worker join" in stack.log_of(plain)


def a_certificate_makes_nobody_else(build):
    with TlsStack(build) as stack:
        a = stack.start_joined("a", token_options=("--pool", "dev", "--tags", "x"))
        done = stack.join("b", stack.new_token("--pool", "prod"))
        assert done.returncode == 0, done
        a.stop()
        # The files of a, but it says that it is b, with b's identity.
        shutil.copy(os.path.join(stack.state("b"), "worker.uid"), os.path.join(stack.state("a"), "worker.uid"))
        joined = os.path.join(stack.state("a"), "tls", "joined")
        text = open(joined).read()
        with open(joined, "w") as f:
            f.write(text.replace("name=a", "name=b"))
        liar = stack.worker("a")
        wait_for("it is refused", lambda: not liar.alive())
        assert "the certificate is of worker a, not of b" in stack.log_of(liar)
        with open(joined, "w") as f:
            f.write(text)
        liar.start()  # its own name, but the other's identity
        wait_for("it is refused again", lambda: not liar.alive())
        for option, value, word in (("--pool", "prod", "for pool"), ("--tags", "root", "may not offer")):
            done = stack.join("c" + value, stack.new_token("--pool", "dev", "--tags", "x"))
            assert done.returncode == 0, done
            child = stack.worker("c" + value, option, value)
            wait_for("it is refused", lambda: not child.alive())
            assert word in stack.log_of(child), stack.log_of(child)
        assert not stack.is_online("b")


def revoking_ends_a_session_at_once(build):
    with TlsStack(build, lease_ms=60000) as stack:
        bad = stack.start_joined("bad", token_options=("--tags", "t"))
        p = stack.submit("job:\n  tags: [t]\n  script: ['test -f /tmp/none || sleep 1', 'sleep 4', 'echo done']\n")
        stack.wait_job(p["id"], "job", "running")
        stack.start_joined("good", token_options=("--tags", "t"))
        start = time.monotonic()
        done = stack.davit("workers", "revoke", "bad")
        assert done.returncode == 0, done
        job = wait_for("the job is another's",
                       lambda: (lambda j: j if j["worker"] == "good" else None)(
                           stack.get(f"/jobs/{stack.job(p['id'], 'job')['id']}")))
        took = time.monotonic() - start
        assert took < 5, took  # the lease is a minute
        assert job["attempt"] == 2, job
        wait_for("it is out", lambda: not stack.is_online("bad"))
        wait_for("its process ends", lambda: not bad.alive())
        assert "was revoked" in stack.log_of(bad)
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        bad.start()  # nothing is forgotten
        wait_for("it is refused again", lambda: not bad.alive())
        assert stack.row("bad")["revoked"] and not stack.row("bad")["online"]
        refused(stack.davit("workers", "revoke", "bad"), "revoked already")
        done = stack.join("bad", stack.new_token("--tags", "t"))  # until it is let in anew
        assert done.returncode == 0, done
        bad.start()
        wait_for("it is back", lambda: stack.is_online("bad"))
        stack.stop()
        stack.fsck()


def a_job_goes_on_while_the_broker_restarts(build):
    with TlsStack(build) as stack:
        stack.start_joined("a")
        p = stack.submit("job:\n  script: ['for i in $(seq 8); do echo $i; sleep 0.5; done']\n")
        stack.wait_job(p["id"], "job", "running")
        for _ in range(2):
            stack.broker.kill()
            stack.broker.start()
            stack.wait_broker()
            wait_for("it is back", lambda: stack.is_online("a"))
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        assert stack.job(p["id"], "job")["attempt"] == 1


def certificates_are_renewed_in_sessions_that_stay(build):
    with TlsStack(build, davitd=("--worker-certificates", "15s", "--server-certificate", "20s")) as stack:
        a = stack.start_joined("a")
        pem = os.path.join(stack.state("a"), "tls", "identity.pem")
        digests = {hashlib.sha256(open(pem, "rb").read()).hexdigest()}
        first = serial_at(stack.fleet_port, stack.ca), serial_at(stack.http_port, stack.ca)
        p = stack.submit("job:\n  script: ['sleep 34']\n")

        def renewed(n):
            digests.add(hashlib.sha256(open(pem, "rb").read()).hexdigest())
            return len(digests) > n
        wait_for("the worker renews twice", lambda: renewed(2), 40)
        wait_for("the broker renews", lambda: first[0] != serial_at(stack.fleet_port, stack.ca) and
                 first[1] != serial_at(stack.http_port, stack.ca), 40)
        assert stack.log_of(a).count("session 1 as worker") == 1, stack.log_of(a)
        assert "session 2 as worker" not in stack.log_of(a)
        assert stack.wait_pipeline(p["id"], 60)["status"] == "success"
        a.kill()
        a.start()  # shows the newest one
        wait_for("it is back", lambda: stack.is_online("a"))
        a.kill(signal.SIGSTOP)  # sleeps through its time
        time.sleep(16)
        a.kill(signal.SIGCONT)
        wait_for("it may not go on", lambda: not a.alive())
        a.start()
        wait_for("it says why", lambda: not a.alive())
        assert "has expired" in stack.log_of(a)


def make_chain(stack, folder, days=30, rsa=False):
    """A certificate of somebody else's authority: (root, chain, key)."""
    where = os.path.join(stack.dir, folder)
    os.mkdir(where)
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")

    def openssl(*argv):
        done = stack.run("openssl", *argv, cwd=where)
        assert done.returncode == 0, done
    openssl("req", "-x509", *ec, "-nodes", "-keyout", "root.key", "-out", "root.pem",
            "-days", "30", "-subj", "/CN=Company root")
    openssl("req", *ec, "-nodes", "-keyout", "middle.key", "-out", "middle.csr",
            "-subj", "/CN=Company servers")
    with open(os.path.join(where, "ca.ext"), "w") as f:
        f.write("basicConstraints=critical,CA:TRUE\n")
    openssl("x509", "-req", "-in", "middle.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
            "-days", "30", "-extfile", "ca.ext", "-out", "middle.pem")
    openssl("req", *(("-newkey", "rsa:2048") if rsa else ec), "-nodes", "-keyout", "key.pem", "-out", "own.csr", "-subj", "/CN=broker")
    with open(os.path.join(where, "own.ext"), "w") as f:
        f.write("subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
    openssl("x509", "-req", "-in", "own.csr", "-CA", "middle.pem", "-CAkey", "middle.key", "-CAcreateserial",
            "-days", str(days), "-extfile", "own.ext", "-out", "own.pem")
    chain = os.path.join(where, "chain.pem")
    with open(chain, "w") as f:
        for part in ("own.pem", "middle.pem"):
            f.write(open(os.path.join(where, part)).read())
    key = os.path.join(where, "key.pem")
    os.chmod(key, 0o640)
    return os.path.join(where, "root.pem"), chain, key


def the_api_shows_a_certificate_of_others(build):
    with TlsStack(build) as stack:
        a = stack.start_joined("a")  # before there is another one
        root, chain, key = make_chain(stack, "first", rsa=True)
        root2, chain2, key2 = make_chain(stack, "second")
        config = os.path.join(stack.dir, "davitd.yml")

        def configure(text):
            with open(config, "w") as f:
                f.write(f"http: {stack.url}\n" + text)

        def reload():
            return stack.davit("reload")
        configure("log_level: info\n")
        stack.broker.stop()
        stack.broker.argv += ["--config", config]
        stack.broker.start()
        stack.wait_broker()
        own = serial_at(stack.http_port, stack.ca)
        wait_for("a is back", lambda: stack.is_online("a"))
        p = stack.submit("slow:\n  script: ['echo x > x', 'sleep 2']\n  artifacts: {paths: [x]}\n"
                         "next:\n  needs: [slow]\n  script: ['test -f x']\n")
        stack.wait_job(p["id"], "slow", "running")
        with socket.create_connection(("127.0.0.1", stack.http_port)) as raw, \
                stack.context.wrap_socket(raw, server_hostname="127.0.0.1") as kept:
            configure(f"tls_cert: {chain}\ntls_key: {key}\n")
            done = reload()
            assert done.returncode == 0 and "certificate of the API" in done.stdout, done
            first = serial_at(stack.http_port, root)
            assert first != own
            kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")  # nobody's connection was dropped
            assert b" 200 " in kept.recv(200)
        done = stack.davit("workers")  # by the data folder, without a word about authorities
        assert done.returncode == 0 and "a" in done.stdout, done
        token = os.path.join(stack.data, "user.token")
        for ca, good in ((root, True), (stack.ca, False), (root2, False)):
            done = stack.run(stack.program("davit"), "status", "--url", stack.url, "--ca-file", ca,
                             "--token-file", token)
            assert (done.returncode == 0) == good, (ca, done)
        stack.context = ssl.create_default_context(cafile=root)
        # Workers go on with the broker's own authority: those that are here, and new ones.
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        stack.start_joined("b")
        a.kill()
        p = stack.submit("job:\n  script: ['echo x > x']\n  artifacts: {paths: [x]}\n")
        assert stack.wait_pipeline(p["id"])["status"] == "success"

        # What is wrong is told with its place, and the old one stays.
        open_key = os.path.join(stack.dir, "open.pem")
        shutil.copy(key2, open_key)
        os.chmod(open_key, 0o644)
        late = make_chain(stack, "late", days=-1)
        for cert, its_key, words in (
                (chain2, key, ("tls-key: " + key, "not that of the certificate")),
                (chain2, open_key, ("tls-key: " + open_key, "everybody", "chmod o=")),
                (late[1], late[2], ("tls-cert: " + late[1], "a certificate ended 20")),
                (chain2, "/none", ("tls-key: /none", "cannot read it")),
                (token, key, ("tls-cert: " + token, "no certificate in it"))):
            configure(f"tls_cert: {cert}\ntls_key: {its_key}\n")
            for done in (reload(), stack.run(stack.program("davitd"), "--check-config", config)):
                refused(done, *words)
            assert serial_at(stack.http_port, root) == first
        configure(f"tls_cert: {chain}\n")
        refused(stack.run(stack.program("davitd"), "--check-config", config), "needs tls-key")
        refused(stack.run(stack.program("davitd"), "--data", os.path.join(stack.dir, "plain"), "--http", "127.0.0.1:0",
                          "--tls-cert", chain, "--tls-key", key), "http needs https://")

        configure(f"tls_cert: {chain}\ntls_key: {key}\n")
        for old, new in ((chain, chain2), (key, key2)):  # renewed in place
            shutil.copy(new, old)
        stack.broker.kill(signal.SIGHUP)
        wait_for("the new one is shown", lambda: trusted_by(stack.http_port, root2))
        configure("log_level: info\n")
        stack.context = ssl.create_default_context(cafile=stack.ca)
        assert reload().returncode == 0
        assert serial_at(stack.http_port, stack.ca) == own


def trusted_by(port, ca):
    try:
        return serial_at(port, ca)
    except ssl.SSLError:
        return None


def programs_enqueue_over_tls(build):
    with TlsStack(build) as stack, TlsStack(build) as other:
        stack.start_joined("a")
        token = os.path.join(stack.data, "user.token")
        program = os.path.join(stack.build, "client", "client-example")

        def example(ca, url=stack.fleet_url):
            env = dict(os.environ)
            if ca:
                env["DAVIT_CA_FILE"] = ca
            return stack.run(program, url, token, "sh", "-c", "seq 100000", env=env)
        done = example(stack.ca)
        assert done.returncode == 0 and "success" in done.stdout, done
        for ca, word in ((other.ca, "certificate"), (token, "no certificate"), (None, "ca_file")):
            done = example(ca)
            assert done.returncode != 0 and word in done.stderr, done


def beyond_loopback_without_tls_has_to_be_said(build):
    with TlsStack(build) as stack:
        data = os.path.join(stack.dir, "other")
        for option, value in (("--listen", f"tcp://0.0.0.0:{free_port()}"), ("--http", f"0.0.0.0:{free_port()}")):
            argv = [stack.program("davitd"), "--data", data, "--listen", "tcp://127.0.0.1:0",
                    "--http", "127.0.0.1:0"]
            argv[argv.index(option) + 1] = value
            done = stack.run(*argv)
            assert done.returncode == 64 and "--no-tls-beyond-loopback" in done.stderr, done
        open_one = Child("open", argv + ["--no-tls-beyond-loopback"], os.path.join(stack.dir, "open.log"))
        stack.workers.append(open_one)
        open_one.start()
        wait_for("it warns", lambda: "WITHOUT TLS" in stack.log_of(open_one))
        open_one.stop()


if __name__ == "__main__":
    main([
        joined_workers_do_all_that_jobs_need,
        tokens_that_are_no_good_are_refused,
        a_token_that_was_stolen_opens_nothing_else,
        the_answer_may_be_lost,
        a_broker_of_another_authority_is_seen,
        a_server_of_another_name_is_refused,
        older_versions_and_plain_text_are_refused,
        a_worker_without_a_certificate_is_told_what_to_do,
        a_certificate_makes_nobody_else,
        revoking_ends_a_session_at_once,
        a_job_goes_on_while_the_broker_restarts,
        certificates_are_renewed_in_sessions_that_stay,
        the_api_shows_a_certificate_of_others,
        programs_enqueue_over_tls,
        beyond_loopback_without_tls_has_to_be_said,
    ])
