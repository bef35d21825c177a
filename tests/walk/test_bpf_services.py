"""Service translation from the NAT maps of a made-up node."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.bpf_outcomes import Backend, Refusal
from calico_debug.walk.choices import explore
from calico_debug.walk.packet import UDP, Packet
from tests.walk.made_bpf import (
    BROKEN,
    CLOSED,
    EMPTY,
    EXCLUDED,
    LOCAL,
    OTHER_POD,
    OUTSIDE,
    POD_IP,
    REMOTE_POD,
    SERVICE,
    STICKY,
    THERE,
    from_pod,
    made,
    packet,
)


def translated(datapath: BpfDatapath, asked: Packet) -> list[Backend | Refusal | None]:
    return [one.result for one in explore(lambda chooser: datapath.services.translate(asked, chooser), 9)]


@pytest.fixture(scope="module")
def datapath() -> BpfDatapath:
    return made()


def test_every_backend_of_a_service(datapath: BpfDatapath) -> None:
    here, there = translated(datapath, from_pod(datapath, SERVICE))
    assert here == Backend(int(POD_IP), 8080, None, True)
    assert there == Backend(int(REMOTE_POD), 8080, int(THERE), True)


def test_what_is_no_service(datapath: BpfDatapath) -> None:
    asked = (
        from_pod(datapath, OTHER_POD),
        from_pod(datapath, SERVICE, 81),
        from_pod(datapath, EXCLUDED),
        Packet(4, 1, int(POD_IP), int(SERVICE), icmp=(8, 0)),
        packet(POD_IP, SERVICE, protocol=UDP),
    )
    assert [translated(datapath, one) for one in asked] == [[None]] * len(asked)


@pytest.mark.parametrize(
    ("address", "reason", "active"),
    [(CLOSED, "source-ranges", False), (EMPTY, "no-endpoints", True), (BROKEN, "no-endpoints", False)],
)
def test_services_that_refuse(datapath: BpfDatapath, address: Any, reason: str, active: bool) -> None:
    [refusal] = translated(datapath, from_pod(datapath, address))
    assert isinstance(refusal, Refusal)
    assert (refusal.reason, refusal.active) == (reason, active)
    assert str(address) in refusal.detail


def test_node_ports_of_other_nodes_are_translated_where_traffic_starts(datapath: BpfDatapath) -> None:
    assert translated(datapath, from_pod(datapath, THERE, 30080)) == [Backend(int(POD_IP), 8080, None, True)]
    assert translated(datapath, from_pod(datapath, OUTSIDE, 30080)) == [None]
    outside = packet(OUTSIDE, THERE, 30080)
    outside.incoming = datapath._state.interfaces["eth0"]
    assert translated(datapath, outside) == [None]


def test_local_policy_is_for_traffic_from_outside(datapath: BpfDatapath) -> None:
    assert len(translated(datapath, from_pod(datapath, LOCAL))) == 2
    outside = packet(OUTSIDE, LOCAL)
    outside.incoming = datapath._state.interfaces["eth0"]
    [refusal] = translated(datapath, outside)
    assert isinstance(refusal, Refusal)


def test_affinity_may_have_expired(datapath: BpfDatapath) -> None:
    """The map has the kernel's time since boot, which evidence cannot compare with: both are told."""
    stuck, *random = translated(datapath, from_pod(datapath, STICKY))
    assert stuck == Backend(int(REMOTE_POD), 8080, int(THERE), True)
    assert len(random) == 2
    assert len(translated(datapath, packet(OTHER_POD, STICKY))) == 2
