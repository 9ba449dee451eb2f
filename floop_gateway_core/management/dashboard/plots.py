"""Plots as SVG, drawn on the server. Each page shows the same numbers in a table beside them."""

import re
from collections.abc import Sequence
from html import escape

__all__ = ["bars", "meter"]

WIDTH, HEIGHT, FOOT, HEAD = 320, 122, 18, 14
MOST_LABELS = 6


def bars(labels: Sequence[str], values: Sequence[float], title: str) -> str:
    """Return a bar for each value, with the highest value as the scale, and each value as a tooltip."""
    most = max([1e-9, *values])
    step = WIDTH / max(1, len(values))
    every = max(1, -(-len(values) // MOST_LABELS))
    parts = [f'<text class="tick" x="0" y="9">{most:g}</text>'] if max(values, default=0) > 0 else []
    for index, (label, value) in enumerate(zip(labels, values, strict=True)):
        height = value / most * (HEIGHT - FOOT - HEAD)
        x, y = index * step, HEIGHT - FOOT - height
        parts.append(
            f'<rect class="bar" x="{x + step * 0.1:.1f}" y="{y:.1f}" width="{step * 0.8:.1f}" height="{height:.1f}">'
            f"<title>{escape(label)}: {value:g}</title></rect>"
        )
        if index % every == 0:
            parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - 4}">{escape(_short(label))}</text>')
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}, at most {most:g}">'
        f'<line class="axis" x1="0" x2="{WIDTH}" y1="{HEIGHT - FOOT}" y2="{HEIGHT - FOOT}"/>{"".join(parts)}</svg>'
    )


def _short(label: str) -> str:
    """Return a short label: the time for an hour, the month and day for a day, the beginning of anything else."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d(T.*)?", label):
        return label[11:16] or label[5:]
    return label[:16]


def meter(used: int, held: int, limit: int) -> str:
    """Return a bar that shows how much of a limit is used and how much is held."""
    limit = max(1, limit)
    of_used = min(1.0, used / limit) * WIDTH
    of_held = min(1.0 - of_used / WIDTH, held / limit) * WIDTH
    return (
        f'<svg class="meter" viewBox="0 0 {WIDTH} 12" preserveAspectRatio="none" role="img" '
        f'aria-label="{used} used and {held} held of {limit}">'
        f'<rect class="rest" width="{WIDTH}" height="12"/><rect class="bar" width="{of_used:.1f}" height="12"/>'
        f'<rect class="held" x="{of_used:.1f}" width="{of_held:.1f}" height="12"/></svg>'
    )
