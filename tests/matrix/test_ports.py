"""Which ports are asked about."""

from __future__ import annotations

from dataclasses import replace

import pytest

from calico_debug.errors import UsageError
from calico_debug.matrix.model import Asked
from calico_debug.matrix.ports import MOST_PORTS, mentioned_ports, parse_port
from tests.intent.clusters import PODS, intent, policy


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("80", Asked(6, 80)),
        ("tcp/80", Asked(6, 80)),
        ("UDP/53", Asked(17, 53)),
        ("132/9", Asked(132, 9)),
        ("icmp", Asked(1)),
        ("icmpv6", Asked(58)),
        ("47", Asked(6, 47)),
    ],
)
def test_ports_as_typed(text: str, asked: Asked) -> None:
    assert parse_port(text) == asked


@pytest.mark.parametrize("text", ["", "0", "65536", "tcp", "tcp/", "icmp/8", "nobody/80", "300/1", "٣", "tcp/٣"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(UsageError, match="--port"):
        parse_port(text)


def test_ports_that_are_mentioned() -> None:
    rules = [{"action": "Allow", "protocol": "UDP", "destination": {"ports": [53, "5000:5010"]}}]
    made = intent(policy("GlobalNetworkPolicy", "dns", types=["Ingress"], ingress=rules))
    found = mentioned_ports(made.applicability, made.applicability.endpoints)
    assert found.asked == (Asked(6, 8080), Asked(17, 53), Asked(17, 5000), Asked(17, 5010))
    assert found.note == ""


def test_the_nearest_of_too_many() -> None:
    rules = [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [*range(1, MOST_PORTS + 5)]}}]
    made = intent(policy("GlobalNetworkPolicy", "many", types=["Ingress"], ingress=rules))
    found = mentioned_ports(made.applicability, made.applicability.endpoints)
    assert len(found.asked) == MOST_PORTS
    assert Asked(6, 8080) in found.asked
    assert found.note.startswith("5 more ports are named and not asked about")


def test_without_any() -> None:
    made = intent(pods=tuple(replace(one, named_ports=()) for one in PODS))
    found = mentioned_ports(made.applicability, made.applicability.endpoints)
    assert found.asked == (Asked(6, 80),)
    assert found.note.startswith("nothing names a port")
