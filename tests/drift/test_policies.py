"""Policies of endpoints, from views made by hand: what is said once, what is not compared."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.drift.policies import PolicyDrift
from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, TierView
from calico_debug.intent.applies import Applicability
from calico_debug.model.cluster import Cluster, HostEndpoint, Pod, PolicyObject
from calico_debug.model.explanation import Finding, PolicyRef


def policy(name: str, order: float, selector: str = "all()") -> PolicyObject:
    spec = {"selector": selector, "types": ["Ingress"], "order": order}
    return PolicyObject("GlobalNetworkPolicy", "", name, "default", order, spec)


POD = Pod("ns", "p", "n1", (ip_address("10.0.0.1"),), phase="Running")
CLUSTER = Cluster(pods=(POD,), policies=(policy("a", 1), policy("b", 2)), namespaces={"ns": {}})


def view(*names: str, family: int = 4, direction: str = "ingress") -> EndpointView:
    policies = tuple(PolicyView(PolicyRef("GlobalNetworkPolicy", name)) for name in names)
    tiers = (TierView("default", policies),) if names else ()
    return EndpointView("n1", "nftables", "cali1", "pod", direction, family, "", "", pod=("ns", "p"), tiers=tiers)


def told(cluster: Cluster, *views: EndpointView) -> tuple[list[tuple[str, str]], list[str]]:
    comparison = PolicyDrift("n1", Applicability(cluster))
    found = [(one.code, one.message) for one in comparison.compare(views)]
    return found, list(comparison.not_compared)


def test_the_same() -> None:
    assert told(CLUSTER, view("a", "b"), view(direction="egress")) == ([], [])


def test_both_ip_versions_say_it_once() -> None:
    found, _ = told(CLUSTER, view("a"), view("a", family=6))
    assert found == [("policy-missing", "GlobalNetworkPolicy b selects the pod for ingress and is not programmed")]


def test_order() -> None:
    found, _ = told(CLUSTER, view("b", "a"))
    assert found == [("policy-order", "ingress asks b, a; the API's order is a, b")]


def test_selectors_that_cannot_be_evaluated_are_said() -> None:
    odd = replace(CLUSTER, policies=(policy("a", 1), policy("b", 2, "!!! no selector")))
    found, not_compared = told(odd, view("a", "b"))
    assert not found
    assert len(not_compared) == 1
    assert not_compared[0].startswith("n1: GlobalNetworkPolicy b at pod ns/p: ")


def test_policy_that_could_not_be_read_is_not_compared() -> None:
    found, not_compared = told(CLUSTER, replace(view(), problem="unreadable", unread=True))
    assert not found
    assert not_compared == ["n1: policies of pod ns/p: unreadable"]


def test_a_view_without_policy_is_no_policy() -> None:
    found, _ = told(CLUSTER, replace(view(), problem="there is no policy program"))
    assert [code for code, _ in found] == ["endpoint-missing"]


def test_programs_read_from_their_code_alone_are_not_compared() -> None:
    bare = replace(view("a"), findings=(Finding("bpf-policy-debug-missing", "info", "no file"),))
    assert told(CLUSTER, bare) == ([], ["n1: policies of pod ns/p: no file"])


def test_ebpf_programs_of_pods_ask_host_endpoints_for_all_interfaces_too() -> None:
    host = HostEndpoint("all", "n1", "*", labels={"role": "host"})
    both = replace(CLUSTER, policies=(*CLUSTER.policies, policy("h", 3, "role == 'host'")), host_endpoints=(host,))
    found, _ = told(both, replace(view("a", "b", "h"), dataplane="ebpf"))
    assert not found
    found, _ = told(both, view("a", "b", "h"))
    assert [code for code, _ in found] == ["policy-left"]


def test_an_interface_without_a_pod() -> None:
    found, _ = told(CLUSTER, view("a", "b"), replace(view("a", direction="egress"), pod=None, interface="cali2"))
    assert [code for code, _ in found] == ["endpoint-left"]
