"""The programs' decisions around policy, each from maps of a made-up node."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.state.node import NodeState
from calico_debug.walk.bpf_datapath import (
    EGRESS,
    INGRESS,
    Backend,
    BpfDatapath,
    Refusal,
    is_neighbour_discovery,
)
from calico_debug.walk.choices import Chooser, explore
from calico_debug.walk.packet import ICMPV6, TCP, UDP, Packet
from tests.evidence.bpf_node import POD, SETTINGS, BpfNode, Entries

A = ip_address
POD_IP, OTHER_POD, REMOTE_POD = A("10.0.0.1"), A("10.0.0.7"), A("10.0.1.1")
HERE, THERE, OUTSIDE, BLACK, GREY = (
    A("172.30.0.1"),
    A("172.30.0.2"),
    A("198.51.100.1"),
    A("10.96.9.0"),
    A("10.96.9.1"),
)
SERVICE, CLOSED, EMPTY, EXCLUDED, LOCAL, STICKY, BROKEN = (A(f"10.96.0.{n}") for n in range(1, 8))
ANY_NODE = A("255.255.255.255")
IN_POOL, NAT_OUT, WORKLOAD, LOCAL_ROUTE, HOST, DROP, REJECT = 1, 2, 4, 8, 0x10, 0x100, 0x200
POD_FLAGS = IN_POOL | NAT_OUT | WORKLOAD | LOCAL_ROUTE
RPF, STRICT, EXCLUDE_HOSTS = 0x10, 0x20, 0x1000


def route(address: Any, flags: int, target: bytes = bytes(4)) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"prefix_length": 32, "address": address}, {"flags": flags, "next_hop_or_ifindex": target}


def service(address: Any, port: int = 80, **value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"prefix_length": 56, "address": address, "port": port, "protocol": TCP}, {"service_id": 1} | value


ENTRIES: Entries = {
    "cali_v4_routes": [
        route(POD_IP, POD_FLAGS, (3).to_bytes(4, "little")),
        route(OTHER_POD, POD_FLAGS, (4).to_bytes(4, "little")),
        route(REMOTE_POD, IN_POOL | WORKLOAD, THERE.packed),
        route(HERE, HOST | LOCAL_ROUTE),
        route(THERE, HOST),
        route(BLACK, DROP),
        route(GREY, REJECT),
    ],
    "cali_v4_nat_fe3": [
        service(SERVICE, count=2, local_count=1),
        service(CLOSED, count=0xFFFFFFFF),
        service(EMPTY, count=0),
        service(EXCLUDED, count=1, flags=4),
        service(LOCAL, count=2, local_count=0, flags=1),
        service(STICKY, count=2, affinity_timeout=60),
        service(BROKEN, count=1, service_id=9),
        service(ANY_NODE, 30080, count=1),
    ],
    "cali_v4_nat_be": [
        ({"service_id": 1, "ordinal": 0}, {"address": POD_IP, "port": 8080}),
        ({"service_id": 1, "ordinal": 1}, {"address": REMOTE_POD, "port": 8080}),
    ],
    "cali_v4_nat_aff": [
        (
            {"address": STICKY, "port": 80, "protocol": TCP, "client": POD_IP},
            {"address": REMOTE_POD, "port": 8080},
        )
    ],
    "cali_v4_fsafes2": [({"prefix_length": 32, "protocol": TCP, "port": 22, "flags": 0}, {})],
    "cali_v4_sprefix": [({"prefix_length": 64, "ifindex": 3, "address": OUTSIDE}, {})],
    "cali_iface4": [({"ifindex": 3}, {"flags": 3, "name": POD})],
}
LINKS = json.dumps(
    [
        {"ifindex": index, "ifname": name, "flags": ["UP"], "operstate": "UP"}
        for index, name in ((2, "eth0"), (3, POD), (4, "cali2"), (5, "bpfin.cali"))
    ]
)


def made(flags: int = 0, **changes: Any) -> BpfDatapath:
    node = BpfNode(ENTRIES)
    for name in ("cali_v4_nat_aff", "cali_v4_fsafes2", "cali_v4_sprefix"):
        node.add_map(name)
    node.files["bpf/pins.txt"] = "".join(f"/sys/fs/bpf/tc/globals/{name}\n" for name in node.ids)
    node.files["ip-link.json"] = LINKS
    block = SETTINGS.pack(
        {"interface": POD.ljust(15, "-"), "jumps": (0, 5, *([0xFFFFFFFF] * 38)), "flags": flags, "nat_in_ifindex": 5}
    )
    node.settings = dict.fromkeys(node.settings, block + block)
    for name, value in changes.items():
        setattr(node, name, value)
    return BpfDatapath(NodeState(node.evidence()))


def packet(source: Any, destination: Any, dport: int = 80, protocol: int = TCP) -> Packet:
    return Packet(source.version, protocol, int(source), int(destination), 40000, dport)


def from_pod(datapath: BpfDatapath, destination: Any, dport: int = 80) -> Packet:
    made = packet(POD_IP, destination, dport)
    made.incoming = datapath._state.interfaces[POD]
    return made


def translated(datapath: BpfDatapath, asked: Packet) -> list[Backend | Refusal | None]:
    return [one.result for one in explore(lambda chooser: datapath.translate(asked, chooser), 9)]


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


@pytest.mark.parametrize(
    ("source", "passes"),
    [(POD_IP, True), (OTHER_POD, False), (REMOTE_POD, False), (OUTSIDE, True), (A("9.9.9.9"), False)],
)
def test_a_pod_sends_from_its_own_and_from_allowed_addresses(datapath: BpfDatapath, source: Any, passes: bool) -> None:
    failure = datapath.reverse_path_failure(packet(source, SERVICE), POD)
    assert failure == "" if passes else str(source) in failure


def test_reverse_path_of_icmpv6(datapath: BpfDatapath) -> None:
    link_local = Packet(6, ICMPV6, int(A("fe80::1")), int(A("ff02::1")), icmp=(135, 0))
    assert datapath.reverse_path_failure(link_local, POD) == ""
    assert is_neighbour_discovery(link_local)
    redirect = Packet(6, ICMPV6, int(A("fd00::1")), int(A("fd00::2")), icmp=(137, 0))
    assert datapath.reverse_path_failure(redirect, POD)
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
    failure = made(flags).host_reverse_path_failure(packet(OUTSIDE, HERE), POD, back)
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
    assert made(flags).leaves_pools(packet(POD_IP, destination), POD) is leaves
    assert not made(flags).leaves_pools(packet(OUTSIDE, destination), POD)


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
    assert datapath.needs_host_routing(packet(source, destination), workload, backend) is expected


def test_blackholes_failsafes_and_tunnels(datapath: BpfDatapath) -> None:
    told = [datapath.blackholed(packet(POD_IP, one)) for one in (BLACK, GREY, SERVICE, REMOTE_POD)]
    assert told == ["blackhole-drop", "blackhole-reject", "", ""]
    assert datapath.failsafe(packet(OUTSIDE, HERE, 22), outbound=False)
    assert not datapath.failsafe(packet(OUTSIDE, HERE, 22), outbound=True)
    assert not datapath.failsafe(packet(OUTSIDE, HERE, 23), outbound=False)
    assert not datapath.failsafe(Packet(4, TCP, 1, 2), outbound=False)
    assert datapath.without_policy(packet(THERE, HERE, 4789, UDP))
    assert not datapath.without_policy(packet(OUTSIDE, HERE, 4789, UDP))


def test_interfaces(datapath: BpfDatapath) -> None:
    assert [datapath.attached(POD, hook) for hook in (INGRESS, EGRESS)] == [True, True]
    assert not datapath.attached("eth0", INGRESS)
    assert [datapath.is_workload(name) for name in (POD, "cali2", "gone")] == [True, False, False]
    assert [datapath.is_service_device(name) for name in ("bpfin.cali", POD, "gone")] == [True, False, False]


def test_placeholders_and_empty_slots() -> None:
    asked = packet(POD_IP, SERVICE)
    empty = made(slots={"cali_jump_ing2": {}, "cali_jump_egr2": {}, "cali_progs_ing2": {0: 20}, "cali_progs_egr2": {}})
    for hook in (INGRESS, EGRESS):
        refusal = empty.policy(asked, POD, hook, None, Chooser())
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "program-missing"
    programs = BpfNode().programs
    named = [
        one | {"name": {30: "calico_tc_deny", 31: "calico_tc_allow"}.get(one["id"], one["name"])} for one in programs
    ]
    placeholders = made(programs=named)
    denied = placeholders.policy(asked, POD, INGRESS, None, Chooser())
    assert isinstance(denied, Refusal)
    assert "default program that drops everything" in denied.detail
    assert placeholders.policy(asked, POD, EGRESS, None, Chooser()) is None
    assert placeholders.policy(asked, "eth0", INGRESS, None, Chooser()) is None
