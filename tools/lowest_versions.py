"""Prints the lowest versions that pyproject.toml declares as enough, as constraints for pip.

python tools/lowest_versions.py > constraints.txt
"""

import re
import tomllib
from pathlib import Path

RUNTIME_EXTRAS = ("asgi", "flask", "aiohttp", "dashboard", "postgres", "redis", "serve")


def main() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(one for extra in RUNTIME_EXTRAS for one in extras[extra])]
    found = (re.match(r"([\w.-]+)(?:\[\w+\])?>=([\d.]+)", requirement) for requirement in requirements)
    print(*sorted({f"{match[1]}=={match[2]}" for match in found if match}), sep="\n")


if __name__ == "__main__":
    main()
