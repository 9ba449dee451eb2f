"""For the documentation site: doctests in docstrings are shown as code (a Griffe extension, named in mkdocs.yml)."""

import re
from typing import Any

import griffe

__all__ = ["DoctestsAsCode"]

_DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class DoctestsAsCode(griffe.Extension):
    """Puts a fence around each doctest: Markdown would read `>>>` as quotes and `[True]` as a reference."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)
