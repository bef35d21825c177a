from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from calico_debug.intent import fields
from calico_debug.intent.fields import Unreadable


@pytest.mark.parametrize(
    ("value", "number"), [(None, None), ("TCP", 6), ("icmpv6", 58), (47, 47), ("47", 47), ("UDPLite", 136), (0, 0)]
)
def test_protocols(value: Any, number: int | None) -> None:
    assert fields.protocol(value) == number


def test_ports() -> None:
    assert fields.ports([80, "81", "90:99", "http", "a.b-c_d"]) == (((80, 80), (81, 81), (90, 99)), ("http", "a.b-c_d"))
    assert fields.ports(None) == ((), ())


@pytest.mark.parametrize(
    ("read", "value"),
    [
        (fields.protocol, "tpc"),
        (fields.protocol, 256),
        (fields.protocol, True),
        (fields.protocol, 6.5),
        (fields.ports, "80"),
        (fields.ports, [-1]),
        (fields.ports, [65536]),
        (fields.ports, ["99:90"]),
        (fields.ports, ["a b"]),
        (fields.ports, [None]),
        (fields.network, "10.0.0.0/255.0.0.0"),
        (fields.network, "host"),
        (fields.network, 10),
        (fields.networks, "10.0.0.0/8"),
        (fields.selector, "a ="),
        (fields.pod_selector, "app"),
        (fields.pod_selector, {"matchLabels": {"a": 1}}),
        (fields.pod_selector, {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
        (lambda value: fields.mapping(value, "x"), []),
        (lambda value: fields.mappings(value, "x"), [1]),
        (lambda value: fields.text(value, "x"), 1),
    ],
)
def test_what_the_api_would_refuse(read: Callable[[Any], object], value: Any) -> None:
    with pytest.raises(Unreadable):
        read(value)


def test_networks_and_addresses() -> None:
    assert [str(net) for net in fields.networks(["10.1.2.3/8", "fd00::1"])] == ["10.0.0.0/8", "fd00::1/128"]


def test_selectors_of_namespaces() -> None:
    assert fields.namespace_selector(None) == ""
    assert fields.namespace_selector({}) == "all()"
    assert fields.namespace_selector({"matchLabels": {"a": "b"}}) == "a == 'b'"
