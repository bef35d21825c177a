"""Counters of the eBPF dataplane of this node, again and again: maps are found now and then, and read each time."""

from __future__ import annotations

import re
import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layout_types import Role
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bpf import LiveMaps, pins_calico_maps
from calico_debug.metrics.bpf import NO_PROFILE_ID, Cell, Named, cells, rule_labels
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups

if TYPE_CHECKING:
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.policy.identity import PolicyIndex

FRESH_SECONDS = 60.0
"""How long what was found out about programs, maps and names holds; Felix replaces maps when it is upgraded."""

FOLDER = "var-run-calico-bpf/policy/"
DEBUG_FILE = re.compile(r"(.+)_(ingress|egress|xdp)_v[46]\.json")


@dataclass(frozen=True, slots=True)
class BpfCounters:
    """One reading. ``rules`` are (counter's identity, labels, evaluations), ``cells`` Calico's own counters; both with
    the id of the map in the identity.
    """

    rules: Sequence[tuple[Hashable, tuple[str, ...], int]]
    cells: Sequence[tuple[Hashable, Cell]]


class BpfReader:
    """Reads one node's maps."""

    def __init__(self, node: NodeEvidence) -> None:
        """Nothing is read yet."""
        self._node = node
        self._state: BpfState | None = None
        self._found_at = float("-inf")
        self._names: dict[int, Named] = {}
        self._named_at = float("-inf")

    def state(self) -> BpfState | None:
        """The node's dataplane, None when Calico's eBPF dataplane does not run here. Raises `EvidenceError`."""
        now = time.monotonic()
        if now - self._found_at > FRESH_SECONDS:
            self._state = None
            if isinstance(self._node, LiveMaps):
                self._node.kernel_maps.close()
            self._state = self._find()
            self._found_at = now
        return self._state

    def read(self, index: PolicyIndex) -> BpfCounters | None:
        """Every counter as it is now, None when the dataplane does not run here. Raises `EvidenceError`.

        ``index`` has the cluster's policies; it may be empty.
        """
        state = self.state()
        if state is None:
            return None
        try:
            return BpfCounters(list(self._rules(state, index)), list(self._cells(state)))
        except EvidenceError:
            self._found_at = float("-inf")
            raise

    # ----------------------------------------------------------------------------------------------------- internals

    def _find(self) -> BpfState | None:
        if not pins_calico_maps(self._node):
            return None
        state = BpfState(self._node)
        return state if state.reach.attachments else None

    def _rules(self, state: BpfState, index: PolicyIndex) -> Iterator[tuple[Hashable, tuple[str, ...], int]]:
        chosen = state.map(Role.RULE_COUNTERS)
        if chosen is None:
            return
        counters = BpfLookups(state).rule_counters()
        unknown = counters.keys() - self._names.keys() - {NO_PROFILE_ID}
        if unknown and time.monotonic() - self._named_at > FRESH_SECONDS:
            self._names = dict(self._read_names())
            self._named_at = time.monotonic()
        for number, packets in counters.items():
            yield (chosen.info.id, number), rule_labels(number, self._names.get(number), index), packets

    def _read_names(self) -> Iterator[tuple[int, Named]]:
        """What ids stand for, from Felix's debug files. Files that cannot be read leave their ids without a name."""
        for file in self._node.files():
            match = DEBUG_FILE.fullmatch(file.removeprefix(FOLDER)) if file.startswith(FOLDER) else None
            if match is None:
                continue
            direction = "ingress" if match[2] == "xdp" else match[2]
            try:
                debug = decode_policy_debug(self._node.read(file), file)
            except EvidenceError:
                continue  # gone, or half written: Felix is at it
            for section in debug.rules:
                if section.match_id:
                    yield section.match_id, Named(section, direction)

    @staticmethod
    def _cells(state: BpfState) -> Iterator[tuple[Hashable, Cell]]:
        chosen = state.map(Role.COUNTERS)
        if chosen is None:
            return
        lookups = BpfLookups(state)
        for cell in cells(lookups.all_counters(), lookups.interfaces):
            yield (chosen.info.id, *cell.counter), cell
