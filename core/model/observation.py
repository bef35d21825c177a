"""What was seen to happen: counters that moved, packets that were traced through rules, answers to probe packets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calico_debug.model.nft import Rule
    from calico_debug.model.routing import Address


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to gather: seconds of watching counters and of observing packets, and whether to send probes."""

    watch: float | None = None
    observe: float | None = None
    probe: bool = False


@dataclass(frozen=True, slots=True)
class FlowTuple:
    """A flow as one side of a translation shows it. Ports are None for any, and for protocols that have none."""

    protocol: int
    source: Address
    destination: Address
    source_port: int | None = None
    destination_port: int | None = None


@dataclass(frozen=True, slots=True)
class Headers:
    """What a packet's headers say. ``flags`` are TCP's, ``icmp`` type and code; None where there are none."""

    protocol: int
    source: Address
    destination: Address
    source_port: int | None = None
    destination_port: int | None = None
    flags: int | None = None
    icmp: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One thing that nf_tables did to a traced packet.

    ``kind`` is "rule" (``handle`` names it), "return" (a chain ended) or "policy" (a base chain ended). ``verdict`` is
    nft's word, ``target`` the chain of a jump or goto. ``packet`` is the kernel's number of the packet, which it gives
    to a later one again. ``direction`` ("original" or "reply") is conntrack's, since Linux 6.16; else "".
    """

    family: str
    table: str
    chain: str
    kind: str
    packet: int
    verdict: str = ""
    target: str = ""
    handle: int | None = None
    input_index: int | None = None
    output_index: int | None = None
    mark: int | None = None
    direction: str = ""
    headers: Headers | None = None


@dataclass(frozen=True, slots=True)
class TracedPacket:
    """One passage of a packet through the node.

    ``events`` are in order, without those of observers. ``hooks`` are those that the packet got through, in order.
    ``reply`` tells the direction. ``output_index`` is the interface that it left by, None when it did not get there.
    """

    events: tuple[TraceEvent, ...]
    hooks: tuple[str, ...]
    reply: bool = False
    output_index: int | None = None
    headers: Headers | None = None

    @property
    def drop(self) -> TraceEvent | None:
        """What dropped the packet; None when nothing of nf_tables did."""
        return next((event for event in self.events if event.verdict == "drop" and event.kind != "return"), None)

    @property
    def ending(self) -> str:
        """What became of it: "dropped", "delivered" to the node itself, "sent", or "lost" between two hooks."""
        if self.drop is not None:
            return "dropped"
        last = self.hooks[-1] if self.hooks else ""
        return {"input": "delivered", "postrouting": "sent"}.get(last, "lost")


@dataclass(frozen=True, slots=True)
class Observation:
    """What an observer saw. ``lost`` tells that the kernel had more to tell than was read.

    ``full`` tells that there were so many packets that limits may have kept some from being traced. ``started`` and
    ``ended`` are RFC 3339 UTC.
    """

    packets: tuple[TracedPacket, ...]
    started: str
    ended: str
    lost: bool = False
    full: bool = False


@dataclass(frozen=True, slots=True)
class RulePlace:
    """A rule by where it stands. ``table`` is family and name as in evidence; ``rule_id`` is set for eBPF instead."""

    table: str = ""
    chain: str = ""
    handle: int | None = None
    rule_id: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A counter as read. ``rule`` is None where the dataplane has only the counter."""

    packets: int
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Watched:
    """Counters at two times, RFC 3339 UTC, ``seconds`` apart. A place without a counter is in neither.

    ``drops_before`` and ``drops_after`` are what the eBPF programs of the flow's interfaces dropped, by interface and
    reason; no interface elsewhere.
    """

    before: Mapping[RulePlace, Reading]
    after: Mapping[RulePlace, Reading]
    started: str
    ended: str
    seconds: float
    drops_before: Mapping[tuple[str, str], int] = field(default_factory=dict)
    drops_after: Mapping[tuple[str, str], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What became of probe packets that were sent from ``place`` (words). ``error`` says why none could be.

    ``answers`` are words in the order of arrival: "syn-ack", "reset", "echo reply", "udp answer", or "icmp …" for an
    error, with ``answered_by`` its sender. ``ends`` are those of the probes, with the source port they had. ``at`` is
    RFC 3339 UTC.
    """

    sent: int
    place: str
    ends: FlowTuple
    answers: tuple[str, ...] = ()
    answered_by: str = ""
    error: str = ""
    at: str = ""
