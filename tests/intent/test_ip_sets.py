from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from calico_debug.intent.applies import Applicability
from calico_debug.intent.ip_sets import IpSet, ip_sets, members
from calico_debug.intent.selectors import parse, unique_id
from tests.intent.clusters import cluster, network_set, policy, service


def sets_of(rule: dict[str, Any], **more: Any) -> tuple[tuple[IpSet, ...], Applicability]:
    made = policy("GlobalNetworkPolicy", "p", ingress=[{"action": "Allow", **rule}])
    applicability = Applicability(cluster(made, **more))
    return ip_sets(applicability.policies[0].ingress[0]), applicability


def test_a_set_for_each_thing_that_a_rule_names() -> None:
    rule = {
        "protocol": "TCP",
        "source": {"notSelector": "has(c)", "services": {"namespace": "shop", "name": "api"}},
        "destination": {"selector": "a == 'b'", "ports": ["http"], "services": {"namespace": "shop", "name": "api"}},
    }
    found, _ = sets_of(rule)
    selector = parse("a == 'b'")
    assert [one.id for one in found] == [
        parse("has(c)").unique_id,
        unique_id("svcnoport", "shop/api"),
        unique_id("n", f"{selector.unique_id},tcp,http"),
        unique_id("svc", "shop/api"),
    ]


def test_a_positive_and_a_negative_selector_are_one_set() -> None:
    (one,) = sets_of({"destination": {"selector": "a == 'b'", "notSelector": "has(c)"}})[0]
    assert one.selector == parse("a == 'b' && !has(c)")
    (named,) = sets_of({"destination": {"selector": "a == 'b'", "notSelector": "has(c)", "ports": ["http"]}})[0]
    assert (named.named_port, named.selector) == ("http", one.selector)


def test_a_named_port_takes_the_selectors_place() -> None:
    side = {"selector": "app == 'db'", "ports": ["http"]}
    assert [one.id[:2] for one in sets_of({"protocol": "TCP", "destination": side})[0]] == ["n:"]
    numeric = {**side, "ports": ["http", 80]}
    assert [one.id[:2] for one in sets_of({"protocol": "TCP", "destination": numeric})[0]] == ["n:", "s:"]
    (any_protocol,) = sets_of({"destination": {"ports": ["http"]}})[0]
    assert (any_protocol.protocol, any_protocol.selector) == (None, parse(""))


def test_members() -> None:
    nets = (network_set("bad", ["198.51.100.0/24"], app="web"),)
    (one,), applicability = sets_of({"source": {"selector": "app in {'web', 'db'}"}}, network_sets=nets)
    found = members(applicability, one)
    texts = ("10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2", "198.51.100.0/24")
    assert found.found == {ip_network(text) for text in texts}
    assert found.doubts == ()
    (named,), applicability = sets_of({"protocol": "TCP", "source": {"selector": "app == 'web'", "ports": ["http"]}})
    assert members(applicability, named).found == {(ip_address("10.0.0.1"), 6, 8080), (ip_address("fd00::1"), 6, 8080)}
    (other,), applicability = sets_of({"protocol": "UDP", "source": {"ports": ["http"]}})
    assert members(applicability, other).found == frozenset()


def test_backends() -> None:
    rule = {"destination": {"services": {"namespace": "shop", "name": "api"}}}
    services = (service("api", ("10.0.0.2", 8080)), service("other", ("10.0.0.3", 1)))
    (one,), applicability = sets_of(rule, services=services)
    assert members(applicability, one).found == {(ip_address("10.0.0.2"), 6, 8080)}
    (without,), applicability = sets_of({"source": rule["destination"]}, services=services)
    assert members(applicability, without).found == {ip_network("10.0.0.2/32")}
    (gone,), applicability = sets_of(rule, services=services[1:])
    assert members(applicability, gone).found == frozenset()
    (unknown,), applicability = sets_of(rule)
    assert members(applicability, unknown).doubts


def test_members_that_are_not_certain() -> None:
    (one,), applicability = sets_of({"source": {"namespaceSelector": "team == 'a'"}}, namespaces={})
    found = members(applicability, one)
    assert found.found == frozenset()
    assert "labels" in found.doubts[0]
