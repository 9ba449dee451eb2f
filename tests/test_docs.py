"""The documentation site: it builds without a warning, loads nothing from elsewhere, and its reference is complete."""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from pydantic import BaseModel

from floop_gateway_core.cli.parser import build_parser
from floop_gateway_core.config.settings import DeploymentSettings, PlanSettings, Settings
from floop_gateway_core.errors import CATALOGUE
from tests.test_readme import PAGES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
FENCED = re.MULTILINE | re.DOTALL


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    pages = [path.read_text("utf-8") for path in (tmp_path / "site").rglob("*.html")]
    assert len(pages) > len(list(DOCS.rglob("*.md")))  # and the 404
    loaded = re.compile(
        r'<(?:script|img|iframe|source)\b[^>]*\bsrc="?(?:https?:)?//|<link\b[^>]*\bhref="?(?:https?:)?//'
    )
    assert [] == [found.group() for page in pages for found in loaded.finditer(page)]


def rows(page: str) -> list[list[str]]:
    """Give the cells of a page's tables, without heads and rules."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_code_of_the_catalogue_is_explained() -> None:
    written = {cells[0].strip("`"): cells for cells in rows((REFERENCE / "errors.md").read_text("utf-8"))}
    expected = {code.value: str(spec.status) for code, spec in CATALOGUE.items()}
    assert expected == {code: written[code][1] for code in expected}
    for code in expected:
        _, _, meaning, client, operator = written[code]
        assert min(map(len, (meaning, client, operator))) > 3, code


def commands(parser: argparse.ArgumentParser, words: str = "floop-gateway") -> Iterator[tuple[str, set[str]]]:
    """Give every sub-command with its options."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, one in action.choices.items():
                yield from commands(one, f"{words} {name}")
            return
    yield words, {text for one in parser._actions for text in one.option_strings if text.startswith("--")} - {"--help"}


def test_every_sub_command_and_option_is_named() -> None:
    page = (REFERENCE / "command.md").read_text("utf-8")
    common = {"--config", "--json", "--by"}
    expected = {words: options - common for words, options in commands(build_parser())}
    found = {}
    for cells in rows(page):
        if cells[0].startswith("`--"):  # the options that every command has
            continue
        words, options = re.fullmatch(r"`([a-z -]*?)((?: +[A-Z\[-].*)?)`", cells[0]).groups()  # type: ignore[union-attr]
        found[f"floop-gateway {words}"] = set(re.findall(r"--[a-z][a-z-]*", options))
    assert expected == {words: options - common for words, options in found.items()}
    assert all(option in page for option in common)


def keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner)
        else:
            yield name


@pytest.mark.parametrize("model", [Settings, PlanSettings, DeploymentSettings], ids=lambda model: model.__name__)
def test_every_key_of_the_configuration_is_named(model: type[BaseModel]) -> None:
    page = (DOCS / "configuration.md").read_text("utf-8")
    tables = {"plans", "deployments", "routes"}
    missing = {name for name in keys(model) if not re.search(rf"`{name}(`| =)", page)} - tables
    assert set() == missing
    assert all(f"[{table}" in page for table in tables)


def test_the_python_of_the_pages_type_checks(tmp_path: Path) -> None:
    """Each page is a user's program: what it imports is typed, its own functions need not be."""
    for path in DOCS.rglob("*.md"):
        name = str(path.relative_to(DOCS)).removesuffix(".md").replace("/", "_").replace("-", "_")
        page = path.read_text("utf-8")
        if path.parent.name == "tutorials":
            (tmp_path / f"{name}.py").write_text(
                "".join(re.findall(r'^```python title="app.py"\n(.*?)^```', page, FENCED))
            )
        elif str(path.relative_to(ROOT)) in PAGES:
            for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", page, FENCED)):
                (tmp_path / f"{name}_{number}.py").write_text(block)
    files = sorted(str(path) for path in tmp_path.glob("*.py"))
    assert len(files) > 20
    lenient = ["--allow-untyped-defs", "--allow-incomplete-defs", "--allow-untyped-decorators", "--allow-untyped-calls"]
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", *lenient, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


MODULES = (
    "floop_gateway_core",
    "floop_gateway_asgi",
    "floop_gateway_flask",
    "floop_gateway_aiohttp",
    "floop_gateway_client",
)


def test_every_public_name_has_an_entry() -> None:
    entries = re.findall(r"^::: (\w+)\.(\w+)$", (REFERENCE / "api.md").read_text("utf-8"), re.MULTILINE)
    expected = {(module, name) for module in MODULES for name in import_module(module).__all__}
    assert expected == set(entries)
    assert len(entries) == len(set(entries))
