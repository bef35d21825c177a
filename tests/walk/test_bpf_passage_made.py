"""Packets through a made-up node of the eBPF dataplane, for what no recording has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Tunnelled
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import TCP, UDP, Packet
from calico_debug.walk.passage import DELIVERED, SENT, UNDECIDED
from tests.evidence.bpf_node import POD, BpfNode
from tests.walk.made_bpf import (
    HERE,
    HOSTED,
    LINKS,
    OUTER,
    OUTSIDE,
    POD_IP,
    REMOTE_POD,
    SERVICE,
    THERE,
    made,
    packet,
)
from tests.walk.test_bpf_passage import new

NODE_PORT = 30080
ADDRESSES = json.dumps([{"ifname": "eth0", "addr_info": [{"family": "inet", "local": str(HERE), "prefixlen": 24}]}])
ROUTES = json.dumps(
    [
        *(
            {"dst": f"{service}/32", "dev": "bpfin.cali", "gateway": "169.254.1.1", "flags": ["onlink"]}
            for service in (SERVICE, HOSTED, OUTER)
        ),
        {"dst": "10.0.0.1", "dev": POD, "scope": "link"},
        {"dst": f"{REMOTE_POD}/32", "dev": "eth0", "gateway": str(THERE)},
        {"dst": "172.30.0.0/24", "dev": "eth0", "scope": "link"},
        {"dst": "default", "dev": "eth0", "gateway": "172.30.0.254"},
        {"type": "local", "dst": str(HERE), "dev": "eth0", "table": "local", "scope": "host"},
    ]
)
TCX = [
    *(BpfNode.hook("tcx/ingress", 10), BpfNode.hook("tcx/egress", 11)),
    {"ifindex": 1, "ifname": "lo", "hook": "tcx/egress", "prog_ids": [11]},
    {"ifindex": 2, "ifname": "eth0", "hook": "tcx/ingress", "prog_ids": [10]},
    {"ifindex": 2, "ifname": "eth0", "hook": "tcx/egress", "prog_ids": [11]},
]
FILES = {
    "ip-route-all.json": ROUTES,
    "ip-rule.json": json.dumps([{"priority": n, "src": "all", "table": t} for n, t in ((0, "local"), (9, "main"))]),
    "ip-addr.json": ADDRESSES,
    "ip-link.json": json.dumps([{"ifindex": 1, "ifname": "lo", "flags": ["UP"]}, *json.loads(LINKS)]),
    "nft-ruleset.json": '{"nftables": []}',
    "sysctl.txt": "net.ipv4.ip_forward = 1\n",
}

Asked = tuple[str, str, tuple[int, int | None] | None, bool]
"""Interface, hook, the service's address, and whether the packet is taken for forwarded."""


def walker() -> tuple[NodeWalker, list[Asked]]:
    """A node whose policies let everything pass, and which notes what it asked them."""
    asked: list[Asked] = []
    datapath = made(files=FILES, tcx=TCX)

    def policy(_asking: Packet, interface: str, hook: str, before: Any, _chooser: Chooser, forwarded: bool) -> None:
        asked.append((interface, hook, before, forwarded))

    datapath.policy = policy  # type: ignore[assignment,method-assign]
    found = NodeWalker(datapath._state)
    found._datapath = datapath
    return found, asked


@pytest.mark.parametrize(("backend", "leaves"), [(0, POD), (1, "eth0")])
def test_the_host_s_own_packets_to_services_meet_the_policy_behind_the_service_device(
    backend: int, leaves: str
) -> None:
    """A host endpoint of all interfaces has its policy there, whatever backend was picked."""
    node, asked = walker()
    assert node.send(packet(HERE, SERVICE), new, Chooser((backend,))).interface == leaves
    assert asked[0] == ("bpfout.cali", "ingress", (int(SERVICE), 80), False)


def test_a_service_of_the_node_s_own_process() -> None:
    node, asked = walker()
    passed = node.send(packet(HERE, HOSTED), new, Chooser())
    assert (passed.ending, passed.packet.destination, passed.packet.dport) == (DELIVERED, int(HERE), 9100)
    assert [interface for interface, *_ in asked] == ["bpfout.cali"]


def test_a_service_outside_is_forwarded_to() -> None:
    """The host's stack has to route it (SKIP_FIB), and for the program at eth0 it is not the host's own any more."""
    node, asked = walker()
    assert node.send(packet(HERE, OUTER), new, Chooser()).packet.destination == int(OUTSIDE)
    assert [(interface, forwarded) for interface, _, _, forwarded in asked] == [("bpfout.cali", False), ("eth0", True)]


def test_the_node_s_own_port_is_translated_at_its_loopback_device() -> None:
    node, asked = walker()
    passed = node.send(packet(HERE, HERE, NODE_PORT), new, Chooser())
    assert (passed.ending, passed.interface, passed.packet.destination) == (SENT, POD, int(POD_IP))
    assert [one[:2] for one in asked] == [(POD, "egress")]
    other = node.send(packet(HERE, HERE, 22), new, Chooser())
    assert (other.ending, len(asked)) == (DELIVERED, 1)


@pytest.mark.parametrize(("port", "protocol", "doubt"), [(30053, UDP, "own UDP"), (30091, TCP, "host's network")])
def test_a_node_s_own_way_to_node_ports_is_not_always_known(port: int, protocol: int, doubt: str) -> None:
    node, _ = walker()
    for destination in (HERE, THERE):
        passed = node.send(packet(HERE, destination, port, protocol), new, Chooser())
        assert passed.ending == UNDECIDED
        assert doubt in passed.trace.undecided


def test_a_tunnelled_packet_still_has_the_service_s_address() -> None:
    """Policy before translation sees it on the backend's node."""
    node, asked = walker()
    passed = node.receive(packet(OUTSIDE, THERE, NODE_PORT), "eth0", new, Chooser())
    assert not any(isinstance(event, Tunnelled) for event in passed.trace.events)  # THERE is not this node's
    sent = packet(OUTSIDE, SERVICE)
    passed = node.receive(sent, "eth0", new, Chooser((1,)))
    assert any(isinstance(event, Tunnelled) for event in passed.trace.events)
    arriving = passed.packet.on_the_wire(keep_mark=False)
    assert arriving.service == (int(SERVICE), 80)
    asked.clear()
    arriving.destination = int(POD_IP)
    after = node.receive(arriving, "eth0", new, Chooser())
    assert [before for *_, before, _ in asked] == [(int(SERVICE), 80)] * 2
    assert after.packet.on_the_wire(keep_mark=False).service is None
    assert after.packet.tracking is not None
    assert after.packet.tracking.state == STATE_BITS["new"]
