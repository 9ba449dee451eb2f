import pytest

from floop_gateway_core.errors import ErrorCode
from floop_gateway_core.policy.routes import Routes

GOOD = {"fast": ["a"], "smart": ["a"], "reason": ["b", "a"], "mine": ["b"]}


def test_aliases_and_deployments_resolve_and_others_are_refused() -> None:
    routes = Routes(GOOD, ("a", "b"))
    assert [("b", "a"), ("b",), ("a",)] == [routes.resolve(alias) for alias in ("reason", "mine", "a")]
    assert routes.alias_refusal("auto") is None
    refusal = routes.alias_refusal("x" * 1000)
    assert refusal is not None
    assert (ErrorCode.INVALID_MODEL, False) == (refusal.code, "xxx" in refusal.message)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"fast": []}, "empty"),
        ({"auto": ["a"]}, "auto"),
        ({"a": ["a"]}, "name of a deployment"),
        ({"fast": ["c"]}, "is not a deployment"),
        ({"fast": ["a", "a"]}, "twice"),
    ],
)
def test_a_table_that_could_not_serve_is_an_error_that_says_why(change: dict[str, list[str]], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        Routes({**GOOD, **change}, ("a", "b"))


@pytest.mark.parametrize("missing", ["fast", "smart", "reason"])
def test_each_judged_alias_needs_a_route(missing: str) -> None:
    with pytest.raises(ValueError, match=missing):
        Routes({alias: route for alias, route in GOOD.items() if alias != missing}, ("a", "b"))
