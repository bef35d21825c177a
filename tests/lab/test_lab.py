"""The lab does what its policies mean: each kind of rule is tried with real packets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.generate import Case, cases
from tests.lab.lab import Lab
from tests.lab.model import (
    Entity,
    Felix,
    HostEndpoint,
    Model,
    Policy,
    Rule,
    Selector,
    Service,
    ServicePort,
    Tier,
)
from tests.lab.topology import OUTSIDE_OTHER_V4, OUTSIDE_V4, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.model import Release

pytestmark = pytest.mark.kernel

CLUSTER = small_cluster()
SECURITY = (Tier("default", 1_000_000), Tier("security", 100))
WEB = Selector("app", ("web",))
HOST = Selector("host", ("node2",))
HOST_ENDPOINTS = (HostEndpoint("node2-eth0", "node2", "eth0", {"host": "node2"}),)
ALLOW = (Rule("Allow"),)
DENY = (Rule("Deny"),)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(CLUSTER) as built:
        yield built


def verdicts(lab: Lab, model: Model, *flows: tuple[str, str, str, int | None], version: int = 4) -> list[str]:
    lab.program(model)
    wanted = [lab.flow(source, target, protocol, port, version) for source, target, protocol, port in flows]
    return [outcome.verdict for outcome in lab.send_all(wanted)]


TO_WEB = ("red/cli1", "blue/web2", "tcp", 80)
TO_DB = ("red/cli1", "red/db2", "tcp", 80)


@pytest.mark.parametrize("version", [4, 6])
def test_without_policies_profiles_let_everything_pass(lab: Lab, version: int) -> None:
    places = list(CLUSTER.places)
    flows = [
        (a, b, p, n) for a in places for b in places if a != b for p, n in (("tcp", 80), ("udp", 53), ("icmp", None))
    ]
    assert set(verdicts(lab, Model(), *flows, version=version)) == {"allowed"}


def test_a_deny_rule_stops_what_it_matches_and_counts_it(lab: Lab) -> None:
    policy = Policy("GlobalNetworkPolicy", "no-web", selector=WEB, ingress=(Rule("Deny", "tcp"), Rule("Allow")))
    lab.program(Model(policies=(policy,)))
    before = lab.counters()
    assert lab.send(lab.flow(*TO_WEB)).verdict == "denied"
    chains = {key.chain for key in lab.moved(before)["node2"]}
    assert "filter-cali-pi-gnp/no-web" in chains
    assert verdicts(lab, lab.model, TO_WEB, ("red/cli1", "blue/web2", "udp", 53), TO_DB) == [
        "denied",
        "allowed",
        "allowed",
    ]


def test_counters_stand_still_without_traffic(lab: Lab) -> None:
    lab.program(Model())
    # A socket that an earlier test closed may still say so, on a busy machine.
    assert any(not any(lab.moved(lab.counters()).values()) for _ in range(20))
    before = lab.counters()
    lab.send(lab.flow(*TO_WEB))
    assert all(lab.moved(before).values())


def test_selected_but_not_allowed_is_denied_at_the_end_of_the_tier(lab: Lab) -> None:
    named = Entity(ports=("http",))
    policy = Policy(
        "NetworkPolicy", "web", "default", "blue", selector=WEB, ingress=(Rule("Allow", "tcp", destination=named),)
    )
    model = Model(policies=(policy,))
    assert verdicts(lab, model, TO_WEB, ("red/cli1", "blue/web2", "tcp", 8080)) == ["allowed", "denied"]
    passing = replace(model, tiers=(Tier("default", 1_000_000, "Pass"),))
    assert verdicts(lab, passing, ("red/cli1", "blue/web2", "tcp", 8080)) == ["allowed"]


def test_pass_goes_to_the_next_tier(lab: Lab) -> None:
    first = Policy("GlobalNetworkPolicy", "s", "security", selector=WEB, ingress=(Rule("Pass", "tcp"), Rule("Allow")))
    second = Policy("GlobalNetworkPolicy", "d", selector=WEB, ingress=DENY)
    found = verdicts(lab, Model(SECURITY, (first, second)), TO_WEB, ("red/cli1", "blue/web2", "udp", 53))
    assert found == ["denied", "allowed"]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule("Allow", "tcp", source=Entity(nets=("10.244.1.12/32", "10.9.0.0/16"))), "allowed"),
        (Rule("Allow", "tcp", source=Entity(nets=("10.244.2.0/24", "10.9.0.0/16"))), "denied"),
        (Rule("Allow", source=Entity(nets=("10.0.0.0/8",), not_nets=("10.244.1.0/24",))), "denied"),
        (Rule("Allow", source=Entity(nets=("10.0.0.0/8",), not_nets=("10.244.2.0/24",))), "allowed"),
        (Rule("Allow", "tcp", destination=Entity(ports=tuple(range(70, 90)))), "allowed"),
        (Rule("Allow", "tcp", destination=Entity(ports=tuple(range(90, 110)))), "denied"),
        (Rule("Allow", "tcp", destination=Entity(ports=(443, "http"))), "allowed"),
        (Rule("Allow", "tcp", destination=Entity(not_ports=(80, 81))), "denied"),
        (Rule("Allow", not_protocol="udp"), "allowed"),
        (Rule("Allow", not_protocol="tcp"), "denied"),
        (Rule("Allow", source=Entity(selector=Selector("app", ("client",), namespace="red"))), "allowed"),
        (Rule("Allow", source=Entity(selector=Selector("app", ("client",), namespace="blue"))), "denied"),
        (Rule("Allow", source=Entity(not_selector=Selector("app", ("client",)))), "denied"),
        (Rule("Allow", ip_version=6), "denied"),
        (Rule("Log"), "denied"),
    ],
)
def test_rules_match_what_they_say(lab: Lab, rule: Rule, expected: str) -> None:
    policy = Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=(rule,))
    assert verdicts(lab, Model(policies=(policy,)), TO_WEB) == [expected]


def test_icmp_types(lab: Lab) -> None:
    ping = ("red/cli1", "blue/web2", "icmp", None)
    for rule, expected in (
        (Rule("Allow", "icmp", icmp_type=8, ip_version=4), "allowed"),
        (Rule("Allow", "icmp", icmp_type=3, ip_version=4), "denied"),
        (Rule("Allow", "icmp", icmp_type=8, icmp_code=0, ip_version=4), "allowed"),
        (Rule("Allow", "icmp", not_icmp_type=8, ip_version=4), "denied"),
    ):
        policy = Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=(rule,))
        assert verdicts(lab, Model(policies=(policy,)), ping) == [expected]


def test_a_staged_policy_does_nothing_and_reject_is_heard(lab: Lab) -> None:
    policy = Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=DENY)
    assert verdicts(lab, Model(policies=(replace(policy, staged=True),)), TO_WEB) == ["allowed"]
    rejecting = Model(policies=(policy,), felix=Felix(deny_action="Reject"))
    assert verdicts(lab, rejecting, TO_WEB, ("red/cli1", "blue/web2", "udp", 53)) == ["rejected", "rejected"]


@pytest.mark.parametrize(
    ("action", "expected"), [("Accept", "allowed"), ("Drop", "denied"), ("Reject", "rejected"), ("Return", "allowed")]
)
def test_a_pods_own_node(lab: Lab, action: str, expected: str) -> None:
    model = Model(felix=Felix(endpoint_to_host=action))  # type: ignore[arg-type]
    assert verdicts(lab, model, ("red/cli1", "node1", "tcp", 80), ("node1", "red/cli1", "tcp", 80)) == [
        expected,
        "allowed",
    ]


def test_host_endpoint_denies_by_default_except_failsafes(lab: Lab) -> None:
    model = Model(host_endpoints=HOST_ENDPOINTS)
    flows = [("external", "node2", "tcp", port) for port in (80, 22)] + [("external", "red/db2", "tcp", 80)]
    # Forwarded traffic is not the host endpoint's business without applyOnForward.
    assert verdicts(lab, model, *flows) == ["denied", "allowed", "allowed"]
    allowing = Policy("GlobalNetworkPolicy", "h", selector=HOST, ingress=ALLOW, egress=ALLOW)
    assert verdicts(lab, replace(model, policies=(allowing,)), *flows) == ["allowed"] * 3


def test_apply_on_forward_and_pre_dnat_see_forwarded_traffic(lab: Lab) -> None:
    service = Service("red", "web", (ServicePort(80, 80, "tcp", "", 30080),), "10.96.1.1", "", ("red/db2",))
    normal = Policy("GlobalNetworkPolicy", "open", selector=HOST, ingress=ALLOW, egress=ALLOW)
    forward = Policy("GlobalNetworkPolicy", "f", selector=HOST, ingress=DENY, apply_on_forward=True, order=5)
    guarded = Entity(ports=(30080,))
    guard = Policy(
        "GlobalNetworkPolicy",
        "g",
        selector=HOST,
        ingress=(Rule("Deny", "tcp", destination=guarded),),
        pre_dnat=True,
        apply_on_forward=True,
    )
    model = Model(host_endpoints=HOST_ENDPOINTS, services=(service,), policies=(normal,))
    flows = [("external", "node2", "tcp", 30080), ("external", "red/db2", "tcp", 80)]
    assert verdicts(lab, model, *flows) == ["allowed", "allowed"]
    assert verdicts(lab, replace(model, policies=(normal, forward)), *flows) == ["denied", "denied"]
    assert verdicts(lab, replace(model, policies=(normal, guard)), *flows) == ["denied", "allowed"]


def test_a_wildcard_host_endpoint_covers_eth0_but_not_pods(lab: Lab) -> None:
    model = Model(host_endpoints=(HostEndpoint("all", "node2", "*", {"host": "node2"}),))
    flows = [("external", "node2", "tcp", 80), ("node2", "red/db2", "tcp", 80), ("red/cli1", "red/db2", "tcp", 80)]
    assert verdicts(lab, model, *flows) == ["denied", "allowed", "allowed"]


def test_untracked_policy_is_stateless(lab: Lab) -> None:
    untracked = Policy(
        "GlobalNetworkPolicy", "u", selector=HOST, ingress=ALLOW, do_not_track=True, apply_on_forward=True
    )
    model = Model(host_endpoints=HOST_ENDPOINTS, policies=(untracked,))
    # UDP: a TCP answer without a conntrack entry slips past "ct status != dnat" in filter-cali-OUTPUT.
    flow = ("external", "node2", "udp", 53)
    assert verdicts(lab, model, flow) == ["denied"]  # the answer has no rule of its own
    both_ways = replace(untracked, egress=ALLOW)
    assert verdicts(lab, replace(model, policies=(both_ways,)), flow) == ["allowed"]


def test_a_spoofed_source_is_dropped_by_the_reverse_path_check(lab: Lab) -> None:
    lab.program(Model())
    pod = lab.namespace("red/cli1")
    namespaces.ip(pod, ["addr add 10.9.9.9/32 dev eth0"])
    try:
        before = lab.counters()
        spoofed = replace(lab.flow(*TO_WEB), source_address="10.9.9.9")
        assert lab.send(spoofed).verdict == "denied"
        last = max(lab.moved(before)["node1"], key=lambda key: (key.chain == "raw-cali-PREROUTING", key.handle))
    finally:
        namespaces.ip(pod, ["addr del 10.9.9.9/32 dev eth0"])
    listing = namespaces.run(lab.namespace("node1"), ["nft", "-a", "list", "chain", "ip", "calico", last.chain])
    assert "fib saddr" in next(line for line in listing.splitlines() if line.endswith(f"# handle {last.handle}"))


def test_connections_outlive_a_new_policy_until_they_are_forgotten(lab: Lab) -> None:
    lab.program(Model())
    first = replace(lab.flow("red/cli1", "blue/web2", "udp", 53), source_port=41000)
    assert lab.send(first).verdict == "allowed"
    denying = Model(policies=(Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=DENY),))
    lab.program(denying, forget=False)
    assert lab.send(first).verdict == "allowed"
    assert lab.send(replace(first, source_port=41001)).verdict == "denied"
    lab.program(denying)
    assert lab.send(first).verdict == "denied"


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(case=cases(CLUSTER, flows=10), data=st.data())
def test_every_shape_means_the_same(lab: Lab, case: Case, data: st.DataObject) -> None:
    """Releases, flow logs, groups, marks and the form of accepting change the rules, never the verdict."""
    single = [
        service if len(service.backends) < 2 else replace(service, backends=service.backends[:1])
        for service in case.model.services
    ]
    policies = tuple(replace(policy, staged=False) for policy in case.model.policies)
    model = replace(case.model, services=tuple(single), policies=policies)
    releases: tuple[Release, ...] = ("v3.29", "v3.30", "v3.31", "v3.32")
    shapes = [
        replace(
            model.felix,
            release=release,
            flow_logs=data.draw(st.booleans()),
            group_policies=data.draw(st.booleans()),
            mark_mask=data.draw(st.sampled_from([0xFFFF0000, 0x1F0F0000])),
        )
        for release in releases
    ]
    lab.program(model)
    wanted = lab.send_all(case.flows)
    for felix in shapes:
        lab.program(replace(model, felix=felix))
        found = lab.send_all(case.flows)
        differing = [x for x in zip(case.flows, wanted, found, strict=True) if x[1].verdict != x[2].verdict]
        assert not differing, f"{felix}: {differing}"


def test_questions_name_addresses_and_the_node_of_arrival(lab: Lab) -> None:
    web = CLUSTER.address("blue/web2")
    outside = lab.flow("external", "blue/web2", "tcp", 80)
    asked = {"from": OUTSIDE_V4, "to": f"{web}:80", "protocol": "tcp", "via": "node1"}
    assert lab.question(outside) == asked
    other = replace(outside, source_address=OUTSIDE_OTHER_V4)
    assert lab.question(other) == asked | {"from": OUTSIDE_OTHER_V4, "via": "node2"}
    assert lab.question(lab.flow("external", "node2", "tcp", 80))["via"] == "node2"
    inside = lab.flow("red/cli1", "blue/web2", "icmp", version=6)
    wanted = {"from": CLUSTER.address("red/cli1", 6), "to": CLUSTER.address("blue/web2", 6), "protocol": "icmpv6"}
    assert lab.question(inside) == wanted


def test_the_outside_client_arrives_where_its_address_says(lab: Lab) -> None:
    lab.program(Model())
    for flow in (lab.flow("external", "blue/web2", "tcp", 80), lab.flow("external", "10.96.1.1", "tcp", 80)):
        for source in (None, OUTSIDE_OTHER_V4):
            sent = replace(flow, source_address=source)
            before = lab.counters()
            lab.send(sent)
            touched = {node for node, rules in lab.moved(before).items() if rules}
            assert lab.via(sent) in touched


def test_a_vxlan_cluster_with_rules() -> None:
    need_lab()
    with Lab(small_cluster(vxlan=True, ipv6=False)) as lab:
        policy = Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=(Rule("Allow", "tcp"),))
        model = Model(policies=(policy,), felix=Felix(vxlan=True))
        lab.program(model)
        before = lab.counters()
        assert lab.send(lab.flow(*TO_WEB)).verdict == "allowed"
        assert "raw-cali-PREROUTING" in {key.chain for key in lab.moved(before)["node2"]}
        assert lab.send(lab.flow("red/cli1", "blue/web2", "udp", 53)).verdict == "denied"
        # To an address that is no pod, out of the tunnel's node: masqueraded, then back.
        assert lab.send(lab.flow("red/cli1", "external", "tcp", 80)).seen_source[0] == "172.30.0.11"  # type: ignore[index]


def test_a_bundle_holds_what_the_layout_names(lab: Lab, tmp_path: Path) -> None:
    policy = Policy("GlobalNetworkPolicy", "web", selector=WEB, ingress=DENY)
    lab.program(Model(policies=(policy,)))
    lab.send(lab.flow(*TO_DB))
    lab.evidence(tmp_path)
    node = tmp_path / "nodes" / "node1"
    ruleset = json.loads((node / "nft-ruleset.json").read_text())["nftables"]
    assert {entry["table"]["name"] for entry in ruleset if "table" in entry} == {"calico", "calico-arp", "kube-proxy"}
    routes = json.loads((node / "ip-route-all.json").read_text())
    assert any(route.get("dev", "").startswith("cali") for route in routes)
    assert "dport=80" in (node / "conntrack.txt").read_text()
    assert "net.ipv4.ip_forward = 1" in (node / "sysctl.txt").read_text()
    assert "FELIX_FELIXHOSTNAME=node1" in (node / "felix-env.txt").read_text()
    pods = json.loads((tmp_path / "cluster" / "pods.json").read_text())["items"]
    assert len(pods) == len(CLUSTER.pods)
    found = json.loads((tmp_path / "cluster" / "globalnetworkpolicies.crd.projectcalico.org.json").read_text())["items"]
    assert found[0]["spec"]["ingress"] == [{"action": "Deny"}]
    for file in tmp_path.rglob("*.json"):
        json.loads(file.read_text())
