"""Schemas that vendors are known to refuse, and those that they take."""

import json
from typing import Any

import pytest

from floop_gateway_core.policy.schemas import ANTHROPIC_RULES, OPENAI_RULES, SchemaFault, schema_fault


def thing(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


GOOD = [
    thing(),
    thing(
        minimum={"type": "string"}, default={"type": "integer"}, oneOf={"enum": ["not", "if"]}
    ),  # names, not keywords
    thing(a={"anyOf": [{"type": "string"}, {"type": "null"}]}, b={"type": "array", "items": thing(c={"const": 1})}),
    {
        **thing(a={"$ref": "#/$defs/a"}, b={"$ref": "#/$defs/a"}),
        "$defs": {"a": thing(x={"$ref": "#/$defs/b"}), "b": thing()},
    },
]


@pytest.mark.parametrize("schema", GOOD)
def test_what_vendors_take_has_no_fault(schema: Any) -> None:
    assert schema_fault(json.dumps(schema), OPENAI_RULES) is None
    assert schema_fault(json.dumps(schema), ANTHROPIC_RULES) is None


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "array", "items": thing()}, ""),
        ({"anyOf": [thing(), thing()]}, ""),
        ({**thing(a={}), "required": []}, ".required"),
        ({**thing(a={}), "additionalProperties": True}, ".additionalProperties"),
        ({"type": "object"}, ".additionalProperties"),
        (thing(a={"oneOf": [{}, {}]}), ".properties.a.oneOf"),
        (thing(a={"type": "array", "items": {"allOf": [{}]}}), ".properties.a.items.allOf"),
        ({**thing(), "$defs": {"x": {"properties": {}}}}, ".$defs.x.additionalProperties"),
    ],
)
def test_openais_strict_schemas_are_closed(schema: Any, path: str) -> None:
    fault = schema_fault(json.dumps(schema), OPENAI_RULES)
    assert fault is not None
    assert path == fault.path


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (thing(n={"type": "integer", "minimum": 1}), ".properties.n.minimum"),
        (thing(n={"anyOf": [{"maxLength": 1}]}), ".properties.n.anyOf[0].maxLength"),
        (thing(n={"type": "array", "minItems": 2}), ".properties.n.minItems"),
        (thing(n={"type": "object"}), ".properties.n.additionalProperties"),
        (thing(n={"$ref": "#"}), ".properties.n.$ref"),
        (
            {**thing(a={"$ref": "#/$defs/a"}), "$defs": {"a": thing(b={"$ref": "#/$defs/a"})}},
            ".$defs.a.properties.b.$ref",
        ),
        (
            {**thing(), "$defs": {"a": thing(b={"$ref": "#/$defs/b"}), "b": thing(a={"$ref": "#/$defs/a"})}},
            ".$defs.b.properties.a.$ref",
        ),
    ],
)
def test_anthropics_schemas_have_no_limits_and_no_recursion(schema: Any, path: str) -> None:
    fault = schema_fault(json.dumps(schema), ANTHROPIC_RULES)
    assert fault is not None
    assert path == fault.path


def test_odd_schemas_raise_nothing() -> None:
    for odd in ({"properties": 1}, {"$defs": [1], "items": [{}]}, {"required": {}, "type": ["object"]}, {"$ref": 7}):
        for rules in (OPENAI_RULES, ANTHROPIC_RULES):
            found = schema_fault(json.dumps(odd), rules)
            assert found is None or isinstance(found, SchemaFault)


def test_a_deep_or_wide_schema_costs_its_length() -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"anyOf": [deep]}
    assert schema_fault(json.dumps(deep), ANTHROPIC_RULES) is None
    wide = {**thing(), "$defs": {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(4_000)}}
    assert schema_fault(json.dumps(wide), ANTHROPIC_RULES) is None
