"""Rollouts whose broker or worker is killed (SIGKILL) at every moment that the API shows.

A moment is what is seen at once: state, step, wanted and observed weight, what runs that changes
something. One rollout that nobody disturbs gives the list; then, for each, another one is killed as soon
as it is there. Whoever is killed, the end is the same; weights of a good version never go back, those of
a bad one never rise beyond the first step. `rollout_kill.py BUILD` kills at a few moments,
`rollout_kill.py BUILD --all` at all, with both victims.
"""
import argparse
import os
import shutil
import sys
import threading
import time

from rollouts import Load, Town, versions
from stack import SKIP, ApiError, wait_for

PIPELINE = """
deploy:
  environment: production
  rollout:
    target: web
    version: {version}
    steps:
      - {{ weight: 20, hold: 2s }}
      - {{ weight: 50, hold: 1s }}
    analysis:
      - {{ metric: error_rate, tolerance: 1.2, critical: true }}
    bake: 1s
"""
ENDED = ("done", "rolled_back", "refused")
PATIENCE_S = 90
FEW = 2  # moments of each kind of rollout in the short form
CHANGES = ("ensure", "remove", "route", "run")  # kinds of actions; the others look


class Killed(Town):
    """One town for all rollouts: each begins where the one before ended."""

    def __init__(self, build):
        super().__init__(build)
        self.count = 0
        self.stable = None

    def newest(self, ident=None):
        """The newest rollout, or that one, with its actions; None while the broker is away."""
        try:
            ident = ident or self.get("/rollouts?project=e2e")["items"][0]["id"]
            return self.get(f"/rollouts/{ident}")
        except (OSError, ApiError, IndexError, ValueError):
            return None

    def follow(self, version, good, kill_at=None, victim=None):
        """Rolls a version out. The moments that were seen, the one of the kill, and where it ended."""
        self.fault(version, "" if good else "1")
        self.submit(PIPELINE.format(version=version))
        seen, met, ident, ended = [], None, None, time.monotonic() + PATIENCE_S
        while time.monotonic() < ended:
            r = self.newest(ident)
            if r is None or r["version"] != version:
                time.sleep(0.005)
                continue
            ident = r["id"]
            now = moment(r)
            if now not in seen:
                seen.append(now)
            if r["state"] in ENDED:
                return seen, met, r
            if kill_at and not met and now[:len(kill_at)] == kill_at:
                met = now
                self.strike(victim)
            time.sleep(0.005)
        raise AssertionError(f"{version} has not ended in {PATIENCE_S} s: {self.newest(ident)}")

    def strike(self, victim):
        if victim == "broker":
            self.broker.kill()
            self.broker.start()
            self.wait_broker()
        else:
            self.workers[0].kill()
            self.workers[0].start()

    def check(self, version, good, seen, r, load):
        """What is wrong with an end; empty: nothing."""
        wanted = [m[2] for m in seen]
        if good:
            if r["state"] != "done":
                return f"ended {r['state']}: {r['why_text']}"
            if wanted != sorted(wanted):
                return f"weights went back: {wanted}"
        else:
            if r["state"] != "rolled_back" or r["observed_bp"] != 0:
                return f"ended {r['state']} at {r['observed_bp']}"
            if max(wanted) > 2000 or max(m[3] for m in seen) > 2000:
                return f"a bad version got more: {wanted}"
        self.stable = version if good else self.stable
        time.sleep(0.4)
        left = set(versions(load.since(time.monotonic() - 0.3)))
        return "" if left == {self.stable} else f"{left} instead of {self.stable} answer"

    def one(self, good, load, kill_at=None, victim=None):
        self.count += 1
        version = f"v{self.count}"
        began = time.monotonic()
        seen, met, r = self.follow(version, good, kill_at, victim)
        wrong = self.check(version, good, seen, r, load)
        lost = [s for s in load.since(began) if s[2] != 200 and (good or s[2] == 0)]
        return seen, met, wrong or (f"{len(lost)} requests were lost" if lost else "")


def moment(r):
    running = tuple(sorted(x["kind"] for x in r["actions"] if x["state"] == "running" and x["kind"] in CHANGES))
    return (r["state"], r["step"], r["weight_bp"], r["observed_bp"], running)


def spread(moments, count):
    """So many from within a list, as far from each other and its ends."""
    return [moments[(i + 1) * len(moments) // (count + 1)] for i in range(count)]


def matrix(build, good, victim, count, rows):
    """Appends (victim, good, moment, what) to rows; `what`: passed, not met, or what is wrong."""
    with Killed(build) as town:
        with Load(town.port, rps=100) as load:
            town.follow("v0", True)
            town.stable = "v0"
            wait_for("v0 answers", lambda: "v0" in versions(load.since(time.monotonic() - 0.3)), 20)
            seen, _, wrong = town.one(good, load)
            assert not wrong, "undisturbed: " + wrong
            moments = [m for m in seen if m[0] not in ENDED]
            for m in spread(moments, count) if count else moments:
                for wish in (m, m[:-1]):  # one that is short may be over before it is seen
                    _, met, wrong = town.one(good, load, wish, victim)
                    if met or wrong:
                        break
                rows.append((victim, good, met or m, wrong or ("passed" if met else "not met")))
        town.stop()
        town.fsck()


def main():
    parser = argparse.ArgumentParser(description="kills at every moment of a rollout")
    parser.add_argument("build")
    parser.add_argument("--all", action="store_true", help="every moment that is seen, each victim")
    args = parser.parse_args()
    if not shutil.which("haproxy") or not os.path.exists(os.path.join(args.build, "davitd")):
        print("skipped: no haproxy, or no davitd")
        sys.exit(SKIP)
    kinds = [(True, "broker"), (False, "broker"), (True, "worker"), (False, "worker")]
    rows, broken = [], []

    def run(good, victim):
        try:
            matrix(args.build, good, victim, 0 if args.all else FEW, rows)
        except Exception as e:  # pylint: disable=broad-except
            broken.append(f"{victim}, {'good' if good else 'bad'} version: {e!r}")

    for pair in (kinds[:2], kinds[2:]) if args.all else ((kinds[0], kinds[3]),):
        threads = [threading.Thread(target=run, args=kind) for kind in pair]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    for victim, good, m, what in rows:
        print(f"  {victim} killed, {'good' if good else 'bad'} version, {m[0]} step {m[1]}, weight {m[2]}, "
              f"observed {m[3]}, {'+'.join(m[4]) or 'nothing'} under way: {what}")
    passed = sum(row[3] == "passed" for row in rows)
    missed = sum(row[3] == "not met" for row in rows)
    print(f"{passed} of {len(rows)} passed, {missed} moments were not met again")
    assert not broken, broken
    assert passed > 0 and passed + missed == len(rows), "a kill changed the end"


if __name__ == "__main__":
    main()
