"""Policies and services that mean something else in the other dataplane."""

from __future__ import annotations

from typing import Any

import pytest

from tests.switch.sources import Json, checked, found, items
from tests.switch.test_installation import FELIX, felix

POLICIES = "networkpolicies.crd.projectcalico.org.json"
SERVICES = "services.json"


def policy(**rule: object) -> list[Json]:
    spec = {"selector": "all()", "ingress": [{"action": "Allow", **rule}]}
    return [{"metadata": {"name": "default.p", "namespace": "stars"}, "spec": spec}]


@pytest.mark.parametrize(
    ("rule", "target", "code"),
    [
        ({"protocol": "ICMPv6"}, "ebpf", "protocol-name"),
        ({"notProtocol": "UDPLite"}, "ebpf", "protocol-name"),
        ({"protocol": 58}, "ebpf", ""),
        ({"protocol": "ICMPv6"}, "nftables", ""),
        ({"protocol": "SCTP"}, "ebpf", "unsupported"),
        ({"protocol": "SCTP"}, "iptables", ""),
        ({"protocol": "ICMP", "icmp": {"type": 3, "code": 4}}, "nftables", "icmp-type-and-code"),
        ({"protocol": "ICMP", "notICMP": {"type": 0, "code": 0}}, "nftables", "icmp-type-and-code"),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, "nftables", ""),
        ({"protocol": "ICMP", "icmp": {"type": 3, "code": 4}}, "ebpf", ""),
    ],
)
def test_rules(rule: dict[str, Any], target: str, code: str) -> None:
    wanted = {"protocol-name", "unsupported", "icmp-type-and-code"}
    report = checked("iptables", target, {POLICIES: policy(**rule)})
    found_here = [one for one in report.findings if one.code in wanted]
    assert [one.code for one in found_here] == ([code] if code else [])
    if code:
        assert "NetworkPolicy stars/default.p, ingress rule 0" in found_here[0].seen


def test_log() -> None:
    (one,) = found(checked("nft", "ebpf"), "log-rules")
    assert one[2].startswith("GlobalNetworkPolicy default-deny, ingress rule 0")
    assert not found(checked("bpf", "nftables"), "log-rules")
    assert not found(checked("nft", "ebpf", {"globalnetworkpolicies.crd.projectcalico.org.json": []}), "log-rules")


def test_settings_with_a_twin() -> None:
    lists = {FELIX: felix(iptablesFilterAllowAction="Return", logSeverityScreen="Info")}
    assert found(checked("iptables", "nftables", lists), "settings-of-iptables")[0][2].endswith("AllowAction")
    assert not found(checked("nft", "iptables", lists), "settings-of-iptables")
    assert not found(checked("iptables", "nftables", {FELIX: felix()}), "settings-of-iptables")


def test_services() -> None:
    report = checked("nft", "ebpf")
    (outside,) = found(report, "source-address")
    assert outside[2] == "2 services: management-ui/management-ui, yaobank/customer"  # the third is of policy Local
    assert found(report, "vxlan-between-nodes")[0][2].startswith("3 services")
    assert found(report, "services-refuse") == [("info", "", "yaobank/ghost")]
    assert not found(report, "session-affinity")


def test_services_do_not_matter_between_rules() -> None:
    for mode, target in (("nft", "iptables"), ("iptables", "nftables")):
        assert not {one.code for one in checked(mode, target).findings} & {"source-address", "services-refuse"}
    back = checked("bpf", "iptables")
    assert found(back, "source-address")
    assert not found(back, "vxlan-between-nodes")


def test_session_affinity_and_sctp() -> None:
    services = items("nft", SERVICES)
    services[0]["spec"]["sessionAffinity"] = "ClientIP"
    services[1]["spec"]["ports"][0]["protocol"] = "SCTP"
    report = checked("nft", "ebpf", {SERVICES: services})
    names = [f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in services[:2]]
    assert found(report, "session-affinity") == [("info", "", names[0])]
    assert f"SCTP (service {names[1]})" in found(report, "unsupported")[0][2]
