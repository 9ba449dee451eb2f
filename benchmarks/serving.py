"""The gateway over real sockets on every kind of host, beside two floors in the same run.

    python -m benchmarks.serving [--rounds N] [--json FILE] [--svg FILE]

`floop-gateway bench` does the same for one host and your own configuration.
"""

import argparse
import tempfile
from pathlib import Path

from floop_gateway_core.bench import report
from floop_gateway_core.bench.run import CELLS, measure

HOSTS = (
    {"host": "asgi", "store": "memory://"},
    {"host": "asgi", "store": "sqlite"},
    {"host": "aiohttp", "store": "memory://"},
    {"host": "flask", "store": "memory://"},
)


def main() -> None:
    parser = argparse.ArgumentParser(description="The gateway over real sockets, floors beside it.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the results as JSON lines")
    parser.add_argument("--svg", type=Path, help="draw the ratios")
    args = parser.parse_args()
    print(f"python -m benchmarks.serving --rounds {args.rounds}")
    with tempfile.TemporaryDirectory() as folder:
        targets = measure({}, folder=Path(folder), hosts=HOSTS, rounds=args.rounds)
    found = report.rows(CELLS, targets)
    print(report.table(found))
    if args.json:
        report.json_lines(found, args.json)
    if args.svg:
        report.picture(found, args.svg)


if __name__ == "__main__":
    main()
