"""What became of the connections that were open before.

Sources (v3.32.1): felix/bpf-gpl/conntrack.h and tc.c (a TCP packet in mid-flow without an entry of eBPF's is left to
Linux's conntrack; other protocols meet policy as new), felix/rules/static.go (rules for flows that pre-date BPF).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.explain.live_connections import FAMILIES, TCP, Tally, is_open, open_connections
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.state.node import NodeState
    from calico_debug.switch.model import RecordedConnection, RecordedNode

STATUSES: Mapping[str, str] = {
    "tracked": "open, and the dataplane that runs now tracks it",
    "linux-only": "open in Linux's conntrack and unknown to eBPF, which leaves TCP in mid-flow to it",
    "asked-anew": "in Linux's conntrack and unknown to eBPF, which takes its next packet for a new connection's",
    "absent": "no table has it: it ended, or was cut; tables do not tell which",
    "unknown": "the tables of its nodes are not in evidence",
}
"""What can have become of a connection; docs/switch.md has the same table."""

Key = tuple[int, tuple[str, int | None], tuple[str, int | None]]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a connection. ``status`` is of `STATUSES`."""

    connection: RecordedConnection
    status: str


def fates(
    connections: Sequence[RecordedConnection],
    after: Mapping[str, RecordedNode],
    engine: Engine,
    now: int | None,
) -> tuple[Fate, ...]:
    """The fate of each; ``after`` are the nodes as they are now, ``now`` as in `open_connections`."""
    own, linux, unread = set[Key](), set[Key](), set[str]()
    for name, state in engine.states.items():
        try:
            own |= _own(state, engine, now)
            if after[name].dataplane == EBPF:
                linux |= linux_connections(state)
        except EvidenceError:
            unread.add(name)
    return tuple(Fate(one, _status(one, own, linux, after.keys() - unread)) for one in connections)


def _status(one: RecordedConnection, own: set[Key], linux: set[Key], read: set[str]) -> str:
    keys = {(one.protocol, one.client, one.asked), (one.protocol, one.client, one.server)}
    if keys & own:
        return "tracked"
    if keys & linux:
        return "linux-only" if one.protocol == TCP else "asked-anew"
    return "absent" if read.issuperset(one.nodes) else "unknown"


def _own(state: NodeState, engine: Engine, now: int | None) -> set[Key]:
    found: set[Key] = set()
    for one in open_connections([state], engine.cluster, Tally(), now, passing=True):
        client, asked, server = ((str(address), port) for address, port in (one.client, one.asked, one.server))
        found |= {(one.protocol, client, asked), (one.protocol, client, server)}
    return found


def linux_connections(state: NodeState) -> set[Key]:
    """What Linux's own conntrack of a node has open: the client with what it asked for, and with who answers.

    Raises `EvidenceError`.
    """
    return {
        (one.original.protocol, _end(one.original.source, one.original.source_port), end)
        for family in FAMILIES
        for one in state.listed_connections(family)
        if is_open(one)
        for end in (
            _end(one.original.destination, one.original.destination_port),
            _end(one.reply.source, one.reply.source_port),
        )
    }


def _end(address: object, port: int | None) -> tuple[str, int | None]:
    return str(address), port
