"""Packets through a made-up node of the eBPF dataplane, for what no recording has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.walk.choices import Chooser
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import Packet
from tests.evidence.bpf_node import POD
from tests.walk.made_bpf import HERE, REMOTE_POD, SERVICE, THERE, made, packet
from tests.walk.test_bpf_passage import new

ADDRESSES = json.dumps([{"ifname": "eth0", "addr_info": [{"family": "inet", "local": str(HERE), "prefixlen": 24}]}])
ROUTES = json.dumps(
    [
        {"dst": f"{SERVICE}/32", "dev": "bpfin.cali", "gateway": "169.254.1.1", "flags": ["onlink"]},
        {"dst": "10.0.0.1", "dev": POD, "scope": "link"},
        {"dst": f"{REMOTE_POD}/32", "dev": "eth0", "gateway": str(THERE)},
        {"dst": "172.30.0.0/24", "dev": "eth0", "scope": "link"},
    ]
)


def walker() -> tuple[NodeWalker, list[tuple[str, str, bool]]]:
    """A node whose policies let everything pass, and which notes where it asked them for what address."""
    asked: list[tuple[str, str, bool]] = []
    files = {"ip-route-all.json": ROUTES, "ip-addr.json": ADDRESSES, "nft-ruleset.json": '{"nftables": []}'}
    datapath = made(files=files)

    def policy(asking: Packet, interface: str, hook: str, before: Any, *_: object) -> None:
        asked.append((interface, hook, before is not None))

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
    assert asked[0] == ("bpfout.cali", "ingress", True)
