"""IP sets: members that the API's objects give against those in the kernel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.drift.model import Drift
from calico_debug.drift.policies import BEHIND
from calico_debug.model.flow import protocol_name
from calico_debug.model.nft import Interval
from calico_debug.model.routing import address_from_int

if TYPE_CHECKING:
    from calico_debug.drift.intended_sets import IntendedSet, Port, Span
    from calico_debug.model.nft import Ruleset, SetContent
    from calico_debug.state.bpf import BpfState

FAMILIES = {"ip": 4, "ip6": 6}
SHOWN = 5
"""Members that a message names."""


class SetMembers:
    """What a set holds: addresses as spans, or addresses with ports. ``odd`` counts members that are neither."""

    def __init__(self) -> None:
        """Empty."""
        self.spans: set[Span] = set()
        self.ports: set[Port] = set()
        self.odd = 0


def kernel_set(ruleset: Ruleset, family: int, names: tuple[str, str]) -> SetMembers | None:
    """A set of nf_tables or of ipset by any of its names; None if no table has it. Raises `EvidenceError`."""
    for table_family, table in ruleset.tables():
        if FAMILIES.get(table_family) != family:
            continue
        for name in names:
            content = ruleset.elements(table_family, table, name)
            if content is not None:
                return _members(content)
    return None


def _members(content: SetContent) -> SetMembers:
    found = SetMembers()
    for element in (*content.exact.values(), *content.ranged):
        match element.key:
            case int(address):
                found.spans.add((address, address))
            case Interval(low, high):
                found.spans.add((low, high))
            case (int(address), int(protocol), int(port)):
                found.ports.add((address, protocol, port))
            case _:
                found.odd += 1
    return found


def bpf_sets(state: BpfState, family: int) -> Mapping[int, SetMembers]:
    """The sets of the eBPF dataplane by number; one without members has no entry. Raises `EvidenceError`."""
    found: dict[int, SetMembers] = {}
    for member in state.entries(Role.IP_SETS, family):
        held = found.setdefault(member.set_id, SetMembers())
        if member.protocol:
            held.ports.add((int(member.prefix.network_address), member.protocol, member.port))
        else:
            held.spans.add((int(member.prefix.network_address), int(member.prefix.broadcast_address)))
    return found


def compare(node: str, family: int, intended: IntendedSet, held: SetMembers | None) -> Iterator[Drift]:
    """The differences of one set. ``held`` None: the node does not have it."""
    users = ", ".join(intended.users)
    subject = f"IP set {intended.id} ({intended.what})"
    if held is None:
        yield Drift(
            "set-missing", "error", node, subject, f"the node has no such IPv{family} set; used by {users}", BEHIND
        )
        return
    wanted: Mapping[Port, str] | Mapping[Span, str]
    if intended.has_ports:
        wanted = intended.ports[family]
        missing = [_port_words(family, key, wanted) for key in sorted(wanted.keys() - held.ports)]
        left = [_port_words(family, key, {}) for key in sorted(held.ports - wanted.keys())]
    else:
        wanted = intended.spans[family]
        missing = [_span_words(family, span, wanted) for span in without(wanted, held.spans)]
        left = [_span_words(family, span, {}) for span in without(held.spans, wanted)]
    if missing:
        yield Drift(
            "set-members-missing",
            "error",
            node,
            subject,
            f"it lacks {_few(missing)}; used by {users}",
            f"the pod is new, or its labels or those of its namespace changed. {BEHIND}",
        )
    if left:
        yield Drift(
            "set-members-left",
            "error",
            node,
            subject,
            f"it still has {_few(left)}; used by {users}",
            f"the pod is gone, or its labels or those of its namespace changed. {BEHIND}",
        )


def without(spans: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """The parts of ``spans`` that none of ``others`` covers, in order."""
    covered = sorted(others)
    for first, last in sorted(set(spans)):
        at = first
        for low, high in covered:
            if high < at or low > last:
                continue
            if low > at:
                yield at, low - 1
            at = max(at, high + 1)
        if at <= last:
            yield at, last


def _span_words(family: int, span: Span, labels: Mapping[Span, str]) -> str:
    first, last = (str(address_from_int(family, end)) for end in span)
    label = labels.get(span, "")
    return (first if first == last else f"{first}-{last}") + (f" ({label})" if label else "")


def _port_words(family: int, key: Port, labels: Mapping[Port, str]) -> str:
    address, protocol, port = key
    label = labels.get(key, "")
    words = f"{address_from_int(family, address)} {protocol_name(protocol)} port {port}"
    return words + (f" ({label})" if label else "")


def _few(words: list[str]) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")
