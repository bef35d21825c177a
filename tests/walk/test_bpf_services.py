"""Service translation from the NAT maps of a made-up node."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.model.values import Partial, unknown
from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.bpf_maglev import maglev_hash
from calico_debug.walk.bpf_outcomes import Backend, Refusal
from calico_debug.walk.bpf_services import Services
from calico_debug.walk.choices import Chooser, explore
from calico_debug.walk.context import Undecided
from calico_debug.walk.packet import TCP, UDP, Packet
from tests.evidence.bpf_node import POD, BpfNode
from tests.walk.made_bpf import (
    BROKEN,
    CLOSED,
    EMPTY,
    ENTRIES,
    EXCLUDED,
    HOLE,
    LINKS,
    LOCAL,
    MAGLEV,
    OTHER_POD,
    OUTSIDE,
    POD_IP,
    REMOTE_POD,
    SERVICE,
    STICKY,
    TABLE,
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


def from_outside(datapath: BpfDatapath, sport: int | Partial) -> Packet:
    """At the interface that has programs, which is no pod's in ``datapath``."""
    asked = Packet(4, TCP, int(OUTSIDE), int(MAGLEV), sport, 80)
    asked.incoming = datapath._state.interfaces[POD]
    return asked


@pytest.fixture(scope="module")
def host() -> BpfDatapath:
    """As the node, where no pod is behind the interface with programs."""
    return made(entries=ENTRIES | {"cali_iface4": [({"ifindex": 3}, {"flags": 0xA, "name": POD})]})


def test_maglev_picks_by_the_packet_s_ends(host: BpfDatapath) -> None:
    """The slot is the compiled hash's (test_bpf_maglev), less the table's size."""
    seen = set()
    for sport in range(40000, 40100):
        slot = maglev_hash(4, TCP, int(OUTSIDE), sport, int(MAGLEV), 80) % TABLE
        [picked] = translated(host, from_outside(host, sport))
        if slot == HOLE:
            assert isinstance(picked, Refusal)
            assert not picked.active
        else:
            address, node = (REMOTE_POD, int(THERE)) if slot % 3 else (POD_IP, None)
            assert picked == Backend(int(address), 8080, node, True, maglev=True)
        seen.add(slot)
    assert len(seen) > TABLE / 2
    assert HOLE in seen


def test_maglev_without_a_source_port_may_pick_any(host: BpfDatapath) -> None:
    found = translated(host, from_outside(host, unknown(16, "not given")))
    backends = [one for one in found if isinstance(one, Backend)]
    assert {one.address for one in backends} == {int(POD_IP), int(REMOTE_POD)}
    assert len(found) == 3  # and the slot that is empty


def test_maglev_may_pick_any_where_addresses_were_replaced(host: BpfDatapath) -> None:
    """The hash is that of the original ones."""
    services = Services(host.lookups, host.hooks, host.addresses, hashes=False)
    found = [one.result for one in explore(lambda chooser: services.translate(from_outside(host, 4000), chooser), 9)]
    assert {one.address for one in found if isinstance(one, Backend)} == {int(POD_IP), int(REMOTE_POD)}


def test_maglev_is_for_traffic_from_outside(datapath: BpfDatapath) -> None:
    """A pod's traffic to the same service goes by the usual table, here one that drops it."""
    [refusal] = translated(datapath, from_pod(datapath, MAGLEV))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "source-ranges"


def test_maglev_without_the_table_s_size_is_open(host: BpfDatapath) -> None:
    asked = from_outside(host, 40000)
    asked.incoming = host._state.interfaces["eth0"]
    with pytest.raises(Undecided, match="size of its table on eth0"):
        host.services.translate(asked, Chooser())


def connecting(*hooks: str, exclude: str = "") -> BpfDatapath:
    """The node with connect-time programs at these cgroup hooks."""
    node = BpfNode(ENTRIES)
    used = [] if exclude == "services" else [node.ids["cali_v4_nat_fe3"]]
    numbers = {hook: 40 + place for place, hook in enumerate(hooks)}
    programs = [
        *node.programs,
        *(BpfNode.program(number, f"calico_{hook[:7]}_", used) for hook, number in numbers.items()),
    ]
    listed = [{"id": number, "attach_type": hook, "name": "calico_"} for hook, number in numbers.items()]
    tree = json.dumps([{"cgroup": "/run/calico/cgroup", "programs": listed}])
    return made(programs=programs, files={**node.files, "bpf/cgroup-tree.json": tree, "ip-link.json": LINKS})


def connected(datapath: BpfDatapath, asked: Packet) -> list[Backend | Refusal | None]:
    return [one.result for one in explore(lambda chooser: datapath.services.translate_at_connect(asked, chooser), 9)]


def test_processes_are_connected_to_backends() -> None:
    tcp = connecting("connect4", "connect6")
    assert {one.address for one in connected(tcp, packet(POD_IP, SERVICE)) if isinstance(one, Backend)} == {
        int(POD_IP),
        int(REMOTE_POD),
    }
    assert connected(tcp, packet(POD_IP, OTHER_POD)) == [None]
    assert connected(tcp, packet(POD_IP, SERVICE, protocol=UDP)) == [None]
    assert connected(tcp, Packet(4, TCP, int(POD_IP), int(SERVICE), 1, unknown(16, "not given"))) == [None]


def test_nothing_is_connected_without_programs(datapath: BpfDatapath) -> None:
    assert connected(datapath, packet(POD_IP, SERVICE)) == [None]
    assert connected(connecting("connect4", exclude="services"), packet(POD_IP, SERVICE)) == [None]
    assert connected(connecting("connect6"), packet(POD_IP, SERVICE)) == [None]


def test_udp_needs_sendmsg_programs() -> None:
    datapath = connecting("connect4", "sendmsg4")
    assert datapath.hooks.translates_at_connect(4, UDP)
    assert not datapath.hooks.translates_at_connect(6, UDP)
    assert not connecting("connect4").hooks.translates_at_connect(4, UDP)


def test_what_connect_does_with_odd_services() -> None:
    """Source ranges cannot be known yet, so tc sees to them; local policy for outside traffic does not matter."""
    datapath = connecting("connect4")
    assert connected(datapath, packet(POD_IP, CLOSED)) == [None]
    assert connected(datapath, packet(POD_IP, EXCLUDED)) == [None]
    [refused] = connected(datapath, packet(POD_IP, EMPTY))
    assert isinstance(refused, Refusal)
    assert refused.active
    assert "connect() fails" in refused.detail
    assert len(connected(datapath, packet(POD_IP, LOCAL))) == 2
    assert connected(datapath, packet(POD_IP, THERE, 30080)) == [Backend(int(POD_IP), 8080, None, True)]
    # Affinity is the whole node's, of client 0.0.0.0, and this entry is one pod's.
    assert len(connected(datapath, packet(POD_IP, STICKY))) == 2
