"""Rules that did not match, in words."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.explain.closest_words import Asked, Unmet, by_clause, rule_in_words
from calico_debug.model.cluster import PolicyObject

ASKED = Asked(4, 6, 0x0A000001, 0x0A000002, 40000, 80, (8, 0), translated=True)


def words(failed: dict[str, Unmet], **rule: Any) -> str:
    """What is said behind the rule; without ``rule`` the object is not known."""
    spec = {"ingress": [{"action": "Allow", **rule}]}
    policy = PolicyObject("NetworkPolicy", "shop", "x", "default", None, spec) if rule else None
    said = rule_in_words(policy, "ingress", 0 if rule else None, 3, "Allow", failed, ASKED, _name)
    return said.partition("): ")[2]


def _name(_family: int, address: int) -> str:
    return "shop/web" if address == 0x0A000002 else ""


@pytest.mark.parametrize(
    ("kind", "unmet", "rule", "why"),
    [
        ("protocol", Unmet("udp"), {}, "protocol tcp is not udp"),
        ("protocol", Unmet("tcp", negated=True), {}, "protocol tcp is left out: not tcp"),
        (
            "protocol",
            Unmet("tcp", negated=True),
            {"notProtocol": "TCP"},
            "protocol tcp is left out: any protocol but TCP",
        ),
        ("source", Unmet(""), {}, "source 10.0.0.1 is not in the rule"),
        ("source", Unmet("", negated=True), {}, "source 10.0.0.1 is left out: not what the rule excludes"),
        (
            "source",
            Unmet("10.0.0.0/8", negated=True),
            {"source": {"nets": ["10.0.0.0/7"], "notNets": ["10.0.0.0/8"]}},
            "source 10.0.0.1 is left out: not 10.0.0.0/8",
        ),
        (
            "destination",
            Unmet("set s:x"),
            {"destination": {"selector": "a == 'b'", "notSelector": "c == 'd'"}},
            (
                "destination 10.0.0.2 (shop/web) is not among pods with a == 'b' in namespace shop, not endpoints with "
                "c == 'd'"
            ),
        ),
        ("destination ports", Unmet("443"), {}, "destination port 80 (after service translation) is not 443"),
        ("source ports", Unmet("1-9"), {}, "source port 40000 is not one of 1-9"),
        ("icmp", Unmet("type 0"), {}, "ICMP type 8 code 0 is not type 0"),
        ("other", Unmet(), {}, "a condition beyond addresses and ports does not hold"),
        (
            "destination ports",
            Unmet("set n:x", with_ports=True),
            {"destination": {"selector": "a == 'b'", "ports": ["http"]}},
            "destination 10.0.0.2 (shop/web) with port 80 is not port http of pods with a == 'b' in namespace shop",
        ),
        (
            "destination",
            Unmet("set svc:x", with_ports=True),
            {"destination": {"services": {"name": "web", "namespace": "shop"}}},
            "destination 10.0.0.2 (shop/web) with port 80 is not service shop/web",
        ),
        (
            "destination ports",
            Unmet("set n:x", negated=True, with_ports=True),
            {"destination": {"notPorts": ["http"]}},
            "destination 10.0.0.2 (shop/web) with port 80 is left out: not port http",
        ),
    ],
)
def test_why(kind: str, unmet: Unmet, rule: dict[str, Any], why: str) -> None:
    assert words({kind: unmet}, **rule) == why


@pytest.mark.parametrize(("name", "number"), [("ICMPv6", 58), ("UDPLite", 136)])
def test_protocols_that_programs_do_not_know_by_name(name: str, number: int) -> None:
    """ "protocol icmpv6 is not ICMPv6" would be no help."""
    spec = {"ingress": [{"action": "Allow", "protocol": name}]}
    policy = PolicyObject("GlobalNetworkPolicy", "", "x", "default", None, spec)
    asked = Asked(6, number, 1, 2, None, None)
    said = rule_in_words(policy, "ingress", 0, 0, "Allow", {"protocol": Unmet(name.lower())}, asked, _name)
    assert said.endswith(f"by name: write the number {number}")


def test_ports_of_another_protocol_do_not_count() -> None:
    failed = {"destination ports": 1, "icmp": 2, "source": 3, "protocol": 4}
    assert list(by_clause(failed)) == ["protocol", "source"]
    assert list(by_clause({"icmp": 1, "source": 2})) == ["source", "icmp"]
