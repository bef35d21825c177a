"""What the counters of the eBPF dataplane count for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from calico_debug.explain.bpf_policy import PROFILE, policy_and_rule
from calico_debug.metrics.rules import END_OF_TIER, HOST, NO_PROFILE, WORKLOAD, DropLabels
from calico_debug.model.bpf import InterfaceCounters, InterfaceState
from calico_debug.model.bpf_words import CounterName, counter_name
from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.policy.identity import PolicyIndex
from calico_debug.policy.rule_ids import direction_of
from calico_debug.state.dataplane import EBPF

NO_PROFILE_ID = 0
"""What packets count under that no profile allows (felix/bpf/polprog)."""

TUNNEL, UNKNOWN = "tunnel", "unknown"
KIND_FLAGS: tuple[tuple[str, str], ...] = (
    ("workload", WORKLOAD),
    ("vxlan", TUNNEL),
    ("ipip", TUNNEL),
    ("wireguard", TUNNEL),
)
"""Flags of interfaces that make their kind, the first that is set; all others belong to the host."""

DIRECTIONS: Mapping[int, str] = {0: "ingress", 1: "egress", 2: "ingress"}
"""Of the hooks 0 (tc ingress), 1 (tc egress) and 2 (XDP), as the host sees them; a pod's are the other way round."""
OPPOSITE = {"ingress": "egress", "egress": "ingress"}

ACTIONS = {"deny": "Deny", "pass": "Pass", "": "Deny"}
"""Of the end of a tier; v3.28 and v3.29 do not say, and had no other."""

BY_POLICY = "policy"

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")


class Named(NamedTuple):
    """A section of a debug file, with the direction of its program."""

    section: Section
    direction: str


class Cell(NamedTuple):
    """One cell of Calico's counters: values of the labels of `families.BPF_PACKETS`, and of a drop or None."""

    counter: tuple[int, int, int]
    labels: tuple[str, str, str, str]
    drop: DropLabels | None
    packets: int


def rule_labels(number: int, named: Named | None, index: PolicyIndex) -> tuple[str, ...]:
    """Values of the labels of `families.RULE_EVALUATIONS` for a rule id."""
    if number == NO_PROFILE_ID:
        return (EBPF, "", "", "", "", "", NO_PROFILE, "Deny")
    if named is None:
        return (EBPF, "", "", "", "", "", f"id:{number:016x}", "")
    section = named.section
    direction = direction_of(section) or named.direction
    if section.kind is SectionKind.END_OF_TIER:
        return (EBPF, direction, section.tier, "", "", "", END_OF_TIER, ACTIONS.get(section.action, ""))
    if section.owner == PROFILE:
        action = section.action.capitalize()
        return (EBPF, direction, "", PROFILE, "", section.name, str(section.index), action)
    policy, rule = policy_and_rule(section, direction, index)
    place = str(rule.index) if rule.index is not None else f"#{section.index}"
    return (EBPF, direction, section.tier, policy.kind, policy.namespace, policy.name, place, rule.action)


def interface_kind(state: InterfaceState | None) -> str:
    """Whose interface it is."""
    if state is None:
        return UNKNOWN
    words = state.flag_words
    return next((kind for flag, kind in KIND_FLAGS if flag in words), HOST)


def cells(counters: Iterable[InterfaceCounters], interfaces: Mapping[int, InterfaceState]) -> Iterator[Cell]:
    """Every cell that means something, of every interface and hook."""
    for one in counters:
        state = interfaces.get(one.ifindex)
        kind = interface_kind(state)
        direction = DIRECTIONS.get(one.hook, "")
        if kind == WORKLOAD and one.hook in (0, 1):
            direction = OPPOSITE[direction]
        interface = state.name if state is not None and kind == WORKLOAD else ""
        for position, packets in enumerate(one.cells):
            name = counter_name(position)
            if not name.category:
                continue
            drop = None
            if name.category == "Dropped":
                drop = DropLabels(EBPF, direction, drop_reason(name), kind, interface)
            labels = (direction, kind, name.category, name.caption)
            yield Cell((one.ifindex, one.hook, position), labels, drop, packets)


@lru_cache(maxsize=256)
def drop_reason(name: CounterName) -> str:
    """The reason of a counter of category Dropped: "policy", else its caption with hyphens."""
    if name.caption == "by policy":
        return BY_POLICY
    return _NOT_A_WORD.sub("-", name.caption.lower()).strip("-")
