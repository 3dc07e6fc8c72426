"""Included files from everywhere: a project and a component in a repository on this machine, a URL of a server on
loopback, a template, with inputs; on the command line and fetched by the broker."""
import contextlib
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading

from stack import ApiError, Stack, main

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEMPLATES = os.path.join(ROOT, "deploy", "templates")

LIBRARY = {
    "ci/greet.yml": """
spec:
  inputs:
    name:
    times: {type: number, default: 1}
---
include: {local: ci/base.yml}
greet $[[ inputs.name ]]:
  extends: .base
  parallel: $[[ inputs.times ]]
  script: ['echo "hello $[[ inputs.name ]] from $FROM"']
""",
    "ci/base.yml": ".base: {variables: {FROM: library}}\n",
    "templates/check/template.yml": """
spec:
  component: [name, version, sha]
  inputs: {words: {type: array, default: [none]}}
---
component:
  script:
    - echo "$[[ component.name ]] $[[ component.version ]] $[[ component.sha ]]"
    - echo $[[ inputs.words ]]
""",
}

PIPELINE = """
spec: {inputs: {who: {default: nobody}}}
---
include:
  - {project: group/library, ref: main, file: ci/greet.yml, inputs: {name: "$[[ inputs.who ]]", times: 2}}
  - {remote: "URL/far.yml"}
  - {component: $CI_SERVER_FQDN/group/library/check@~latest, inputs: {words: [a, b]}}
  - {template: Mine.gitlab-ci.yml}
"""


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        found = self.path == "/real.yml"
        if self.path == "/far.yml":
            self.send_response(302)
            self.send_header("Location", "/real.yml")
        else:
            self.send_response(200 if found else 404)
        body = b"far: {script: [echo far away]}\n" if found else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def web():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def git(folder, *args):
    subprocess.run(["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@t", *args], check=True)


def write(folder, files):
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)


@contextlib.contextmanager
def world(url):
    """A folder with a library's repository, templates, a cache, and the tree of a pipeline."""
    folder = tempfile.mkdtemp(prefix="davit-includes-")
    try:
        write(folder, {"library/" + name: text for name, text in LIBRARY.items()})
        write(folder, {"templates/Mine.gitlab-ci.yml": "mine: {script: [echo from a template]}\n",
                       "tree/.gitlab-ci.yml": PIPELINE.replace("URL", url)})
        for name in ("library", "tree"):
            path = os.path.join(folder, name)
            git(path, "init", "-q", "-b", "main")
            git(path, "add", "-A")
            git(path, "commit", "-qm", "first")
        git(os.path.join(folder, "library"), "tag", "1.4.2")
        yield folder
    finally:
        shutil.rmtree(folder)


def davit(build, folder, *args):
    return subprocess.run(
        [os.path.join(os.path.abspath(build), "davit"), *args], cwd=os.path.join(folder, "tree"),
        capture_output=True, text=True, timeout=90, check=False,
        env={**os.environ, "XDG_CACHE_HOME": os.path.join(folder, "cache"),
             "XDG_CONFIG_HOME": os.path.join(folder, "config")})


def options(folder):
    return ["--include-project", f"group/library={folder}/library", "--templates", f"{folder}/templates",
            "--input", "who=you"]


def run_takes_files_from_everywhere(build):
    with web() as url, world(url) as folder:
        done = davit(build, folder, "run", *options(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        sha = subprocess.run(["git", "-C", folder + "/library", "rev-parse", "HEAD"], check=True,
                             capture_output=True, text=True).stdout.strip()
        for line in ("greet you 2/2 | hello you from library", "far | far away", "mine | from a template",
                     f"component | check 1.4.2 {sha}", "component | [a,b]"):
            assert any(line in printed for printed in done.stdout.split("\n")), (line, done.stdout)


def what_lint_knows_of_a_project_may_stand_in_the_configuration(build):
    with web() as url, world(url) as folder:
        write(folder, {"config/davit/config.json": json.dumps(
            {"include_projects": {"group/library": folder + "/library"}, "templates": folder + "/templates"})})
        done = davit(build, folder, "lint")
        assert done.returncode == 0, done.stdout + done.stderr


def offline_says_which_files_need_a_network(build):
    with web() as url, world(url) as folder:
        done = davit(build, folder, "lint", "--offline", "--json", *options(folder))
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)["diagnostics"]
        assert [(d["level"], d["code"]) for d in found] == [("warning", "include-offline")], found
        assert "far.yml" in found[0]["message"], found
        done = davit(build, folder, "lint", "--offline", "--strict", *options(folder))
        assert done.returncode == 65, done.stdout + done.stderr
        done = davit(build, folder, "lint", "--input", "who=you")
        assert "--include-project group/library=" in done.stdout, done.stdout
        done = davit(build, folder, "lint", *options(folder), "--input", "woh=x")
        assert "did you mean `who`?" in done.stdout, done.stdout


def the_broker_fetches_when_it_was_told_to(build):
    with web() as url, world(url) as folder:
        body = {"project": "a/b", "files": {".gitlab-ci.yml": PIPELINE.replace("URL", url)},
                "inputs": {"who": "api"}}
        told = ["--include-project", f"group/library={folder}/library", "--templates", f"{folder}/templates"]
        with Stack(build, workers=0) as stack:
            answer = stack.post("/lint", body)
            assert {d["code"] for d in answer["diagnostics"]} == {"include-offline"}, answer
        with Stack(build, workers=0, davitd=["--fetch-includes", *told]) as stack:
            answer = stack.post("/lint", body)
            assert [d["code"] for d in answer["diagnostics"]] == ["include-failed"], answer
            assert "no public address" in answer["diagnostics"][0]["message"], answer
        with Stack(build, davitd=["--fetch-includes", "--fetch-private", *told]) as stack:
            p = stack.post("/pipelines", body)
            done = stack.wait_pipeline(p["id"])
            names = {j["name"] for j in done["jobs"]}
            assert done["status"] == "success", done
            assert names == {"greet api 1/2", "greet api 2/2", "far", "component", "mine"}, names
            try:
                stack.post("/pipelines", {**body, "inputs": {"who": 1}})
                raise AssertionError("a number is no string")
            except ApiError as e:
                assert e.problem["diagnostics"][0]["code"] == "input-type", e.problem


def every_template_of_this_installation_is_valid(build):
    with web() as url, world(url) as folder:
        names = sorted(n for n in os.listdir(TEMPLATES) if n.endswith(".yml"))
        assert len(names) > 3, names
        for name in names:
            write(folder, {"tree/.gitlab-ci.yml": f"include: {{template: {name}}}\n"})
            done = davit(build, folder, "lint", "--templates", TEMPLATES)
            assert done.returncode == 0, (name, done.stdout, done.stderr)


main([run_takes_files_from_everywhere, what_lint_knows_of_a_project_may_stand_in_the_configuration,
      offline_says_which_files_need_a_network, the_broker_fetches_when_it_was_told_to,
      every_template_of_this_installation_is_valid])
