"""The Python of the README and of the pages on single pieces runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = (
    "README.md",
    *("docs/index.md", "docs/toolkit.md", "docs/testing.md", "docs/observability.md"),
    *sorted(
        str(path.relative_to(ROOT))
        for kind in ("how-to", "explanation")
        for path in (ROOT / "docs" / kind).glob("*.md")
    ),
)
BLOCKS = [
    pytest.param(page, block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL))
]


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_each_python_block_runs(page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOOP_GATEWAY_CONFIG", raising=False)
    exec(compile(block, page, "exec"), {"__name__": "__main__"})
