"""How often a node's rules of a policy matched, as the node counts it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from calico_debug.errors import EvidenceError
from calico_debug.explain.rulegroups import Marks, endpoint_marks, rule_groups
from calico_debug.policy.identity import chain_names
from calico_debug.policy.programmed import programmed_rules
from calico_debug.policy.rule_ids import policy_ids
from calico_debug.state.bpf_lookups import BpfLookups
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from calico_debug.model.cluster import PolicyObject
    from calico_debug.model.nft import Rule
    from calico_debug.state.node import NodeState

PREFIXES: Final = {"ingress": "cali-pi-", "egress": "cali-po-"}
LAYERS: Final = ("filter-", "mangle-", "raw-", "")
FAMILIES: Final = {"ip": 4, "ip6": 6}
WORKLOAD_CHAINS: Final = ("cali-fw-", "cali-tw-")
UNIT: Final = (
    "packets that policy was asked about (the first of a connection, and each one denied) and that a rule of the "
    "policy matched, of all endpoints of the node"
)


@dataclass(frozen=True, slots=True)
class RuleCount:
    """One API rule's count; ``index`` is None where the kernel's rule cannot be told apart from the others."""

    index: int | None
    action: str
    packets: int


@dataclass(frozen=True, slots=True)
class PolicyCount:
    """Counts of one policy, direction and node, IPv4 and IPv6 together. ``unit`` says what is counted."""

    packets: int
    rules: tuple[RuleCount, ...]
    unit: str = UNIT


class PolicyCounts:
    """Reads the counters of one node. What evidence does not have gives no count, never zero."""

    def __init__(self, state: NodeState) -> None:
        """``state`` is the node's; nothing is read yet."""
        self._state = state

    def count(self, policy: PolicyObject, direction: str) -> PolicyCount | None:
        """The counts of the policy's rules for "ingress" or "egress"; None if the node does not show them."""
        try:
            if self._state.dataplane == EBPF:
                return self._from_map(policy, direction)
            return self._from_chains(policy, direction)
        except EvidenceError:
            return None

    # ---------------------------------------------------------------------------------------------------- chains

    def _from_chains(self, policy: PolicyObject, direction: str) -> PolicyCount | None:
        found: list[RuleCount] = []
        chains = 0
        for family, rules in self._chains(policy, direction):
            groups = rule_groups(rules, self._marks)
            packets = [counter.packets for group in groups if (counter := group.main.counter) is not None]
            counted = [number for number in packets if number is not None]
            if len(counted) < len(groups):
                return None
            chains += 1
            programmed = programmed_rules(policy, direction, FAMILIES[family])
            known = programmed is not None and [r.action for r in programmed] == [group.action for group in groups]
            for number, group in enumerate(groups):
                index = programmed[number].index if known and programmed else group.logged_index
                found.append(RuleCount(index, group.action, counted[number]))
        return _merged(found) if chains else None

    def _chains(self, policy: PolicyObject, direction: str) -> Iterator[tuple[str, Sequence[Rule]]]:
        ruleset = self._state.ruleset
        for family, table in ruleset.tables():
            for name in sorted(chain_names(policy)) if family in FAMILIES else ():
                for layer in LAYERS if name.startswith(PREFIXES[direction]) else ():
                    rules = ruleset.rules(family, table, layer + name)
                    if rules is not None:
                        yield family, rules

    @cached_property
    def _marks(self) -> Marks:
        """The bits of verdicts, from the chain of any endpoint of the node."""
        ruleset = self._state.ruleset
        for family, table in ruleset.tables():
            for interface in self._state.interfaces:
                for layer in LAYERS:
                    rules = ruleset.rules(family, table, f"{layer}{WORKLOAD_CHAINS[0]}{interface}")
                    if rules:
                        return endpoint_marks(rules)
        return Marks(0, 0)

    # ------------------------------------------------------------------------------------------------------- eBPF

    def _from_map(self, policy: PolicyObject, direction: str) -> PolicyCount | None:
        counters = self._counters
        if not counters:
            return None
        ids = policy_ids(policy, direction)
        programmed = {family: programmed_rules(policy, direction, family) for family in FAMILIES.values()}
        found = []
        for number, place in ids.items():
            rules = next((rules for rules in programmed.values() if rules and place < len(rules)), ())
            if number in counters and rules:
                found.append(RuleCount(rules[place].index, rules[place].action, counters[number]))
        return _merged(found) if found else None  # a rule has an entry once it has matched, and then one of many names

    @cached_property
    def _counters(self) -> Mapping[int, int]:
        return BpfLookups(self._state.bpf).rule_counters()


def _merged(found: Sequence[RuleCount]) -> PolicyCount:
    """Counts of the same API rule added up: of both families, and of an entry that became several rules."""
    sums: dict[tuple[int | None, str], int] = {}
    for one in found:
        key = one.index, one.action
        sums[key] = sums.get(key, 0) + one.packets
    rules = tuple(RuleCount(index, action, packets) for (index, action), packets in sums.items())
    # A Log rule goes on to the next one, so its packets are counted again there
    return PolicyCount(sum(rule.packets for rule in rules if rule.action != "Log"), rules)
