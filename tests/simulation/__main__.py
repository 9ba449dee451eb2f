"""Run any number of schedules: `python -m tests.simulation --schedules 100000 --seed 7`."""

import argparse
import sys
import time

from tests.simulation.report import broken

TELL_EVERY_S = 10.0


def main(arguments: list[str] | None = None) -> int:
    """Run the schedules; return 1 if one of them breaks a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2_000, help="how many (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="the first seed; the next ones follow (default: %(default)s)"
    )
    parser.add_argument("--sqlite", action="store_true", help="on a file each, and not in memory")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first that breaks a rule")
    asked = parser.parse_args(arguments)
    began = told = time.monotonic()
    failures = 0
    for done in range(asked.schedules):
        if (found := broken(asked.seed + done, sqlite=asked.sqlite)) is not None:
            failures += 1
            print(found, flush=True)
            if not asked.keep_going:
                return 1
        if (now := time.monotonic()) - told > TELL_EVERY_S:
            told = now
            print(f"{done + 1} of {asked.schedules}", file=sys.stderr, flush=True)
    took_s = max(time.monotonic() - began, 1e-9)
    print(f"{asked.schedules} schedules, {failures} broken, {asked.schedules / took_s:.0f} a second")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
