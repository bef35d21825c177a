"""What routes and lists of addresses decide, from the maps of a made-up node."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.model.values import unknown
from calico_debug.walk.bpf_addresses import is_neighbour_discovery
from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.packet import ICMPV6, TCP, UDP, Packet
from tests.evidence.bpf_node import POD
from tests.walk.made_bpf import (
    BLACK,
    EXCLUDE_HOSTS,
    GREY,
    HERE,
    OTHER_POD,
    OUTSIDE,
    POD_IP,
    REMOTE_POD,
    RPF,
    SERVICE,
    STRICT,
    THERE,
    A,
    made,
    packet,
)


@pytest.fixture(scope="module")
def datapath() -> BpfDatapath:
    return made()


@pytest.mark.parametrize(
    ("source", "passes"),
    [(POD_IP, True), (OTHER_POD, False), (REMOTE_POD, False), (OUTSIDE, True), (A("9.9.9.9"), False)],
)
def test_a_pod_sends_from_its_own_and_from_allowed_addresses(datapath: BpfDatapath, source: Any, passes: bool) -> None:
    failure = datapath.addresses.reverse_path_failure(packet(source, SERVICE), POD)
    assert failure == "" if passes else str(source) in failure


def test_reverse_path_of_icmpv6(datapath: BpfDatapath) -> None:
    link_local = Packet(6, ICMPV6, int(A("fe80::1")), int(A("ff02::1")), icmp=(135, 0))
    assert datapath.addresses.reverse_path_failure(link_local, POD) == ""
    assert is_neighbour_discovery(link_local)
    redirect = Packet(6, ICMPV6, int(A("fd00::1")), int(A("fd00::2")), icmp=(137, 0))
    assert datapath.addresses.reverse_path_failure(redirect, POD)
    assert not is_neighbour_discovery(redirect)


@pytest.mark.parametrize(
    ("flags", "back", "passes"),
    [
        (0, None, True),
        (RPF, None, False),
        (RPF, "eth0", True),
        (RPF, POD, True),
        (RPF | STRICT, "eth0", False),
        (RPF | STRICT, POD, True),
    ],
)
def test_reverse_path_of_hosts(flags: int, back: str | None, passes: bool) -> None:
    failure = made(flags).addresses.host_reverse_path_failure(packet(OUTSIDE, HERE), POD, back)
    assert (failure == "") is passes


@pytest.mark.parametrize(
    ("destination", "flags", "leaves"),
    [
        (OUTSIDE, 0, True),
        (REMOTE_POD, 0, False),
        (HERE, 0, False),
        (THERE, 0, True),
        (THERE, EXCLUDE_HOSTS, False),
    ],
)
def test_what_leaves_the_pools(destination: Any, flags: int, leaves: bool) -> None:
    assert made(flags).addresses.leaves_pools(packet(POD_IP, destination), POD) is leaves
    assert not made(flags).addresses.leaves_pools(packet(OUTSIDE, destination), POD)


@pytest.mark.parametrize(
    ("source", "destination", "workload", "backend", "expected"),
    [
        (OUTSIDE, POD_IP, False, False, False),
        (OUTSIDE, A("9.9.9.9"), False, False, True),
        (OUTSIDE, REMOTE_POD, False, False, True),
        (OUTSIDE, REMOTE_POD, False, True, False),
        (POD_IP, OUTSIDE, True, False, False),
        (OUTSIDE, A("9.9.9.9"), True, False, True),
        (OUTSIDE, THERE, True, False, False),
    ],
)
def test_what_the_host_has_to_route(
    datapath: BpfDatapath, source: Any, destination: Any, workload: bool, backend: bool, expected: bool
) -> None:
    assert datapath.addresses.needs_host_routing(packet(source, destination), workload, backend) is expected


def test_blackholes_failsafes_and_tunnels(datapath: BpfDatapath) -> None:
    told = [datapath.addresses.blackholed(packet(POD_IP, one)) for one in (BLACK, GREY, SERVICE, REMOTE_POD)]
    assert told == ["blackhole-drop", "blackhole-reject", "", ""]
    assert datapath.addresses.failsafe(packet(OUTSIDE, HERE, 22), outbound=False)
    assert not datapath.addresses.failsafe(packet(OUTSIDE, HERE, 22), outbound=True)
    assert not datapath.addresses.failsafe(packet(OUTSIDE, HERE, 23), outbound=False)
    assert not datapath.addresses.failsafe(Packet(4, TCP, 1, 2), outbound=False)
    assert datapath.addresses.answers_failsafe(Packet(4, TCP, int(OUTSIDE), int(HERE), 53, 1)) is True
    assert datapath.addresses.answers_failsafe(Packet(4, TCP, int(OUTSIDE), int(HERE), 22, 1)) is False
    open_port = unknown(16, "not given")
    assert datapath.addresses.answers_failsafe(Packet(4, TCP, int(OUTSIDE), int(HERE), open_port, 1)) is None
    assert datapath.addresses.answers_failsafe(Packet(4, UDP, int(OUTSIDE), int(HERE), open_port, 1)) is False
    assert datapath.addresses.without_policy(packet(THERE, HERE, 4789, UDP))
    assert not datapath.addresses.without_policy(packet(OUTSIDE, HERE, 4789, UDP))
