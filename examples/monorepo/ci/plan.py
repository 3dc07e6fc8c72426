"""Prints a pipeline with one job for every package that has to be tested.

    plan.py FOLDER [BASE]

With the commit BASE only those that differ from it, else all of them.
"""
import json
import os
import subprocess
import sys


def changed(folder, base):
    try:
        names = subprocess.run(["git", "diff", "--name-only", base, "--", folder], check=True,
                               capture_output=True, text=True).stdout.split("\n")
    except (OSError, subprocess.CalledProcessError):
        return None  # no git, or a base that is not here: test everything
    return {name.split("/")[1] for name in names if name.count("/") > 1}


folder = sys.argv[1]
packages = sorted(name for name in os.listdir(folder) if os.path.isfile(f"{folder}/{name}/test.sh"))
wanted = changed(folder, sys.argv[2]) if len(sys.argv) > 2 and sys.argv[2].strip("0") else None
jobs = {f"test {name}": {"script": [f"{folder}/{name}/test.sh"]}
        for name in packages if wanted is None or name in wanted}
if not jobs:
    jobs["nothing to test"] = {"script": ["true"]}
print(json.dumps(jobs, indent=2))  # JSON is YAML
