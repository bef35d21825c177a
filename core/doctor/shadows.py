"""Rules of policies that no packet gets to on a node, proven on what is programmed there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.doctor.model import Symptom
from calico_debug.explain.attribution import PROFILE
from calico_debug.explain.listing.node import NodeListings
from calico_debug.hits.model import ALWAYS, UNREACHABLE
from calico_debug.hits.nodes import node_hits
from calico_debug.state.dataplane import IPTABLES, NFTABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.doctor.model import NodeView, Observation

STEPS = 100_000
"""What is spent on a node: about a second."""
SHOWN = 3
"""Shadowing rules that are named."""


def check_shadows(node: NodeView) -> Iterator[Observation]:
    """Rules that are shadowed whatever sets hold. Profiles are left out: policies are meant to shadow them."""
    if node.dataplane not in (NFTABLES, IPTABLES):
        return
    source = node.cluster.source
    listings = NodeListings(source, node.name, state=node.state, cluster=node.cluster.state)
    for one in node_hits(listings, STEPS).counts:
        proof = one.proof
        if proof is None or (proof.standing, proof.holds) != (UNREACHABLE, ALWAYS) or one.key.kind == PROFILE:
            continue
        more = f" and {len(proof.by) - SHOWN} more" if len(proof.by) > SHOWN else ""
        yield Symptom(
            "rule-shadowed",
            "info",
            f"{one.key}, {one.key.direction}: shadowed by {'; '.join(proof.by[:SHOWN])}{more}",
        )
