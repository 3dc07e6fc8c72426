"""A process of a pool: does one tiny job after the other, with everything loaded already.

    davit-worker ... --prefork 'words:4=python3 /srv/davit/loop.py'
    davit enqueue --prefork words --input 'how many words are in here'

Copy it, load in `main` what is slow to load, and put your own work into `work`.
"""
import json
import os
import sys


def work(text, variables, job):
    """The output of the job; an exception fails it. What is printed goes into its log."""
    print(f"job {job['job']} is the {job['id']}. of this process")
    return str(len(text.split()))


def main():
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # print() is the job's log; stdout is for answers alone
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        answer = {"id": job["id"], "exit": 0}
        try:
            answer["output"] = work(job["input"], job["variables"], job)
        except Exception as error:  # one bad job is not the end of the process
            answer.update(exit=1, text=f"{type(error).__name__}: {error}")
        sys.stdout.flush()
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
