"""Reads the counters of rules on this node, as they are at this moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from calico_debug.agent.clock import now
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_words import counter_name
from calico_debug.model.observation import Reading, RulePlace, Watched
from calico_debug.state.node import NodeState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.evidence.source import NodeEvidence

TC_HOOKS = (0, 1)
"""Of the hooks that interfaces are counted at, those of tc."""
DROPPED = "Dropped"


class Watch:
    """Reads at its making, and again at `finish`. Each reading asks the kernel anew, for the chains of the places."""

    def __init__(self, node: NodeEvidence, places: Sequence[RulePlace], interfaces: Sequence[str] = ()) -> None:
        """Take the first reading. ``interfaces`` are those with eBPF programs of the flow. Raises `EvidenceError`."""
        self._node = node
        self._places = tuple(places)
        self._interfaces = tuple(interfaces)
        self._started = now()
        self._since = time.monotonic()
        self._before = read(node, self._places)
        self._drops = read_drops(node, self._interfaces)

    def finish(self) -> Watched:
        """Take the second reading. Raises `EvidenceError`."""
        after = read(self._node, self._places)
        drops = read_drops(self._node, self._interfaces)
        seconds = round(time.monotonic() - self._since, 1)
        return Watched(self._before, after, self._started, now(), seconds, self._drops, drops)


def read(node: NodeEvidence, places: Sequence[RulePlace]) -> Mapping[RulePlace, Reading]:
    """Counters by place; a rule that is not there, or has none, is left out. Raises `EvidenceError`."""
    state = NodeState(node)
    found: dict[RulePlace, Reading] = {}
    for place in places:
        reading = _program_counter(state, place) if place.rule_id else _rule_counter(state, place)
        if reading is not None:
            found[place] = reading
    return found


def read_drops(node: NodeEvidence, interfaces: Sequence[str]) -> Mapping[tuple[str, str], int]:
    """What the eBPF programs of interfaces dropped, both ways, by interface and reason. Raises `EvidenceError`."""
    found: dict[tuple[str, str], int] = {}
    if not interfaces:
        return found
    from calico_debug.state.bpf_lookups import BpfLookups

    state = NodeState(node)
    lookups = BpfLookups(state.bpf)
    for interface in interfaces:
        link = state.interfaces.get(interface)
        for hook in TC_HOOKS if link is not None else ():
            counters = lookups.counters(link.index, hook) if link is not None else None
            for index, packets in enumerate(counters.cells if counters is not None else ()):
                name = counter_name(index)
                if name.category == DROPPED:
                    place = (interface, name.caption)
                    found[place] = found.get(place, 0) + packets
    return found


def _rule_counter(state: NodeState, place: RulePlace) -> Reading | None:
    family, _, table = place.table.partition(" ")
    rules = state.ruleset.rules(family, table, place.chain) or ()
    rule = next((rule for rule in rules if rule.handle == place.handle), None)
    if rule is None or rule.counter is None or rule.counter.packets is None:
        return None
    return Reading(rule.counter.packets, rule)


def _program_counter(state: NodeState, place: RulePlace) -> Reading | None:
    """Of eBPF: a rule that no packet met yet has no entry, which is a counter of 0."""
    from calico_debug.state.bpf_lookups import BpfLookups

    try:
        number = int(place.rule_id, 16)
    except ValueError:
        raise EvidenceError(f"rule id {place.rule_id!r} is no number; report it") from None
    return Reading(BpfLookups(state.bpf).rule_counter(number) or 0)
