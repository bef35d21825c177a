from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.agent.evidence_routes import CONNECTION, LOOKUP, NETLINK
from calico_debug.agent.routes import TRACE
from calico_debug.agent.routing import Answer, Request, Route, find, problems


def nothing(_request: Request) -> Answer:
    return Answer([b""])


TABLE = [
    Route("GET", "/a", "a", "", "", nothing),
    Route("POST", "/a", "b", "", "", nothing),
    Route("GET", "/n/{node}", "c", "", "", nothing),
    Route("GET", "/n/{node}/f/{file}", "d", "", "", nothing),
    Route("GET", "/x.y", "e", "", "", nothing),
]


@pytest.mark.parametrize(
    ("method", "path", "name", "parameters"),
    [
        ("GET", "/a", "a", {}),
        ("POST", "/a", "b", {}),
        ("GET", "/n/n1", "c", {"node": "n1"}),
        ("GET", "/n/n1/f/bpf/x y.json", "d", {"node": "n1", "file": "bpf/x y.json"}),
    ],
)
def test_the_route_of_a_request(method: str, path: str, name: str, parameters: dict[str, str]) -> None:
    found = find(TABLE, method, path)
    assert not isinstance(found, set)
    assert (found[0].name, found[1]) == (name, parameters)


def test_paths_and_methods_that_nothing_answers() -> None:
    for path in ("/", "/a/", "/n/", "/n/a/b", "/n/a/f/", "/xzy", "/a\n"):
        assert find(TABLE, "GET", path) == set()
    assert find(TABLE, "DELETE", "/a") == {"GET", "POST"}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70000)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "10.0.0.1", "0a", "0A", "abc", "x" * 601])
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
SCHEMAS: list[dict[str, Any]] = [TRACE, NETLINK, CONNECTION, LOOKUP]
bodies = st.sampled_from(SCHEMAS).flatmap(
    lambda schema: st.tuples(
        st.just(schema),
        st.dictionaries(st.sampled_from([*schema["properties"], "other"]), values, max_size=8) | values,
    )
)


@given(bodies)
def test_what_is_wrong_is_what_the_schema_says(case: tuple[dict[str, Any], object]) -> None:
    schema, body = case
    valid = jsonschema.Draft202012Validator(schema).is_valid(body)
    # A number with a point is an integer to the schema where its fraction is zero, and never to us.
    if not any(isinstance(one, float) for one in _leaves(body)):
        assert (problems(body, schema) == "") == valid


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for one in value.values() for leaf in _leaves(one)]
    if isinstance(value, list):
        return [leaf for one in value for leaf in _leaves(one)]
    return [value]
