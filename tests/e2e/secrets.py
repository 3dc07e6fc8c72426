"""Stored variables and secrets, from the command line to the job and its log, and nowhere else."""
import base64
import contextlib
import json
import os
import subprocess
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, HTTPServer

from stack import ApiError, Stack, main, wait_for

SECRET = 'tr0ub4dor "&3"/x+y'
PRINTS = r"""
hostile:
  script:
    - |
      echo "plain [$TOKEN]"
      for i in $(seq 1 ${#TOKEN}); do printf %s "${TOKEN:$((i-1)):1}"; sleep 0.02; done; echo .
      printf %s "$TOKEN" | base64
      printf 'user:%s' "$TOKEN" | base64 -w 0; echo
      printf 'u:%s@host/' "$TOKEN" | base64 -w 8
      python3 -c 'import os, urllib.parse as u, json; t=os.environ["TOKEN"]; print(u.quote(t), u.quote_plus(t), json.dumps([t]))'
      printf %s "$TOKEN" | od -An -v -tx1
      set -x; test -n "$TOKEN"
  after_script:
    - |
      echo "after [$TOKEN]"
"""


def davit(stack, *args, value=None, check=True, env=None):
    done = subprocess.run([stack.program("davit"), *args], input=value, capture_output=True, text=True, timeout=60,
                          env={**os.environ, "DAVIT_DATA": stack.data, **(env or {})}, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"davit {args}: {done.returncode} {done.stdout}{done.stderr}")
    return done


def forms(secret):
    raw = secret.encode()
    inner = [base64.b64encode(b"\0" * skip + raw)[(skip * 8 + 5) // 6:(skip + len(raw)) * 8 // 6] for skip in range(3)]
    return [raw, raw[:-1], *inner, urllib.parse.quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode(),
            raw.hex().encode()]


def everything_on_the_disk(stack, but=()):
    """What of the broker's folder holds a form of the secret."""
    found = []
    for folder, _, names in os.walk(stack.data):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as f:
                content = f.read()
            found += [path for form in forms(SECRET) if form in content and name not in but]
    return found


def no_form_of_a_secret_is_in_a_log_or_on_the_brokers_disk(build):
    with Stack(build) as stack:
        davit(stack, "variables", "set", "TOKEN", "--project", "e2e", "--masked", "yes", value=SECRET + "\n")
        p = stack.submit(PRINTS)
        assert stack.wait_pipeline(p["id"])["status"] == "success", stack.log(p["jobs"][0]["id"])
        log = stack.log(p["jobs"][0]["id"])
        assert log.count(b"[MASKED]") >= 10, log
        assert b"plain [[MASKED]]" in log and b"after [[MASKED]]" in log, log
        for form in forms(SECRET):
            assert form not in log, (form, log)
        assert stack.get("/variables/TOKEN?project=e2e")["value"] == SECRET
        metrics = stack.request("GET", "/metrics", raw=True)
        assert SECRET.encode() not in metrics
        stack.stop()
        assert everything_on_the_disk(stack) == []
        for child in [stack.broker, *stack.workers]:
            with open(child.log, "rb") as f:
                assert SECRET.encode() not in f.read()
        stack.fsck()


def scopes_levels_files_and_protection_reach_the_job(build):
    text = """
plain: {script: ['echo "$WHERE/$LEVEL/$ONLY_ALL/$NEVER/"']}
review: {environment: review/1, script: ['echo "$WHERE $(cat $CERT)"']}
given: {variables: {WHERE: from the file}, script: ['echo "$WHERE"']}
raw: {script: ['echo "$RAW" "$COOKED"']}
"""
    with Stack(build) as stack:
        def put(name, value, *args):
            davit(stack, "variables", "set", name, *args, value=value)
        put("WHERE", "anywhere", "--project", "g/sub/p")
        put("WHERE", "in review", "--project", "g/sub/p", "--environment", "review/*")
        put("LEVEL", "sub", "--group", "g/sub")
        put("LEVEL", "top", "--group", "g")
        put("ONLY_ALL", "all", "--instance")
        put("NEVER", "prod", "--project", "g/sub/p", "--environment", "production")
        put("CERT", "line 1\nline 2\n", "--project", "g/sub/p", "--file", "yes")
        put("RAW", "$LEVEL", "--project", "g/sub/p", "--raw", "yes")
        put("COOKED", "$LEVEL", "--project", "g/sub/p")
        put("SAFE", "protected!", "--project", "g/sub/p", "--protected", "yes")
        p = stack.submit(text + "safe: {script: ['echo \"[$SAFE]\"']}\n", project="g/sub/p")
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        logs = {j["name"]: stack.log(j["id"]) for j in p["jobs"]}
        assert b"\nanywhere/sub/all//\n" in logs["plain"], logs["plain"]
        assert b"in review line 1\nline 2\n" in logs["review"], logs
        assert b"\nanywhere\n" in logs["given"], "a stored variable beats the file's"
        assert b"\n$LEVEL sub\n" in logs["raw"], logs["raw"]
        assert b"\n[protected!]\n" in logs["safe"], logs["safe"]
        other = stack.submit("safe: {script: ['echo \"[$SAFE]\"']}\n", project="g/sub/p", ref="feature")
        assert stack.wait_pipeline(other["id"])["status"] == "success"
        assert b"\n[]\n" in stack.log(other["jobs"][0]["id"])
        given = stack.submit("a: {script: ['echo \"$WHERE\"']}\n", project="g/sub/p",
                             variables=[{"name": "WHERE", "value": "submitted"}])
        stack.wait_pipeline(given["id"])
        assert b"\nsubmitted\n" in stack.log(given["jobs"][0]["id"])


def rules_know_stored_variables_but_not_masked_values(build):
    text = """
a: {rules: [{if: '$COLOR == "green"'}], script: ['true']}
b: {rules: [{if: '$TOKEN'}], script: ['true'], environment: {name: "x/$COLOR"}}
c: {rules: [{if: '$TOKEN =~ /tr0ub/'}], script: ['true']}
"""
    with Stack(build, workers=0) as stack:
        davit(stack, "variables", "set", "COLOR", "--project", "e2e", value="green")
        davit(stack, "variables", "set", "TOKEN", "--project", "e2e", "--masked", "yes", value=SECRET)
        p = stack.submit(text)
        assert sorted(j["name"] for j in p["jobs"]) == ["a", "b"], p
        lint = stack.post("/lint", {"project": "e2e", "files": {".gitlab-ci.yml": text}, "explain": True})
        assert "green" in json.dumps(lint) and "tr0ub4dor" not in json.dumps(lint)


def files_of_variables_are_imported_and_exported(build):
    with Stack(build, workers=0) as stack:
        path = os.path.join(stack.dir, ".env.production")
        with open(path, "w", encoding="utf-8") as f:
            f.write("# comment\nA=1\nexport B='two words'\nC=\"x\\ny$\"\nD= plain # comment\nE='a\nb'\n")
        davit(stack, "variables", "import", path, "--project", "e2e", "--masked", "no")
        items = stack.get("/variables?project=e2e")["items"]
        assert [(v["name"], v["environment_scope"]) for v in items] == [(n, "production") for n in "ABCDE"], items
        out = davit(stack, "variables", "export", "--project", "e2e", "--environment", "production").stdout
        again = os.path.join(stack.dir, "again")
        with open(again, "w", encoding="utf-8") as f:
            f.write(out)
        davit(stack, "variables", "import", again, "--project", "other")
        for name, value in {"A": "1", "B": "two words", "C": "x\ny$", "D": "plain", "E": "a\nb"}.items():
            assert stack.get(f"/variables/{name}?project=other")["value"] == value, name
        with open(again, "w", encoding="utf-8") as f:
            f.write("A=1\nB B\n")
        bad = davit(stack, "variables", "import", again, "--project", "other", check=False)
        assert bad.returncode == 65 and f"{again}:2:" in bad.stderr, bad.stderr


def a_hidden_value_is_for_jobs_alone(build):
    with Stack(build) as stack:
        davit(stack, "variables", "set", "T", "--project", "e2e", "--hidden", "yes", value="only for jobs")
        got = davit(stack, "variables", "get", "T", "--project", "e2e", check=False)
        assert got.returncode == 77 and got.stdout == "", got
        shown = davit(stack, "variables", "set", "T", "--project", "e2e", "--hidden", "no", "--keep", check=False)
        assert shown.returncode == 73, shown
        p = stack.submit("a: {script: ['test \"$T\" = \"only for jobs\"']}")
        assert stack.wait_pipeline(p["id"])["status"] == "success"


def a_new_master_key_wraps_all_while_jobs_run(build):
    with Stack(build) as stack:
        for i in range(450):  # more than two batches
            stack.request("PUT", "/api/v1/variables?project=e2e",
                          {"variables": [{"name": f"V{i}", "value": f"value {i}"}]}) if i >= 440 else None
        stack.request("PUT", "/api/v1/variables?project=e2e",
                      {"variables": [{"name": f"V{i}", "value": f"value {i}"} for i in range(440)]})
        before = stack.get("/master-keys")["items"]
        assert before == [{"id": before[0]["id"], "current": True, "variables": 450}], before
        answer = stack.post("/master-keys/rotate")
        assert [k["variables"] for k in answer["items"]] == [450, 0] and answer["unknown"] == 0, answer
        assert answer["items"][1]["id"] == before[0]["id"]
        p = stack.submit("a: {script: ['test \"$V0 $V449\" = \"value 0 value 449\"']}")
        assert stack.wait_pipeline(p["id"])["status"] == "success"
        stack.broker.kill()
        stack.broker.start()
        stack.wait_broker()
        assert stack.get("/variables/V17?project=e2e")["value"] == "value 17"
        stack.stop()
        stack.fsck()


def a_rotation_survives_kills(build):
    with Stack(build, workers=0) as stack:
        stack.request("PUT", "/api/v1/variables?project=e2e",
                      {"variables": [{"name": f"V{i}", "value": f"value {i}"} for i in range(900)]})
        for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
            def rotate():
                with contextlib.suppress(Exception):
                    stack.post("/master-keys/rotate")
            t = threading.Thread(target=rotate)
            t.start()
            time.sleep(delay)
            stack.broker.kill()
            t.join()
            stack.broker.start()
            stack.wait_broker()
            keys = stack.get("/master-keys")
            assert keys["unknown"] == 0 and sum(k["variables"] for k in keys["items"]) == 900, keys
            for i in (0, 450, 899):
                assert stack.get(f"/variables/V{i}?project=e2e")["value"] == f"value {i}"
        wait_for("the next start has finished the work",
                 lambda: stack.get("/master-keys")["items"][0]["variables"] == 900)


def a_lost_master_key_fails_jobs_by_name(build):
    with Stack(build) as stack:
        davit(stack, "variables", "set", "T", "--project", "e2e", value="a value")
        stack.broker.stop()
        os.rename(os.path.join(stack.data, "master.key"), os.path.join(stack.data, "away"))
        stack.broker.start()
        stack.wait_broker()
        try:
            stack.submit("a: {script: ['true']}")
            raise AssertionError("was taken")
        except ApiError as e:
            assert "master key is not known" in e.problem["detail"], e
        assert stack.get("/master-keys")["unknown"] == 1
        stack.broker.stop()
        os.rename(os.path.join(stack.data, "away"), os.path.join(stack.data, "master.key"))
        stack.broker.start()
        stack.wait_broker()
        assert stack.get("/variables/T?project=e2e")["value"] == "a value"


class TransitStub(BaseHTTPRequestHandler):
    """NOT a Vault: what davitd uses of the transit engine's API, with a cipher that is none."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers.get("Authorization") == "Bearer stub-token"
        _, _, mount, operation, key = self.path.split("/")
        data = {"errors": ["permission denied"]}
        if good and (mount, operation, key) == ("transit", "encrypt", "davit"):
            data = {"data": {"ciphertext": "vault:v1:" + body["plaintext"][::-1]}}
        elif good and (mount, operation, key) == ("transit", "decrypt", "davit"):
            data = {"data": {"plaintext": body["ciphertext"].removeprefix("vault:v1:")[::-1]}}
        text = json.dumps(data).encode()
        self.send_response(200 if "data" in data else 403)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def the_master_key_is_sealed_by_transit(build):
    server = HTTPServer(("127.0.0.1", 0), TransitStub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["VAULT_ADDR"] = f"http://127.0.0.1:{server.server_port}/"
    os.environ["VAULT_TOKEN"] = "stub-token"
    try:
        with Stack(build, workers=0, davitd=["--master-key", "transit:davit"]) as stack:
            davit(stack, "variables", "set", "T", "--project", "e2e", value="a value")
            stack.post("/master-keys/rotate")
            with open(os.path.join(stack.data, "master.key.sealed"), encoding="ascii") as f:
                lines = [line for line in f.read().splitlines() if not line.startswith("#")]
            assert len(lines) == 2 and all(line.startswith("vault:v1:") for line in lines), lines
            stack.broker.kill()
            stack.broker.start()
            stack.wait_broker()
            assert stack.get("/variables/T?project=e2e")["value"] == "a value"
            stack.broker.stop()
            os.environ["VAULT_TOKEN"] = "wrong"
            stack.broker.start()
            stack.broker.process.wait(20)
            with open(stack.broker.log, encoding="utf-8") as f:
                assert "permission denied" in f.read()
    finally:
        del os.environ["VAULT_ADDR"], os.environ["VAULT_TOKEN"]
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main([no_form_of_a_secret_is_in_a_log_or_on_the_brokers_disk, scopes_levels_files_and_protection_reach_the_job,
          rules_know_stored_variables_but_not_masked_values, files_of_variables_are_imported_and_exported,
          a_hidden_value_is_for_jobs_alone, a_new_master_key_wraps_all_while_jobs_run, a_rotation_survives_kills,
          a_lost_master_key_fails_jobs_by_name, the_master_key_is_sealed_by_transit])
