"""Where failsafes are from, and what they cover."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.lockout.failsafes import DEFAULTS, Failsafes, failsafes_of
from calico_debug.model.cluster import FelixConfiguration

PEER, STRANGER = ip_address("10.0.0.9"), ip_address("192.0.2.9")
INBOUND, OUTBOUND = "failsafeInboundHostPorts", "failsafeOutboundHostPorts"


def of(*configurations: FelixConfiguration, known: bool = True, **environment: str) -> Failsafes:
    return failsafes_of("node1", configurations, environment, known=known)


def default(**spec: object) -> FelixConfiguration:
    return FelixConfiguration("default", spec)


def test_defaults() -> None:
    found = of()
    assert found.origin == "Felix's defaults"
    assert found.problem == ""
    assert found.covers("ingress", 6, 22, STRANGER)
    assert found.covers("egress", 17, 53, STRANGER)
    assert not found.covers("ingress", 17, 53, STRANGER)
    assert not found.covers("ingress", 6, 10250, PEER)
    assert {len(ports) for ports in DEFAULTS.values()} == {9}


def test_a_list_takes_the_place_of_the_defaults() -> None:
    listed = [{"protocol": "TCP", "port": 2222, "net": "10.0.0.0/8"}]
    found = of(default(**{INBOUND: listed}))
    assert found.covers("ingress", 6, 2222, PEER)
    assert not found.covers("ingress", 6, 2222, STRANGER)
    assert not found.covers("ingress", 6, 22, PEER)
    assert found.covers("egress", 6, 6443, PEER)
    assert found.origin == "FelixConfiguration default and Felix's defaults"


def test_an_empty_list_is_none_at_all_and_null_the_defaults() -> None:
    assert not of(default(**{INBOUND: []})).ports["ingress"]
    assert of(default(**{INBOUND: None})).covers("ingress", 6, 22, PEER)


def test_that_of_the_node_goes_before_and_the_environment_before_both() -> None:
    own = FelixConfiguration("node.node1", {INBOUND: [{"protocol": "TCP", "port": 1}]})
    other = FelixConfiguration("node.node2", {INBOUND: []})
    everywhere = default(**{INBOUND: [{"protocol": "TCP", "port": 2}]})
    assert of(everywhere, own, other).covers("ingress", 6, 1, PEER)
    words = "udp:10.0.0.0/8:53, 179, tcp:[fd00::/8]:22"
    found = of(everywhere, own, FELIX_FAILSAFEINBOUNDHOSTPORTS=words)
    assert not found.covers("ingress", 6, 1, PEER)
    assert found.covers("ingress", 17, 53, PEER)
    assert found.covers("ingress", 6, 179, STRANGER)
    assert found.covers("ingress", 6, 22, ip_address("fd00::1"))
    assert not found.covers("ingress", 6, 22, PEER)
    assert not of(FELIX_FAILSAFEINBOUNDHOSTPORTS="none").ports["ingress"]


@pytest.mark.parametrize(
    "given", ["tcp:22", [7], [{"protocol": "TCP"}], [{"protocol": "?", "port": 1}], [{"port": 70000}], [{"port": True}]]
)
def test_what_felix_would_not_take_is_said(given: object) -> None:
    found = of(default(**{INBOUND: given}))
    assert "failsafeInboundHostPorts of node node1 is not understood" in found.problem
    assert "x is no port" not in of(FELIX_FAILSAFEOUTBOUNDHOSTPORTS="tcp:x").origin
    assert "'tcp:x' is no port" in of(FELIX_FAILSAFEOUTBOUNDHOSTPORTS="tcp:x").problem


def test_settings_that_are_not_in_evidence_are_said() -> None:
    assert "not in evidence" in of(known=False).problem
