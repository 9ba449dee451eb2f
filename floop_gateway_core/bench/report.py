"""What `measure` found, as a table, as JSON lines and as a picture."""

import json
import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path

from floop_gateway_core.bench.run import Cell, Measured, Target, ratio

__all__ = ["json_lines", "picture", "table"]


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0


def _percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def _per_frame_ms(one: Measured, cell: Cell) -> float:
    return one.cpu_ms / cell.frames


def _row(cell: Cell, target: Target, floor: Target) -> dict[str, object]:
    rounds, beside = target.rounds[cell.name], floor.rounds[cell.name]
    unit = cell.frames if cell.stream else 1
    return {
        "cell": cell.name,
        "target": target.name,
        "ratio": round(ratio(rounds, beside, lambda one: one.per_s), 3),
        "cpu_ratio": round(ratio(rounds, beside, lambda one: one.cpu_s), 3),
        "per_s": round(_median([one.per_s for one in rounds]) * unit, 1),
        "unit": "frames" if cell.stream else "answers",
        "cpu_ms": round(_median([one.cpu_ms for one in rounds]), 3),
        "cpu_s_per_1000_frames": round(_median([_per_frame_ms(one, cell) for one in rounds]), 4),
        "p50_ms": round(_median([_percentile(one.result.times_ms, 0.5) for one in rounds]), 2),
        "p99_ms": round(_median([_percentile(one.result.times_ms, 0.99) for one in rounds]), 2),
        "first_text_p50_ms": round(_median([_percentile(one.result.first_ms, 0.5) for one in rounds]), 2),
        "errors": sum(one.result.errors for one in rounds),
        "rss_mb": round(max(one.rss_kb for one in rounds) / 1024, 1),
        "start_s": round(target.start_s, 2),
    }


def rows(cells: Sequence[Cell], targets: Sequence[Target]) -> list[dict[str, object]]:
    """Return a row for each cell and target; ratios are to the floor that parses, more is better but for CPU."""
    floor = next(target for target in targets if target.name == "floor: parsing")
    return [_row(cell, target, floor) for cell in cells for target in targets if cell.name in target.rounds]


def table(found: Sequence[dict[str, object]]) -> str:
    """Return the rows as text, ratios first."""
    columns = {
        "ratio": "ratio", "cpu_ratio": "CPU", "per_s": "per s", "unit": "", "cpu_ms": "CPU ms", "p50_ms": "p50 ms",
        "p99_ms": "p99 ms", "first_text_p50_ms": "first ms", "errors": "errors", "rss_mb": "MB",
    }  # fmt: skip
    lines = [f"{'':22} {'':18} " + " ".join(f"{title:>8}" for title in columns.values())]
    for row in found:
        values = " ".join(f"{row[name]!s:>8}" for name in columns)
        lines.append(f"{row['cell']:22} {row['target']:18} {values}")
    return "\n".join(lines)


def json_lines(found: Sequence[dict[str, object]], path: Path) -> None:
    """Write one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in found))


def picture(found: Sequence[dict[str, object]], path: Path) -> None:
    """Draw the ratios to the floor as bars in an SVG, a group for each cell."""
    gateways = [row for row in found if not str(row["target"]).startswith("floor")]
    most = max([1.0, *(float(str(row["ratio"])) for row in gateways)])
    bar, label, width = 18, 250, 420
    parts, y, last = [], 34, None
    for row in gateways:
        if row["cell"] != last:
            last, y = row["cell"], y + 10
            parts.append(f'<text x="8" y="{y + 13}" font-weight="bold">{escape(str(last))}</text>')
        length = float(str(row["ratio"])) / most * width
        parts.append(f'<text x="{label - 8}" y="{y + 13}" text-anchor="end">{escape(str(row["target"]))}</text>')
        parts.append(f'<rect x="{label}" y="{y}" width="{length:.1f}" height="{bar - 4}" fill="#3b7dd8"/>')
        parts.append(f'<text x="{label + length + 6:.1f}" y="{y + 12}">{row["ratio"]}</text>')
        y += bar
    one = label + width / most
    parts.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="28" y2="{y}" stroke="#c33" stroke-dasharray="4 3"/>')
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{label + width + 70}" height="{y + 12}" '
        'font-family="sans-serif" font-size="12" fill="#222">'
        '<rect width="100%" height="100%" fill="#fff"/>'
        '<text x="8" y="18">Throughput beside the floor that parses (1.0, dashed)</text>'
        f"{''.join(parts)}</svg>\n"
    )
