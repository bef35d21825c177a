"""The rules of one policy or profile, as felix/rules/policy.go renders them for nftables.

What does not fit into one rule (several CIDRs a side, ports together with named ports, more than 15 port slots) is
broken into match blocks that work with two scratch mark bits.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.lab import names
from tests.lab.rules import NftRule, both, clear_mark, is_clear, is_set, nflog, set_mark, set_masked, with_comments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.model import Direction, Entity, Policy, PortSpec, Profile, Rule
    from tests.lab.rules import Marks
    from tests.lab.sets import Sets

PORT_SLOTS = 15
_SIDES = (("saddr", "sport", "source"), ("daddr", "dport", "destination"))
_PROTOCOL_NUMBERS = {6: "tcp", 17: "udp", 132: "sctp"}


@dataclass(frozen=True, slots=True)
class Context:
    """What rendering a rule depends on besides the rule."""

    sets: Sets
    marks: Marks
    deny: str  # the deny action's text

    @property
    def version(self) -> int:
        return self.sets.version

    @property
    def family(self) -> str:
        return "ip" if self.version == 4 else "ip6"

    @property
    def felix_release(self) -> str:
        return self.sets.model.felix.release


def policy_rules(context: Context, policy: Policy, direction: Direction) -> list[NftRule]:
    """The chain of a policy in one direction, its first rule naming the policy."""
    release = context.sets.model.felix.release
    owner = _Owner("P", names.policy_id(policy, release), direction, untracked=policy.do_not_track)
    return _chain(context, policy.rules(direction) or (), owner, names.policy_comment(policy, direction, release))


def profile_rules(context: Context, profile: Profile, direction: Direction) -> list[NftRule]:
    owner = _Owner("R", profile.name, direction)
    rules = profile.ingress if direction == "ingress" else profile.egress
    return _chain(context, rules, owner, f"Profile {profile.name} {direction}")


@dataclass(frozen=True, slots=True)
class _Owner:
    kind: str
    identity: str
    direction: Direction
    untracked: bool = False


def _chain(context: Context, rules: Sequence[Rule], owner: _Owner, text: str) -> list[NftRule]:
    made = [nft for index, rule in enumerate(rules) for nft in _rule(context, rule, index, owner)]
    while made and made[-1].action == "return":  # a return at the end does nothing
        made.pop()
    if not made:
        made = [NftRule()]
    return [with_comments(made[0], text), *made[1:]]


def _rule(context: Context, rule: Rule, index: int, owner: _Owner) -> list[NftRule]:
    narrowed = _of_version(rule, context.version)
    if narrowed is None:
        return []
    blocks = _Blocks(context)
    rest = blocks.take(narrowed)
    match = _match(context, rest)
    if blocks.rules:
        match = both(match, is_set(context.marks.scratch0))
    made = blocks.rules + _actions(context, rule, match, index, owner)
    return [with_comments(nft, *(f"{key}={value}" for key, value in rule.annotations)) for nft in made]


def _actions(context: Context, rule: Rule, match: str, index: int, owner: _Owner) -> list[NftRule]:
    """Match and mark, [log to the flow log], then act on the mark. v3.29 denies in one rule."""
    marks = context.marks
    if rule.action == "Log":
        return [NftRule(match, 'log prefix "calico-packet: " level info')]
    bit = {"Allow": marks.accept, "Pass": marks.passed, "Deny": marks.drop}[rule.action]
    final = context.deny if rule.action == "Deny" else "return"
    if not bit:
        return [NftRule(match, final)]
    made = [NftRule(match, set_mark(bit))]
    if context.sets.model.felix.flow_logs and not owner.untracked:
        prefix = names.nflog_prefix(rule.action, owner.kind, owner.direction, index, owner.identity)
        made.append(NftRule(is_set(bit), nflog(owner.direction, prefix)))
    return [*made, NftRule(is_set(bit), final)]


# -------------------------------------------------------------------------------------------- one address family


def _of_version(rule: Rule, version: int) -> Rule | None:
    """FilterRuleToIPVersion: the rule with its own family's CIDRs, None when it has no business in this family."""
    if rule.ip_version not in {None, version}:
        return None
    sides = {}
    for name, side in (("source", rule.source), ("destination", rule.destination)):
        nets, not_nets = _family(side.nets, version), _family(side.not_nets, version)
        if (side.nets and not nets) or (side.not_nets and not not_nets):
            return None
        if any(ipaddress.ip_network(net).prefixlen == 0 for net in not_nets):
            return None
        sides[name] = replace(side, nets=nets, not_nets=not_nets)
    return replace(rule, source=sides["source"], destination=sides["destination"])


def _family(nets: tuple[str, ...], version: int) -> tuple[str, ...]:
    return tuple(net for net in nets if (":" in net) == (version == 6))


# ------------------------------------------------------------------------------------------------- match blocks


@dataclass(slots=True)
class _Blocks:
    """matchBlockBuilder: scratch0 says "all blocks matched so far", scratch1 "this block matched"."""

    context: Context
    rules: list[NftRule] = field(default_factory=list)
    positive: bool = False

    def take(self, rule: Rule) -> Rule:
        """Render what does not fit into one rule; returns the rule that is left."""
        sides = [rule.source, rule.destination]
        for number, (_, port_field, _) in enumerate(_SIDES):
            numeric, named = _split_ports(sides[number].ports)
            if len(numeric) + len(named) > 1:
                matches = [_ports(rule, port_field, ports) for ports in numeric]
                matches += [_named(self.context, rule, sides[number], port_field, name) for name in named]
                self._positive_block(matches)
                # A named port's set is already limited to the selector; numbers need the selector beside them.
                kept = sides[number].selector if numeric else None
                sides[number] = replace(sides[number], ports=(), selector=kept)
        for number, (address_field, _, _) in enumerate(_SIDES):
            if len(sides[number].nets) > 1:
                self._positive_block([f"{self.context.family} {address_field} {net}" for net in sides[number].nets])
                sides[number] = replace(sides[number], nets=())
        for number, (address_field, _, _) in enumerate(_SIDES):
            side = sides[number]
            if len(side.nets) + len(side.not_nets) > 1:
                self._negative_block([f"{self.context.family} {address_field} {net}" for net in side.not_nets])
                sides[number] = replace(side, not_nets=())
        return replace(rule, source=sides[0], destination=sides[1])

    def _begin(self, initially: int) -> None:
        if not self.rules:
            marks = self.context.marks
            self.rules.append(NftRule("", set_masked(initially, marks.scratch0 | marks.scratch1)))

    def _positive_block(self, matches: list[str]) -> None:
        self._begin(0)
        marks = self.context.marks
        bit = marks.scratch1 if self.positive else marks.scratch0
        self.rules += [NftRule(match, set_mark(bit)) for match in matches]
        if self.positive:
            self.rules.append(NftRule(is_clear(marks.scratch1), clear_mark(marks.scratch0)))
        self.positive = True

    def _negative_block(self, matches: list[str]) -> None:
        self._begin(self.context.marks.scratch0)
        self.rules += [NftRule(match, clear_mark(self.context.marks.scratch0)) for match in matches]


def _split_ports(ports: tuple[PortSpec, ...]) -> tuple[list[list[int | tuple[int, int]]], list[str]]:
    """Numbers and ranges in portions of 15 slots (a range takes two), and names."""
    portions: list[list[int | tuple[int, int]]] = []
    left = 0
    for port in ports:
        if isinstance(port, str):
            continue
        slots = 1 if isinstance(port, int) else 2
        if left < slots:
            portions.append([])
            left = PORT_SLOTS
        portions[-1].append(port)
        left -= slots
    return portions, [port for port in ports if isinstance(port, str)]


# ---------------------------------------------------------------------------------------------------- one match


def _match(context: Context, rule: Rule) -> str:
    """CalculateRuleMatch: positive criteria, then negated ones, in Felix's order."""
    clauses = []
    if rule.protocol is not None:
        clauses.append(f"meta l4proto {rule.protocol}")
    for (address, port, _), side in zip(_SIDES, (rule.source, rule.destination), strict=True):
        clauses += _positive(context, rule, side, address, port)
    icmp = "icmp" if context.version == 4 else "icmpv6"
    if rule.icmp_type is not None:
        clauses.append(f"{icmp} type {rule.icmp_type}")
        if rule.icmp_code is not None:
            # Felix up to v3.32.1 writes "icmp type T code C", which nft refuses (with the whole transaction).
            clauses.append(f"{icmp} code {rule.icmp_code}")
    if rule.not_protocol is not None:
        clauses.append(f"meta l4proto != {rule.not_protocol}")
    for (address, port, _), side in zip(_SIDES, (rule.source, rule.destination), strict=True):
        clauses += _negated(context, rule, side, address, port)
    if rule.not_icmp_type is not None:
        clauses.append(f"{icmp} type != {rule.not_icmp_type}")
    return " ".join(clauses)


def _positive(context: Context, rule: Rule, side: Entity, address: str, port: str) -> list[str]:
    clauses = [f"{context.family} {address} {net}" for net in side.nets]
    numeric, named = _split_ports(side.ports)
    if side.selector is not None and not named:
        # With a named port the selector is part of the port set.
        clauses.append(f"{context.family} {address} @{context.sets.selector(side.selector)}")
    if side.service is not None:
        members = context.sets.service(*side.service)
        clauses.append(f"{context.family} {address} . meta l4proto . th {port} @{members}")
    clauses += [_ports(rule, port, ports, with_protocol=False) for ports in numeric]
    clauses += [_named(context, rule, side, port, name) for name in named]
    return clauses


def _negated(context: Context, rule: Rule, side: Entity, address: str, port: str) -> list[str]:
    clauses = [f"{context.family} {address} != {net}" for net in side.not_nets]
    if side.not_selector is not None:
        clauses.append(f"{context.family} {address} != @{context.sets.selector(side.not_selector)}")
    numeric, named = _split_ports(side.not_ports)
    clauses += [_ports(rule, port, ports, "!= ", with_protocol=False) for ports in numeric]
    for name in named:
        members = context.sets.named_port(name, _transport(rule), side.selector)
        clauses.append(f"{context.family} {address} . meta l4proto . th {port} != @{members}")
    return clauses


def _ports(
    rule: Rule, port: str, ports: Sequence[int | tuple[int, int]], negation: str = "", *, with_protocol: bool = True
) -> str:
    listed = ", ".join(str(p) if isinstance(p, int) else f"{p[0]}-{p[1]}" for p in ports)
    protocol = f"meta l4proto {rule.protocol} " if with_protocol else ""
    return f"{protocol}{_transport(rule)} {port} {negation}{{ {listed} }}"


def _named(context: Context, rule: Rule, side: Entity, port: str, name: str) -> str:
    members = context.sets.named_port(name, _transport(rule), side.selector)
    address = "saddr" if port == "sport" else "daddr"
    return f"{context.family} {address} . meta l4proto . th {port} @{members}"


def _transport(rule: Rule) -> str:
    """Ports need a transport protocol; rules without one are refused by Calico's API."""
    if isinstance(rule.protocol, int):
        return _PROTOCOL_NUMBERS[rule.protocol]
    return str(rule.protocol)
