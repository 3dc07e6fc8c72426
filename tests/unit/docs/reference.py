#!/usr/bin/env python3
"""docs/pipeline.md against the sources: every keyword has its section, and every section a keyword;
what is only checked says so; every predefined variable and limit is there, as it is.

    reference.py ROOT

A heading of the fourth level names a keyword by its path: `needs:parallel`. `PATH:*` stands for all
keywords below PATH, where each is only checked or all are alike: its text names them.
"""
import os
import re
import sys

ROOT = sys.argv[1]
problems = []

# Where the keywords of a scope stand. Several: what holds for one holds for the others.
PATHS = {
    "TOP": [""], "HEADER": [""], "SPEC": ["spec:"], "SPEC_FILE": ["spec:"], "INPUT": ["spec:inputs:"], "DEFAULT": [""],
    "JOB": [""], "INCLUDE": ["include:"], "INCLUDE_RULE": ["include:rules:"],
    "INHERIT": ["inherit:"], "VARIABLE": ["variables:"], "JOB_VARIABLE": ["variables:"], "IMAGE": ["image:"],
    "NEED": ["needs:"], "ARTIFACTS": ["artifacts:"], "ALLOW_FAILURE": ["allow_failure:"],
    "RETRY": ["retry:"], "PARALLEL": ["parallel:", "needs:parallel:"], "RULE": ["rules:"],
    "CHANGES": ["rules:changes:"], "EXISTS": ["rules:exists:"], "WORKFLOW": ["workflow:"],
    "WORKFLOW_RULE": ["workflow:rules:"], "AUTO_CANCEL": ["workflow:auto_cancel:"],
    "POLICY": ["only:"], "DAST": ["dast_configuration:"], "SECRET": ["secrets:"],
    "VAULT": ["secrets:vault:"], "VAULT_ENGINE": ["secrets:vault:engine:"],
    "AKEYLESS": ["secrets:akeyless:"], "AWS_SECRET": ["secrets:aws_secrets_manager:"],
    "AZURE_SECRET": ["secrets:azure_key_vault:"], "GCP_SECRET": ["secrets:gcp_secret_manager:"],
    "GITLAB_SECRET": ["secrets:gitlab_secrets_manager:"], "STEP": ["run:"],
    "STEP_FROM": ["run:step:"], "STEP_GIT": ["run:step:git:"], "STEP_OCI": ["run:step:oci:"],
    "INPUT_RULE": ["spec:inputs:rules:"], "CACHE": ["cache:"], "CACHE_KEY": ["cache:key:"], "REPORTS": ["artifacts:reports:"],
    "COVERAGE_REPORT": ["artifacts:reports:coverage_report:"], "SERVICE": ["services:"],
    "DOCKER": ["image:docker:", "services:docker:"],
    "KUBERNETES_USER": ["image:kubernetes:", "services:kubernetes:"], "HOOKS": ["hooks:"],
    "ID_TOKEN": ["id_tokens:"], "ENVIRONMENT": ["environment:"],
    "KUBERNETES": ["environment:kubernetes:"], "DASHBOARD": ["environment:kubernetes:dashboard:"],
    "MANAGED_RESOURCES": ["environment:kubernetes:managed_resources:"], "TRIGGER": ["trigger:"],
    "FORWARD": ["trigger:forward:"], "RELEASE": ["release:"], "RELEASE_ASSETS": ["release:assets:"],
    "RELEASE_LINK": ["release:assets:links:"], "ROLLOUT": ["rollout:"],
    "ROLLOUT_STEP": ["rollout:steps:"], "ROLLOUT_APPROVE": ["rollout:steps:approve:"],
    "ROLLOUT_METRIC": ["rollout:analysis:"], "ROLLOUT_WAVES": ["rollout:waves:"], "PAGES": ["pages:"], "JOB_INPUT": ["inputs:"],
}
# The same keyword of the same meaning in several places has one section that names the places.
SHARED = ("TOP", "HEADER", "DEFAULT", "JOB")
MARKS = {"ACTED": None, "CHECKED": "**Checked.**"}
UNITS = {"KIB": 1024, "MIB": 1024 * 1024}


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as f:
        return f.read()


def sections(text):
    """Heading to body, of the fourth level."""
    found = {}
    for match in re.finditer(r"^#### (.+)\n((?:(?!#{1,4} ).*\n?)*)", text, re.M):
        if match[1] in found:
            problems.append(f"two sections `{match[1]}`")
        found[match[1]] = match[2].strip()
    return found


def section_of(found, path):
    """The section of a keyword, and whether it is one of its own."""
    if path in found:
        return found[path]
    parts = path.split(":")
    for n in range(len(parts) - 1, 0, -1):
        whole = ":".join(parts[:n]) + ":*"
        if whole in found:
            if f"`{parts[-1]}`" not in found[whole]:
                problems.append(f"the section `{whole}` does not name `{parts[-1]}`")
            return found[whole]
    return None


def check_keywords(found):
    source = read("pipeline/keywords.def")
    where = dict(re.findall(r'^SCOPE\((\w+), "(.*)"\)', source, re.M))
    places = {}
    used = set()
    for scope, name, support in re.findall(r"^KEYWORD\((\w+), (\w+), (\w+)\)", source, re.M):
        if scope not in PATHS:
            problems.append(f"the scope {scope} has no path in {sys.argv[0]}")
            continue
        for prefix in PATHS[scope]:
            path = prefix + name
            body = section_of(found, path)
            if body is None:
                problems.append(f"no section `{path}` ({where[scope]}, {support})")
                continue
            used.add(path)
            if scope in SHARED:
                places.setdefault(path, []).append(where[scope])
            for other, mark in MARKS.items():
                if mark and (mark in body) != (other == support):
                    problems.append(f"`{path}` is {support} {where[scope]}: "
                                    f"{'no ' if other == support else ''}{mark}")
    check_places(found, places)
    for heading in found:
        below = heading[:-1] if heading.endswith(":*") else None
        if heading not in used and not (below and any(p.startswith(below) for p in used)):
            problems.append(f"the section `{heading}` names no keyword")


STATES = {"ACTED": "works", "CHECKED": "checked, fails the job"}


def check_table(text):
    """The table of docs/coming-from-gitlab.md: the keywords of jobs and of files."""
    wanted = {name: STATES[support] for scope, name, support in re.findall(
        r"^KEYWORD\((\w+), (\w+), (\w+)\)", read("pipeline/keywords.def"), re.M) if scope in ("TOP", "JOB")}
    told = {name: state for names, state in re.findall(r"^\| (`.*?) \| (\w.*?) \|", text, re.M)
            for name in re.findall(r"`(\w+)`", names)}
    for name in sorted(set(wanted) | set(told)):
        if wanted.get(name) != told.get(name):
            problems.append(f"coming-from-gitlab.md: `{name}`: {told.get(name)}; it is {wanted.get(name)}")


def check_places(found, places):
    for path, names in places.items():
        match = re.match(r"\*(.*?)\.\*", found[path].replace("\n", " "))
        said = set(match[1].split(", ")) if match else set()
        said = {s[:1].lower() + s[1:] for s in said}
        if said != set(names):
            problems.append(f"`{path}` stands {', '.join(names)}; its section says: {match and match[1]}")


def sources(*folders):
    for folder in folders:
        for path, _, names in os.walk(os.path.join(ROOT, folder)):
            for name in names:
                if name.endswith(".c"):
                    yield read(os.path.relpath(os.path.join(path, name), ROOT))


def check_variables(text):
    names = set(re.findall(r"^PREDEFINED\((\w+),", read("pipeline/predefined.def"), re.M))
    for source in sources("broker/core", "broker/net", "broker/trigger", "worker"):
        names |= set(re.findall(r'\b(?:add|set)_\w+\(\w+, "((?:CI|GITLAB|DAVIT)_\w+)"', source))
    part = text[text.index("\n### Predefined"):text.index("\n### Variables that steer")]
    told = {name for row in re.findall(r"^\| (`.*?) \|", part, re.M) for name in re.findall(r"`(\w+)`", row)}
    problems.extend(f"the variable {name} is not told of" for name in sorted(names - told))
    problems.extend(f"there is no variable {name}" for name in sorted(told - names - MADE_ELSEWHERE))


# By the shell executor's script, and with the environment of a job.
MADE_ELSEWHERE = {"CI_JOB_STATUS"}


def size_text(expression):
    match = re.fullmatch(r"\(?(\d+)u?(?:ll)?(?: \* (KIB|MIB))?\)?u?", expression.strip())
    if not match:
        return None
    return f"{match[1]} {match[2][0]}iB" if match[2] else f"{int(match[1]):,}"


def check_limits(text):
    limits = read("common/limits.h")
    values = {}
    for name, value in re.findall(r"^#define (LIMIT_\w+) ([^/\n]+)", limits, re.M):
        values[name] = size_text(value)
    part = limits[limits.index("/* pipeline files */"):limits.index("/* messages */")]
    wanted = set(re.findall(r"#define (LIMIT_\w+)", part))
    told = dict(reversed(row) for row in re.findall(r"^\| .* \| (.+) \| `(LIMIT_\w+)` \|$", text, re.M))
    for name, value in told.items():
        if values.get(name) != value:
            problems.append(f"{name} is {values.get(name)}, not {value}")
    told_in_text = set(re.findall(r"`(LIMIT_\w+)`", text))
    problems.extend(f"the limit {name} is not told of" for name in sorted(wanted - told_in_text))


def anchor(heading):
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_links(path):
    """Links to headings of the same file and to other files of the folder."""
    text = read(path)
    anchors = {}
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        name = anchor(heading)
        anchors[name] = anchors.get(name, -1) + 1
    known = set(anchors) | {f"{a}-{n}" for a, count in anchors.items() for n in range(1, count + 1)}
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, fragment = target.partition("#")
        if "://" in target:
            continue
        if file and not os.path.exists(os.path.join(ROOT, os.path.dirname(path), file)):
            problems.append(f"{path}: there is no {file}")
        elif fragment and not file and fragment not in known:
            problems.append(f"{path}: there is no heading #{fragment}")


def main():
    text = read("docs/pipeline.md")
    check_keywords(sections(text))
    check_variables(text)
    check_limits(text)
    check_table(read("docs/coming-from-gitlab.md"))
    for path in ("docs/pipeline.md", "docs/coming-from-gitlab.md", "docs/README.md", "README.md"):
        check_links(path)
    print("\n".join(problems))
    print(f"{len(problems)} problems")
    return 1 if problems else 0


sys.exit(main())
