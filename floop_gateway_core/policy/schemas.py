"""JSON schemas: checks for what vendors are known to reject in an answer's schema, made before anything is held.

Sources: OpenAI's guide *Structured outputs*, section *Supported schemas*, and Anthropic's *Structured outputs*, section
*JSON Schema limitations*, both read in 2026. What is not listed there is left to the vendor.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from floop_gateway_core.types.schemas import LISTS, MAPS, SINGLE, VALUES

__all__ = ["ANTHROPIC_RULES", "OPENAI_RULES", "SchemaFault", "SchemaRules", "schema_fault"]


MAX_CHECKED = 200_000
"""The longest schema that is looked at, in characters: vendors take shorter ones."""


@dataclass(frozen=True, slots=True)
class SchemaRules:
    """What a vendor refuses: `forbidden` keywords, and what the flags say."""

    forbidden: frozenset[str]
    root_is_object: bool = False
    all_required: bool = False
    recursion: bool = True
    most_min_items: int | None = None
    strict_only: bool = False
    """Whether the rules hold only for a schema that is sent with `strict`."""
    own_servers_only: bool = False
    """Whether the rules are the vendor's own, and not those of every server that speaks its dialect."""


OPENAI_RULES = SchemaRules(
    frozenset(
        {
            "allOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties",
            "unevaluatedProperties", "propertyNames", "minProperties", "maxProperties", "unevaluatedItems", "contains",
            "minContains", "maxContains", "uniqueItems",
        }
    ),
    root_is_object=True,
    all_required=True,
    strict_only=True,
    own_servers_only=True,
)  # fmt: skip
ANTHROPIC_RULES = SchemaRules(
    frozenset({*VALUES, "maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties", "not", "if"}),
    recursion=False,
    most_min_items=1,
)


@dataclass(frozen=True, slots=True)
class SchemaFault:
    """What is wrong, and where: `path` is within the schema, such as `.properties.age.minimum`."""

    path: str
    message: str


def schema_fault(schema: str, rules: SchemaRules) -> SchemaFault | None:
    """Return the first part of a schema (JSON text, an object) that the vendor refuses, or None.

    A schema beyond `MAX_CHECKED` is left to the vendor.

    >>> schema_fault('{"type": "array", "items": {"minimum": 1}}', ANTHROPIC_RULES)
    SchemaFault(path='.items.minimum', message='is not supported by the models of this route')
    """
    if len(schema) > MAX_CHECKED:
        return None
    root = json.loads(schema)
    if rules.root_is_object and (root.get("type") != "object" or "anyOf" in root):
        return SchemaFault("", "must have the type object at its root, without anyOf")
    for path, part in _parts(root):
        if (found := _fault(path, part, rules)) is not None:
            return found
    return None if rules.recursion else _recursion(root)


def _fault(path: str, part: Mapping[str, Any], rules: SchemaRules) -> SchemaFault | None:
    for name in part:
        if name in rules.forbidden:
            return SchemaFault(f"{path}.{name}", "is not supported by the models of this route")
    least = part.get("minItems")
    if rules.most_min_items is not None and isinstance(least, int) and least > rules.most_min_items:
        return SchemaFault(f"{path}.minItems", f"must be at most {rules.most_min_items} for the models of this route")
    properties = part.get("properties")
    if part.get("type") != "object" and not isinstance(properties, dict):
        return None
    if part.get("additionalProperties") is not False:
        return SchemaFault(f"{path}.additionalProperties", "must be false for the models of this route")
    if rules.all_required and isinstance(properties, dict):
        required = part.get("required")
        missing = [name for name in properties if not isinstance(required, list) or name not in required]
        if missing:
            return SchemaFault(
                f"{path}.required", f"must name every property for the models of this route: {missing[0]:.100}"
            )
    return None


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield a schema and all schemas in it, with their paths; names of properties are not keywords."""
    left: list[tuple[str, Any]] = [("", schema)]
    while left:
        path, part = left.pop()
        if not isinstance(part, dict):
            continue
        yield path, part
        found: list[tuple[str, Any]] = []
        for name, value in part.items():
            if name in MAPS and isinstance(value, dict):
                found += [(f"{path}.{name}.{key}", one) for key, one in value.items()]
            elif name in LISTS and isinstance(value, list):
                found += [(f"{path}.{name}[{place}]", one) for place, one in enumerate(value)]
            elif name in SINGLE:
                found.append((f"{path}.{name}", value))
        left += reversed(found)


def _recursion(root: Mapping[str, Any]) -> SchemaFault | None:
    """Return a reference that makes a schema contain itself, if there is one."""
    references = {
        "#": _references({name: part for name, part in root.items() if name not in ("$defs", "definitions")}, "")
    }
    for where in ("$defs", "definitions"):
        if isinstance(named := root.get(where), dict):
            for name, part in named.items():
                references[f"#/{where}/{name}"] = _references(part, f".{where}.{name}")
    done: set[str] = set()
    for start in references:
        above = {} if start in done else {start: iter(references[start])}  # the current path, in order
        while above:
            name, rest = next(reversed(above.items()))
            for target, path in rest:
                if target == "#" or target in above:
                    return SchemaFault(
                        path, "makes the schema recursive, which the models of this route do not support"
                    )
                if target in references and target not in done:
                    above[target] = iter(references[target])
                    break
            else:
                del above[name]
                done.add(name)
    return None


def _references(schema: Any, at: str) -> list[tuple[str, str]]:
    """Return the references of a schema, each with its path."""
    parts = _parts(schema) if isinstance(schema, dict) else ()
    return [(part["$ref"], f"{at}{path}.$ref") for path, part in parts if isinstance(part.get("$ref"), str)]
