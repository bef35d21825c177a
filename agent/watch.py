"""Reads the counters of rules on this node, as they are at this moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from calico_debug.agent.clock import now
from calico_debug.errors import EvidenceError
from calico_debug.model.observation import Reading, RulePlace, Watched
from calico_debug.state.node import NodeState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.evidence.source import NodeEvidence


class Watch:
    """Reads at its making, and again at `finish`. Each reading asks the kernel anew, for the chains of the places."""

    def __init__(self, node: NodeEvidence, places: Sequence[RulePlace]) -> None:
        """Take the first reading. Raises `EvidenceError`."""
        self._node = node
        self._places = tuple(places)
        self._started = now()
        self._since = time.monotonic()
        self._before = read(node, self._places)

    def finish(self) -> Watched:
        """Take the second reading. Raises `EvidenceError`."""
        after = read(self._node, self._places)
        seconds = round(time.monotonic() - self._since, 1)
        return Watched(self._before, after, self._started, now(), seconds)


def read(node: NodeEvidence, places: Sequence[RulePlace]) -> Mapping[RulePlace, Reading]:
    """Counters by place; a rule that is not there, or has none, is left out. Raises `EvidenceError`."""
    state = NodeState(node)
    found: dict[RulePlace, Reading] = {}
    for place in places:
        reading = _program_counter(state, place) if place.rule_id else _rule_counter(state, place)
        if reading is not None:
            found[place] = reading
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
