"""Files of assertions: what they may say, and what is said of those that do not."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.assertions import LARGEST, decode_assertions
from calico_debug.errors import UsageError
from calico_debug.model.assertion import EXPECTABLE, Expectation


def test_every_key() -> None:
    data = b"""\
flows:
  - {from: a/b, to: svc/c/d, protocol: 6, via: n, expect: denied, tier: t, policy: ns/p}

  - from: a/b
    to: 22:22
    expect: [denied, rejected]
"""
    assert decode_assertions(data, "f") == (
        Expectation(2, "a/b", "svc/c/d", ("denied",), "6", "n", "t", "ns/p"),
        Expectation(4, "a/b", "22:22", ("denied", "rejected")),
    )


def test_json_is_yaml() -> None:
    assert decode_assertions(b'{"flows": [{"from": "a", "to": "b", "expect": "allowed"}]}', "f")[0].source == "a"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f is empty: write flows:"),
        (b"[", "f is not YAML"),
        (b"\xff\xfe\x00", "f is not YAML"),
        (b"a: !!python/object:os.system x", "line 1: unknown key 'a'"),
        (b"- x", "f, line 1: not a mapping"),
        (b"flows: 3", '"flows" is no list'),
        (b"flows: []", '"flows" is no list'),
        (b"flows:\n- a", "f, line 2: not a mapping"),
        (b"flows:\n- {from: a, to: b}", 'f, line 2: "expect" is missing'),
        (b"flows:\n- {from: a, expect: denied}", 'f, line 2: "to" is missing'),
        (b"flows:\n- {from: a, to: b, expect: no}", "f, line 2: nothing can be expected to be 'no'"),
        (b"flows:\n- {from: a, to: b, expect: undetermined}", "nothing can be expected to be 'undetermined'"),
        (b"flows:\n- {from: a, to: b, expect: []}", '"expect" is an empty list'),
        (b"flows:\n- {from: a, to: b, expect: {a: b}}", "expect is not a text"),
        (b"flows:\n- {from: [a], to: b, expect: denied}", "from is not a text"),
        (b"flows:\n- {from: '', to: b, expect: denied}", "from is not a text"),
        (b"flows:\n- {from: a, to: b, expect: denied,\n   port: 3}", "f, line 3: unknown key 'port'"),
        (b"flows:\n- {from: a, from: a, to: b, expect: denied}", "'from' stands here twice"),
        (b"flows: " + b"[" * 5000, "f is not YAML"),
        (b" " * (LARGEST + 1), "more than 16 MiB"),
    ],
)
def test_what_is_no_file_of_assertions(data: bytes, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode_assertions(data, "f")
    assert message in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet="flows:-{}[]'\"&*!a \n", max_size=80).map(str.encode))
def test_nothing_else_is_raised(data: bytes) -> None:
    try:
        decode_assertions(data, "f")
    except UsageError:
        return


TEXTS = st.text(min_size=1, max_size=20)


@given(TEXTS, TEXTS, st.lists(st.sampled_from(EXPECTABLE), min_size=1, max_size=3))
def test_texts_come_through(source: str, destination: str, verdicts: list[str]) -> None:
    document = {"flows": [{"from": source, "to": destination, "expect": verdicts}]}
    found = decode_assertions(yaml.safe_dump(document, allow_unicode=False).encode(), "f")[0]
    assert (found.source, found.destination, found.verdicts) == (source, destination, tuple(verdicts))
