"""From rules of the kernel to policies and rules of the API."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from calico_debug.explain.rulegroups import Marks, RuleGroup, endpoint_marks, rule_groups
from calico_debug.explain.tier_names import policy_chains, tier_names
from calico_debug.model.explanation import Evidence, PolicyRef, RuleRef
from calico_debug.policy.chains import chain_role, parse_comment
from calico_debug.policy.identity import PolicyIndex, identify, policy_index
from calico_debug.policy.programmed import programmed_rules
from calico_debug.policy.rule_ids import named

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from calico_debug.model.bytecode import Section
    from calico_debug.model.cluster import PolicyObject
    from calico_debug.model.nft import Rule
    from calico_debug.state.cluster import ClusterState
    from calico_debug.walk.node import NodeWalker

FAMILY_NUMBERS = {"ip": 4, "ip6": 6}
PROFILE = "Profile"
HOST_PROFILE = "projectcalico-default-allow"
"""Profile of host endpoints that Calico creates (kube-controllers)."""


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy chain's policy. ``object`` is None when the cluster's objects do not have it.

    ``indices`` gives the API rule's index for each group of the chain, None where it is not known.
    """

    ref: PolicyRef
    direction: str
    tier: str
    object: PolicyObject | None
    groups: tuple[RuleGroup, ...]
    indices: tuple[int | None, ...]

    def rule_ref(self, rule: Rule | None) -> RuleRef | None:
        """The API rule that a kernel rule of the chain stands for."""
        for group, index in zip(self.groups, self.indices, strict=True):
            if rule is not None and any(rule is member for member in group.rules):
                return RuleRef(group.action, index)
        return None


class Attributor:
    """Names policies and rules for the chains of every node; answers are kept."""

    def __init__(self, cluster: ClusterState) -> None:
        """Policies are read from ``cluster`` when first needed."""
        self._cluster = cluster
        self._named: dict[tuple[str, str, str, str], NamedPolicy] = {}
        self._marks: dict[tuple[str, str, str, str], Marks] = {}
        self._tiers: dict[tuple[str, str, str, str], tuple[Sequence[Rule], Mapping[int, str]]] = {}
        self._sections: dict[int, Section | None] = {}

    @cached_property
    def index(self) -> PolicyIndex:
        """The cluster's policies by name."""
        return policy_index(self._cluster.policies())

    def section(self, number: int) -> Section | None:
        """What a rule id of the eBPF dataplane stands for, computed from the cluster's objects; None if from none."""
        return self.sections([number]).get(number)

    def sections(self, numbers: Iterable[int]) -> Mapping[int, Section]:
        """`section` for many ids at once, which takes as long as for one."""
        wanted = list(numbers)
        new = [number for number in wanted if number not in self._sections]
        if new:
            policies = self._cluster.policies()
            tiers = {tier.name for tier in self._cluster.tiers} | {policy.tier for policy in policies if policy.tier}
            profiles = (HOST_PROFILE, *(f"kns.{name}" for name in self._cluster.namespaces))
            found = named(new, policies, sorted(tiers), profiles)
            self._sections.update((number, found.get(number)) for number in new)
        known = ((number, self._sections[number]) for number in wanted)
        return {number: section for number, section in known if section is not None}

    def marks(self, walker: NodeWalker, family: str, table: str, chain: str) -> Marks:
        """The verdict bits that an endpoint's chain shows."""
        key = (walker.name, family, table, chain)
        if key not in self._marks:
            self._marks[key] = endpoint_marks(_rules(walker, family, table, chain))
        return self._marks[key]

    def tiers(self, walker: NodeWalker, family: str, table: str, chain: str) -> Mapping[int, str]:
        """The tier of each rule of an endpoint's chain, as `calico_debug.explain.tier_names.tier_names`."""
        key = (walker.name, family, table, chain)
        if key not in self._tiers:
            marks = self.marks(walker, family, table, chain)
            rules = _rules(walker, family, table, chain)

            def asked(target: str) -> Iterator[str]:
                for member in policy_chains(target, partial(_rules, walker, family, table)):
                    yield self.policy(walker, family, table, member, marks).tier

            self._tiers[key] = rules, tier_names(rules, asked)
        return self._tiers[key][1]

    def policy(self, walker: NodeWalker, family: str, table: str, chain: str, marks: Marks) -> NamedPolicy:
        """The policy behind a policy chain; ``marks`` are those of the endpoint's chain that asked it."""
        key = (walker.name, family, table, chain)
        if key not in self._named:
            self._named[key] = self._name(walker, family, table, chain, marks)
        return self._named[key]

    def _name(self, walker: NodeWalker, family: str, table: str, chain: str, marks: Marks) -> NamedPolicy:
        rules = _rules(walker, family, table, chain)
        groups = rule_groups(rules, marks)
        role = chain_role(chain)
        assert role is not None
        comment = parse_comment(rules[0].comment) if rules else None
        identity = identify(role, comment, self.index, chain)
        if identity is None:
            ref = PolicyRef("", chain)
            return NamedPolicy(ref, role.direction, "", None, groups, _logged(groups))
        found = self.index.find(identity)
        ref = PolicyRef(identity.kind, identity.name, identity.namespace)
        tier = found.tier if found else identity.tier
        indices = api_indices(found, role.direction, FAMILY_NUMBERS.get(family, 4), groups)
        return NamedPolicy(ref, role.direction, tier, found, groups, indices)


def profile_ref(chain_subject: str) -> PolicyRef:
    """A profile by the part of its chain's name that names it."""
    return PolicyRef(PROFILE, chain_subject)


def evidence_of(rule: Rule | None, table: str = "", chain: str = "") -> Evidence:
    """Where in the kernel a rule stands, with its counter as recorded."""
    if rule is None:
        return Evidence(table=table, chain=chain)
    counter = rule.counter
    return Evidence(
        table=f"{rule.family} {rule.table}",
        chain=rule.chain,
        handle=rule.handle,
        comment=rule.comment,
        counter=counter.packets if counter is not None else None,
    )


def _rules(walker: NodeWalker, family: str, table: str, chain: str) -> Sequence[Rule]:
    return [compiled.rule for compiled in walker.program.chain(family, table, chain)]


def _logged(groups: tuple[RuleGroup, ...]) -> tuple[int | None, ...]:
    return tuple(group.logged_index for group in groups)


def api_indices(
    found: PolicyObject | None, direction: str, family: int, groups: tuple[RuleGroup, ...]
) -> tuple[int | None, ...]:
    """The API's index of each group: written by flow logs, else by lining the object's rules up with the groups.

    Only if the two sides have the same actions in the same order do they line up; else no index is claimed.
    """
    logged = _logged(groups)
    # A Kubernetes policy's flow log counts the rules it was converted to, not the entries that the user wrote.
    converted = found is not None and found.kind != "NetworkPolicy" and found.kind != "GlobalNetworkPolicy"
    if groups and not converted and all(index is not None for index in logged):
        return logged
    if found is None:
        return logged
    programmed = programmed_rules(found, direction, family)
    if programmed is None or [rule.action for rule in programmed] != [group.action for group in groups]:
        return logged if not converted else tuple(None for _ in groups)
    return tuple(rule.index for rule in programmed)
