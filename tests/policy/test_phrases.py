from __future__ import annotations

from typing import Any

import pytest

from calico_debug.policy.phrases import LONGEST, label_selector, listed, namespaces, port_list, protocol_name, quote


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        ("all()", "any namespace"),
        ("", "any namespace"),
        ("has(kubernetes.io/metadata.name)", "any namespace"),
        ("global()", "no namespace"),
        ("kubernetes.io/metadata.name == 'stars'", "namespace stars"),
        ('projectcalico.org/name=="stars"', "namespace stars"),
        ("projectcalico.org/name in { 'stars', \"client\" }", "namespaces stars, client"),
        # more than a name: as it is written
        ("projectcalico.org/name != 'stars'", "namespaces with projectcalico.org/name != 'stars'"),
        ("projectcalico.org/name == 'a' || a == 'b'", "namespaces with projectcalico.org/name == 'a' || a == 'b'"),
        ("projectcalico.org/name in {}", "namespaces with projectcalico.org/name in {}"),
        (7, "namespaces with 7"),
    ],
)
def test_namespaces(selector: object, text: str) -> None:
    assert namespaces(selector) == text


@pytest.mark.parametrize(
    ("selector", "text"),
    [
        (None, ""),
        ({}, ""),
        ({"matchLabels": {"a": "b", "c": "d"}}, "a == 'b' && c == 'd'"),
        (
            {
                "matchLabels": {"a": "b"},
                "matchExpressions": [
                    {"key": "c", "operator": "In", "values": ["d", "e"]},
                    {"key": "f", "operator": "DoesNotExist"},
                    {"key": "g", "operator": "Near", "values": ["h"]},
                ],
            },
            "a == 'b' && c in {'d', 'e'} && !has(f) && g Near {'h'}",
        ),
        (["a"], "['a']"),
    ],
)
def test_label_selector(selector: object, text: str) -> None:
    assert label_selector(selector) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("tcp", "TCP"),
        ("icmpv6", "ICMPv6"),
        ("udplite", "UDPLite"),
        ("other", "other"),
        (47, "protocol 47"),
        ("47", "protocol 47"),
    ],
)
def test_protocol_name(value: object, text: str) -> None:
    assert protocol_name(value) == text


def test_lists_and_long_values() -> None:
    assert port_list([80, "8000:8010", "http"]) == "ports 80, 8000-8010, http"
    assert port_list([]) == ""
    assert listed(list(range(20))).endswith("11, 8 more")
    long = quote("x" * (LONGEST + 1))
    assert len(long) == LONGEST + 1
    assert long.endswith("…")
    nested: Any = []
    for _ in range(5000):
        nested = [nested]
    assert quote(nested)
