"""`floop-gateway bench`: measure a configuration on this machine, beside the floors (extras `[serve]` and `[aiohttp]`)."""

import argparse
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from floop_gateway_core.config import Settings
from floop_gateway_core.errors import AdminError

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Measure, and print the table; write the raw results and a picture if asked to."""
    try:
        from floop_gateway_core.bench import report
        from floop_gateway_core.bench.run import CELLS, measure
    except ImportError as error:  # the floors are aiohttp's
        raise AdminError(f"{error.name} is not installed; pip install 'floop-gateway[serve,aiohttp]'") from error
    cells = [cell for cell in CELLS if args.cell is None or args.cell in cell.name]
    if args.connections:
        cells = [cell for cell in cells if cell.connections == args.connections]
    if not cells:
        names = "; ".join(cell.name for cell in CELLS)
        print(f"floop-gateway: no cell matches; available cells: {names}", file=sys.stderr)
        return 2
    hosts = [
        {"host": args.host, "http": args.http, "loop": args.loop, "workers": workers, "store": args.store}
        for workers in args.workers
    ]
    with tempfile.TemporaryDirectory(prefix="floop-bench-") as folder:
        targets = measure(
            _configured(args.config), folder=Path(folder), hosts=hosts, cells=cells, rounds=args.rounds,
            progress=_progress,
        )  # fmt: skip
    found = report.rows(cells, targets)
    print(report.table(found))
    if args.json:
        report.json_lines(found, Path(args.json))
    if args.svg:
        report.picture(found, Path(args.svg))
    return 1 if any(row["errors"] for row in found) else 0


def _configured(path: str | None) -> dict[str, Any]:
    """Return the configuration as it stands in the file, which must be valid. Its hooks are left out."""
    _, source = Settings.find(path)
    if not Path(source).is_file():
        return {}
    settings = tomllib.loads(Path(source).read_text("utf-8-sig"))
    return {name: value for name, value in settings.items() if name != "hooks"}


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)
