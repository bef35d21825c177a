"""A made-up eBPF node with open TCP connections of its pod, for what happens to them."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from calico_debug.model.bpf_words import LEG_BITS
from tests.doctor.patients import bpf
from tests.evidence.memory import MemorySource
from tests.explain.world import Node, objects

POD, SERVER, SERVICE = (ip_address(text) for text in ("10.244.1.1", "10.244.2.1", "10.96.0.9"))
SEEN = sum(bit for name, bit in LEG_BITS.items() if name in ("syn-seen", "ack-seen", "approved"))


def entry(sport: int, service: object = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """An established connection of the pod's, to the server or through the service."""
    key = {"protocol": 6, "address_a": POD, "address_b": SERVER, "port_a": sport, "port_b": 80}
    legs = {f"{leg}_bits": SEEN for leg in ("a_to_b", "b_to_a")} | {"a_to_b_packets": 4, "b_to_a_packets": 3}
    behind = {"type": 2, "original_ip": service, "original_port": 8080} if service else {"type": 0}
    return key, {**legs, **behind}


def source(conntrack: str = "", *entries: tuple[dict[str, Any], dict[str, Any]]) -> MemorySource:
    """One node, n1."""
    made = bpf(entries={"cali_v4_ct4": list(entries)})
    made.files["conntrack.txt"] = conntrack
    return MemorySource(objects([Node(1, pods=[1])]), {"n1": made.evidence()})


def linux(sport: int) -> str:
    """The same connection in Linux's table."""
    return (
        f"tcp 6 100 ESTABLISHED src=10.244.1.1 dst=10.244.2.1 sport={sport} dport=80 "
        f"src=10.244.2.1 dst=10.244.1.1 sport=80 dport={sport} [ASSURED] use=1\n"
    )
