"""The projects of examples/, as a user runs them: `davit run` in a copy, and a broker that keeps
caches, environments, pages and releases from one pipeline to the next."""
import io
import json
import os
import shutil
import subprocess
import tempfile
import urllib.request

from stack import Stack, main, wait_for

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples")


class Project:
    """A copy of an example as a git repository of its own."""

    def __init__(self, name):
        self.name = name
        self.dir = tempfile.mkdtemp(prefix="davit-example-")
        self.root = os.path.join(self.dir, name)
        shutil.copytree(os.path.join(EXAMPLES, name), self.root, symlinks=True)
        self.git("init", "-q", "-b", "main")
        self.commit("first")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def git(self, *args):
        subprocess.run(["git", "-C", self.root, "-c", "user.name=t", "-c", "user.email=t@t", *args],
                       check=True)

    def commit(self, message):
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def davit(self, build, *args, env=None):
        return subprocess.run([os.path.join(build, "davit"), *args], cwd=self.root, capture_output=True,
                              text=True, timeout=280, env={**os.environ, **(env or {})}, check=False)

    def run(self, build, *args):
        """The jobs of `davit run` with their statuses."""
        done = self.davit(os.path.abspath(build), "run", "--json", *args)
        assert done.returncode == 0, done.stdout + done.stderr
        return {j["name"]: j["status"] for j in json.loads(done.stdout)["jobs"]}

    def submit(self, stack, *args):
        """A pipeline that has ended well, from the working tree as it is."""
        done = self.davit(stack.build, "submit", "--json", *args, env={"DAVIT_DATA": stack.data})
        assert done.returncode == 0, done.stdout + done.stderr
        pipeline = stack.wait_pipeline(json.loads(done.stdout)["id"], 240)
        assert pipeline["status"] == "success", failures(stack, pipeline)
        return pipeline


def failures(stack, pipeline):
    """What went wrong, with the logs."""
    text = [f"pipeline {pipeline['id']}: {pipeline['status']}"]
    for job in pipeline["jobs"]:
        text.append(f"{job['name']}: {job['status']} {job['reason']}")
        if job["status"] == "failed" and job["attempt"]:
            text.append(stack.log(job["id"]).decode(errors="replace")[-3000:])
    return "\n".join(text)


def statuses(pipeline):
    return {j["name"]: j["status"] for j in pipeline["jobs"]}


def log_of(stack, pipeline, name):
    return stack.log(next(j["id"] for j in pipeline["jobs"] if j["name"] == name)).decode()


def artifact_types(stack, pipeline, name):
    job = stack.get(f"/jobs/{stack.job(pipeline['id'], name)['id']}")
    return {a["type"] for a in job["artifacts"]}


def artifact_files(stack, pipeline, name, folder):
    """Unpacks what a job left; the paths in it."""
    job = stack.job(pipeline["id"], name)["id"]
    target = os.path.join(stack.dir, folder)
    done = subprocess.run([stack.program("davit"), "artifacts", str(job), "-o", target], timeout=60,
                          env={**os.environ, "DAVIT_DATA": stack.data}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    return {os.path.relpath(os.path.join(path, f), target) for path, _, names in os.walk(target) for f in names}


def environment(stack, project, name):
    found = [e for e in stack.get(f"/environments?project={project}")["items"] if e["name"] == name]
    assert len(found) == 1, found
    return found[0]


GO_CHECKS = {"version": "success", "gofmt": "success", "vet": "success", "dockerfile": "success",
             "race tests": "success", "build: [linux, amd64]": "success",
             "build: [linux, arm64]": "success"}


def go_service_deploys_its_branches(build):
    with Project("go-service") as project, Stack(build, workers=2, slots=2) as stack:
        root = os.path.join(stack.dir, "deploy")
        deploy = ("--variable", f"DEPLOY_ROOT={root}")

        project.git("checkout", "-qb", "feature/colour")
        first = project.submit(stack, *deploy)
        assert statuses(first) == {**GO_CHECKS, "review": "success", "stop review": "manual"}, statuses(first)
        check_go_results(stack, first)
        review = environment(stack, "go-service", "review/feature-colour")
        assert review["state"] == "available" and review["url"].startswith("http://127.0.0.1:"), review
        here = os.path.join(root, review["slug"])
        assert os.readlink(os.path.join(here, "current")) == "releases/0.0.0-feature-colour"
        stack.post(f"/environments/{review['id']}/stop", {})
        wait_for("the review is stopped",
                 lambda: stack.get(f"/environments/{review['id']}")["state"] == "stopped", 30)
        assert not os.path.exists(here)

        project.git("checkout", "-qb", "develop")
        second = project.submit(stack, *deploy)
        assert statuses(second) == {**GO_CHECKS, "staging": "success"}, statuses(second)
        assert "Restored cache" in log_of(stack, second, "race tests")
        assert os.readlink(os.path.join(root, "staging", "current")) == "releases/0.0.0-develop"
        go_service_releases_a_tag(stack, project, deploy)


def check_go_results(stack, pipeline):
    tests = stack.get(f"/jobs/{stack.job(pipeline['id'], 'race tests')['id']}")
    assert tests["coverage"] > 80, tests
    assert artifact_types(stack, pipeline, "race tests") == {"archive", "junit", "coverage_report"}
    assert "success; " in log_of(stack, pipeline, "race tests")
    assert artifact_files(stack, pipeline, "build: [linux, arm64]", "arm64") == {
        "dist/linkd-linux-arm64", "dist/linkd-linux-arm64.sha256"}
    with open(os.path.join(stack.dir, "arm64/dist/linkd-linux-arm64"), "rb") as f:
        assert f.read(20)[18] == 0xb7  # e_machine: AArch64


def go_service_releases_a_tag(stack, project, deploy):
    tagged = project.submit(stack, *deploy, "--ref", "refs/tags/v1.2.0")
    assert statuses(tagged) == {**GO_CHECKS, "container": "manual", "production": "success",
                                "release": "success"}, statuses(tagged)
    production = environment(stack, "go-service", "production")
    deployments = stack.get(f"/environments/{production['id']}")["deployments"]
    assert [d["ref"] for d in deployments] == ["v1.2.0"], deployments
    release = stack.get("/releases?project=go-service")["items"]
    assert len(release) == 1 and release[0]["tag"] == "v1.2.0", release
    assert release[0]["name"] == "linkd 1.2.0" and "linkd-linux-arm64" in release[0]["description"], release


def go_service_runs_jobs_by_name(build):
    with Project("go-service") as project:
        assert project.run(build, "gofmt", "dockerfile") == {"gofmt": "success", "dockerfile": "success"}
        with open(os.path.join(project.root, "cmd/linkd/main.go"), "a", encoding="utf-8") as f:
            f.write("func  badly( ) { }\n")
        with open(os.path.join(project.root, "Dockerfile"), "a", encoding="utf-8") as f:
            f.write("FROM debian\nCOPY --from=nowhere /x /x\n")
        done = project.davit(os.path.abspath(build), "run", "gofmt", "dockerfile")
        assert done.returncode == 1 and "gofmt | cmd/linkd/main.go" in done.stdout, done.stdout
        assert "an image without a version: debian" in done.stdout, done.stdout
        assert "a stage that is not there: nowhere" in done.stdout, done.stdout


C_TESTS = {f"test: [{compiler}, {sanitizer}]": "success"
           for compiler in ("gcc", "clang") for sanitizer in ("address,undefined", "leak")}
C_ALWAYS = {**C_TESTS, "version": "success", "coverage": "success", "patience": "success", "package": "success"}


def c_library_runs(build):
    with Project("c-library") as project:
        assert project.run(build, "--ref", "topic") == C_ALWAYS


def c_library_keeps_caches_pages_and_releases(build):
    with Project("c-library") as project, Stack(build, workers=2, slots=2) as stack:
        first = project.submit(stack)
        assert statuses(first) == {**C_ALWAYS, "documentation": "success"}, statuses(first)
        assert stack.job(first["id"], "patience")["attempt"] == 2
        coverage = stack.get(f"/jobs/{stack.job(first['id'], 'coverage')['id']}")["coverage"]
        assert coverage > 90, coverage
        assert artifact_files(stack, first, "package", "package") == {"dist/csv-1.3.0.tar.gz"}
        assert all(artifact_types(stack, first, name) == {"junit"} for name in C_TESTS)
        page = urllib.request.urlopen(f"{stack.url}/pages/c-library/", timeout=10).read().decode()
        assert "csv 1.3.0" in page and "csv_feed" in page, page

        second = project.submit(stack)
        for name in C_TESTS:
            log = log_of(stack, second, name)
            assert "Restored cache" in log and "ccache Hits:" in log, log
            assert "ccache Misses:" not in log or "0 /" in log.split("ccache Misses:")[1], log
        tagged = project.submit(stack, "--ref", "refs/tags/v1.3.0")
        assert statuses(tagged) == {**C_ALWAYS, "release": "success"}, statuses(tagged)
        release = stack.get("/releases?project=c-library")["items"]
        assert [r["tag"] for r in release] == ["v1.3.0"], release


CHILD_GREET = {"tests": "success", "program": "success"}
CHILD_SITE = {"build": "success", "links": "success"}


def children(stack, pipeline):
    """Trigger job to the jobs of the child it made."""
    found = {}
    for job in pipeline["jobs"]:
        child = stack.get(f"/jobs/{job['id']}").get("child_pipeline_id")
        if child:
            found[job["name"]] = statuses(stack.pipeline(child))
    return found


def monorepo_runs_what_changed(build):
    with Project("monorepo") as project, Stack(build, workers=2, slots=2) as stack:
        done = project.run(build)
        assert set(done.values()) == {"success"} and {"greet", "site", "packages"} <= set(done), done

        everything = project.submit(stack)
        assert children(stack, everything) == {
            "greet": CHILD_GREET, "site": CHILD_SITE,
            "packages": {"test columns": "success", "test roman": "success"}}, children(stack, everything)
        assert log_of(stack, everything, "report").count("all is well with 1.1") > 0
        greet = stack.get(f"/jobs/{stack.job(everything['id'], 'greet')['id']}")["child_pipeline_id"]
        assert artifact_files(stack, stack.pipeline(greet), "program", "greet") == {"dist/greet-1.1.pyz"}

        with open(os.path.join(project.root, "packages/roman/roman"), "a", encoding="utf-8") as f:
            f.write("# the end\n")
        with open(os.path.join(project.root, "site/tides.txt"), "a", encoding="utf-8") as f:
            f.write("\nLow at six.\n")
        project.commit("tides")
        some = project.submit(stack)
        assert children(stack, some) == {"site": CHILD_SITE, "packages": {"test roman": "success"}}, some

        with open(os.path.join(project.root, "site/check.py"), "w", encoding="utf-8") as f:
            f.write("raise SystemExit(1)\n")
        project.commit("broken")
        failed = project.davit(stack.build, "submit", "--follow", "-q", env={"DAVIT_DATA": stack.data})
        assert failed.returncode == 1 and "site" in failed.stdout, failed


def every_example_is_right_for_every_branch(build):
    """What the READMEs say of branches and tags, by lint alone."""
    wanted = {
        "go-service": {"develop": {"staging"}, "feature/x": {"review", "stop review"},
                       "main": {"production", "container"}, "topic": set(),
                       "refs/tags/v1.0.0": {"production", "container", "release"}},
        "c-library": {"main": {"documentation"}, "topic": set(), "refs/tags/v1": {"release"}},
        "wordcount": {"main": set()},
    }
    for name, refs in wanted.items():
        special = set().union(*refs.values())
        with Project(name) as project:
            for ref, jobs in refs.items():
                done = project.davit(os.path.abspath(build), "lint", "--json", "--ref", ref)
                assert done.returncode == 0, done.stdout
                report = json.load(io.StringIO(done.stdout))
                assert not report["diagnostics"], report["diagnostics"]
                assert special & {j["name"] for j in report["jobs"]} == jobs, (name, ref, report["jobs"])


if __name__ == "__main__":
    main([every_example_is_right_for_every_branch, go_service_runs_jobs_by_name, go_service_deploys_its_branches,
          c_library_runs, c_library_keeps_caches_pages_and_releases, monorepo_runs_what_changed])
