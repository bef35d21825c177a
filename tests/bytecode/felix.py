"""Policy programs of Felix's shape, generated from a small policy model: the code and, if wanted, its comments."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from tests.bytecode.assembler import ADD, AND, JEQ, JGE, JLE, JLT, JNE, LSH, MOV, OR, Assembler

STATE_FD, SETS_FD, STATIC_FD, JUMP_FD = 33, 48, 11, 12
LOOKUP, TAIL_CALL = 1, 12
PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132}
PRINTED = {6: "tcp", 11: "udp", 1: "icmp", 132: "sctp"}
"""What Felix calls numbers (protocolToName); any other is ""."""
FIELDS = {  # with the header of 8 bytes
    "ip_src": 8,
    "pre_nat_ip_dst": 40,
    "post_nat_ip_dst": 56,
    "pol_rc": 92,
    "sport": 96,
    "icmp_type": 98,
    "pre_nat_dport": 100,
    "post_nat_dport": 102,
    "ip_proto": 104,
    "rules_hit": 108,
    "rule_ids": 112,
    "flags": 368,
}
SOURCE, DESTINATION, BEFORE_NAT = (
    ("ip_src", "sport"),
    ("post_nat_ip_dst", "post_nat_dport"),
    ("pre_nat_ip_dst", "pre_nat_dport"),
)
LEGS = {SOURCE: "source", DESTINATION: "dest", BEFORE_NAT: "destPreNAT"}
SOURCE_KEY, DESTINATION_KEY = -36, -68


@dataclass(frozen=True)
class Rule:
    action: str  # allow, deny, pass, log
    match_id: int = 0
    protocol: str | int | None = None
    not_protocol: str | int | None = None
    source_nets: tuple[str, ...] = ()
    not_source_nets: tuple[str, ...] = ()
    destination_nets: tuple[str, ...] = ()
    not_destination_nets: tuple[str, ...] = ()
    source_set: int = 0
    not_source_set: int = 0
    destination_set: int = 0
    not_destination_set: int = 0
    source_ports: tuple[tuple[int, int], ...] = ()
    destination_ports: tuple[tuple[int, int], ...] = ()
    not_destination_ports: tuple[tuple[int, int], ...] = ()
    named_port_set: int = 0
    icmp: tuple[int, int | None] | None = None
    version: int | None = None


@dataclass(frozen=True)
class Policy:
    name: str
    rules: tuple[Rule, ...]
    kind: str = "GlobalNetworkPolicy"
    namespace: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True)
class Tier:
    name: str
    policies: tuple[Policy, ...]
    end_action: str = "deny"
    end_id: int = 0


@dataclass(frozen=True)
class Rules:
    tiers: tuple[Tier, ...] = ()
    profiles: tuple[Policy, ...] = ()
    no_profile_id: int = 0
    host: bool = False
    suppress_host: bool = False
    pre_dnat: tuple[Tier, ...] = ()
    forward: tuple[Tier, ...] = ()
    normal: tuple[Tier, ...] = ()
    host_profiles: tuple[Policy, ...] = ()
    xdp: bool = False


@dataclass
class Style:
    """How a release writes: ``header`` bytes before the state (0 up to v3.29), ``split_after`` jumps in one part."""

    version: int = 4
    header: int = 8
    record: bool = True
    record_ends: bool = True
    words: str = "v3.32"
    split_after: int = 10**9
    entry: int = 3
    stride: int = 10000
    descriptors: dict[int, int] = field(default_factory=dict)


class Builder:
    """Writes the parts of one policy program."""

    def __init__(self, rules: Rules, style: Style) -> None:
        self.rules, self.style = rules, style
        self.parts: list[Assembler] = []
        self.tier_number = self.rule_number = self.piece = self.policy_number = 0
        self._start()
        self._body()
        self._footer()

    # -- the parts --

    def _start(self) -> None:
        self.a = Assembler()
        if self.parts:
            self.a.comment(f"##### Start of program {len(self.parts)} #####")
        self.parts.append(self.a)
        a = self.a
        a.label("start")
        a.alu_register(MOV, 6, 1)
        a.alu(MOV, 1, 0)
        a.store(4, 10, -4, 1)
        a.alu_register(MOV, 2, 10)
        a.alu(ADD, 2, -4)
        a.comment("Load packet metadata saved by previous program")
        self._map(1, STATE_FD)
        a.call(LOOKUP)
        a.branch(JEQ, 0, 0, "exit")
        a.comment("Save state pointer in register R9")
        a.alu_register(MOV, 9, 0)
        a.label("policy")

    def _body(self) -> None:
        rules = self.rules
        if not rules.xdp:
            self._tiers(rules.pre_dnat, BEFORE_NAT, "allowed_by_host_policy")
            self._load(8, 1, "flags")
            self.a.alu(AND, 1, 12)
            self.a.branch(JNE, 1, 0, "allowed_by_host_policy" if rules.suppress_host else "to_or_from_host")
            self._tiers(rules.forward, DESTINATION, "allowed_by_host_policy")
            self.a.jump("allowed_by_host_policy")
        if not rules.suppress_host:
            self.a.label("to_or_from_host")
            self._tiers(rules.normal, BEFORE_NAT if rules.xdp else DESTINATION, "allowed_by_host_policy")
            if rules.xdp:
                self.a.jump("xdp_pass")
            else:
                self._profiles(rules.host_profiles, "allowed_by_host_policy")
        self.a.label("allowed_by_host_policy")
        if rules.host or rules.xdp:
            self.a.jump("allow")
        else:
            self._tiers(rules.tiers, DESTINATION, "allow")
            self._profiles(rules.profiles, "allow")

    def _footer(self) -> None:
        a = self.a
        a.label("deny")
        self._verdict(2, 52, 4)
        a.label("exit")
        a.exit(1 if self.rules.xdp else 2)
        if self.rules.xdp:
            a.label("xdp_pass")
            a.exit(2)
        if a.uses("allow"):
            a.label("allow")
            self._verdict(1, 48, 2)
            a.alu(MOV, 1, 10, bits=32)
            self._store(4, "pol_rc", 1)
            a.exit(1 if self.rules.xdp else 2)

    def _verdict(self, code: int, context_offset: int, index: int) -> None:
        a = self.a
        a.alu(MOV, 1, code, bits=32)
        self._store(4, "pol_rc", 1)
        a.alu_register(MOV, 1, 6)
        self._map(2, STATIC_FD)
        if self.rules.xdp:
            a.comment(f"{'Deny' if code == 2 else 'Allow'} jump to {index}")
            a.alu(MOV, 3, index, bits=32)
        else:
            a.load(4, 3, 6, context_offset)
        a.call(TAIL_CALL)

    def _maybe_split(self) -> bool:
        a = self.a
        jumps = sum(code & 7 in (5, 6) for code, *_ in a.slots)
        if jumps < self.style.split_after:
            return False
        a.comment(f"Splitting program after {jumps} jumps")
        a.alu(MOV, 0, 0)
        a.jump("next-program")
        self._footer()
        targets = [label for label in a.unresolved() if label != "next-program"]
        for number, label in enumerate(targets):
            a.label(label)
            a.alu(MOV, 0, number + 1)
            a.jump("next-program")
        if targets:
            del a.slots[-1], a.goto[len(a.slots)]  # the last one falls through
        a.label("next-program")
        self._store(4, "pol_rc", 0)
        a.alu_register(MOV, 1, 6)
        self._map(2, JUMP_FD)
        a.comment(f"Tail call to policy program at index {self._index()}")
        a.alu(MOV, 3, self._index())
        a.call(TAIL_CALL)
        a.exit(1 if self.rules.xdp else 2)
        self._start()
        self._load(4, 0, "pol_rc")
        self.a.alu(MOV, 1, 0, bits=32)
        self._store(4, "pol_rc", 1)
        for number, label in enumerate(targets):
            self.a.branch(JEQ, 0, number + 1, label)
        return True

    def _index(self) -> int:
        return self.style.entry + len(self.parts) * self.style.stride

    # -- policies --

    def _tiers(self, tiers: tuple[Tier, ...], leg: tuple[str, str], allow: str) -> None:
        for tier in tiers:
            end = f"end_of_tier_{self.tier_number}"
            labels = {"allow": allow, "deny": "deny", "pass": end, "log": "log"}
            self.a.comment(f"Start of tier {tier.name}")
            for policy in tier.policies:
                current = self.style.words == "v3.32"
                words = (
                    f"{policy.kind} {policy.full_name} {self.policy_number}"
                    if current
                    else f"policy {policy.full_name}"
                )
                self.a.comment(f"Start of {words}")
                self._rules(policy, labels, leg)
                self.a.comment(f"End of {words}")
                self.policy_number += 1
            self.a.comment(f"End of tier {tier.name}" + ("" if self.style.words == "v3.28" else f": {tier.end_action}"))
            end_id = tier.end_id if self.style.record_ends else 0
            self._rule(Rule(tier.end_action, end_id), labels[tier.end_action], leg)
            self.a.label(end)
            self.tier_number += 1

    def _profiles(self, profiles: tuple[Policy, ...], allow: str) -> None:
        for profile in profiles:
            self._rules(profile, {"allow": allow, "deny": "deny", "pass": "deny", "log": "log"}, DESTINATION)
            self.policy_number += 1
        self._rule(Rule("deny", self.rules.no_profile_id), "deny", DESTINATION)

    def _rules(self, policy: Policy, labels: dict[str, str], leg: tuple[str, str]) -> None:
        for number, rule in enumerate(policy.rules):
            if rule.action == "log" and self.style.words == "v3.28":
                continue
            action = "next-tier" if rule.action == "pass" else rule.action
            before = f"{policy.full_name} " if self.style.words == "v3.32" else ""
            self.a.comment(f'Start of rule {before}action:"{action}"  rule_id:"r{number}"')
            self.a.comment(f"Rule MatchID: {rule.match_id}")
            self._rule(rule, labels[rule.action], leg)
            self.a.comment(f"End of rule {before}r{number}")

    def _rule(self, rule: Rule, action: str, leg: tuple[str, str]) -> None:
        self._maybe_split()
        if rule.version not in (None, self.style.version):
            return
        skip = f"rule_{self.rule_number}_no_match"
        a = self.a
        for protocol, test in ((rule.protocol, JNE), (rule.not_protocol, JEQ)):
            if protocol is not None:
                name = protocol if isinstance(protocol, str) else PRINTED.get(protocol, "")
                a.comment(f"If protocol {'!=' if test == JNE else '=='} {name}, skip to next rule")
                self._load(1, 1, "ip_proto")
                a.branch(test, 1, protocol if isinstance(protocol, int) else PROTOCOLS.get(protocol, 0), skip)
        for nets, negate, side in (
            (rule.source_nets, False, SOURCE),
            (rule.not_source_nets, True, SOURCE),
            (rule.destination_nets, False, leg),
            (rule.not_destination_nets, True, leg),
        ):
            if nets:
                self._nets(nets, negate, side, skip)
        for number, negate, side, key in (
            (rule.source_set, False, SOURCE, SOURCE_KEY),
            (rule.not_source_set, True, SOURCE, SOURCE_KEY),
            (rule.destination_set, False, leg, DESTINATION_KEY),
            (rule.not_destination_set, True, leg, DESTINATION_KEY),
        ):
            if number:
                test = "matches" if negate else "doesn't match"
                a.comment(f"If {LEGS[side]} {test} ipset s:x{number} (0x{number:x}), skip to next rule")
                self._look_up(number, side, key)
                self.a.branch(JNE if negate else JEQ, 0, 0, skip)
        self._ports(rule.source_ports, 0, False, SOURCE, skip)
        self._ports(rule.destination_ports, rule.named_port_set, False, leg, skip)
        self._ports(rule.not_destination_ports, 0, True, leg, skip)
        if rule.icmp is not None:
            kind, code = rule.icmp
            a.comment(f"If ICMP type != {kind}{'' if code is None else f' or code != {code}'}, skip to next rule")
            self._load(1 if code is None else 2, 1, "icmp_type")
            self.a.branch(JNE, 1, kind if code is None else code << 8 | kind, skip)
        self._end(rule, action)
        self.a.label(skip)
        self.rule_number += 1
        self.piece = 0

    def _end(self, rule: Rule, action: str) -> None:
        a = self.a
        if action == "log":
            self._load(8, 1, "flags")
            a.alu(OR, 1, 0x400)
            self._store(8, "flags", 1)
            return
        if self.style.record:
            self._load(1, 1, "rules_hit")
            a.branch(JGE, 1, 32, action)
            a.alu_register(MOV, 2, 1)
            a.alu(ADD, 2, 1)
            self._store(1, "rules_hit", 2)
            a.alu(LSH, 1, 3)
            a.alu(ADD, 1, self._at("rule_ids"))
            a.wide(2, rule.match_id)
            a.alu_register(ADD, 1, 9)
            a.store(8, 1, 0, 2)
        a.jump(action)

    def _nets(self, nets: tuple[str, ...], negate: bool, leg: tuple[str, str], skip: str) -> None:
        matched = skip if negate else self._fresh()
        self.a.comment(f"If {LEGS[leg]} {'in' if negate else 'not in'} {{{','.join(nets)}}}, skip to next rule")
        for net in nets:
            self._maybe_split()
            network = ip_network(net)
            address, mask = network.network_address.packed, network.netmask.packed
            other = self._fresh()
            for word in range(0, len(address), 4):
                last = word + 4 == len(address)
                self._load(4, 1, leg[0], word)
                self.a.alu(MOV, 2, int.from_bytes(mask[word : word + 4], "little"), bits=32)
                self.a.alu_register(AND, 2, 1, bits=32)
                value = int.from_bytes(address[word : word + 4], "little")
                self.a.branch(JEQ if last else JNE, 2, value, matched if last else other, bits=32)
            self.a.label(other)
        if not negate:
            self.a.jump(skip)
            self.a.label(matched)

    def _ports(
        self, ports: tuple[tuple[int, int], ...], named: int, negate: bool, leg: tuple[str, str], skip: str
    ) -> None:
        if not ports and not named:
            return
        matched = skip if negate else self._fresh()
        test = f"If {LEGS[leg]} port is {'' if negate else 'not '}within any of"
        listed = ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in ports)
        self.a.comment(f"{test} {{{listed}}}, skip to next rule")
        self._load(2, 1, leg[1])
        for low, high in ports:
            other = self._fresh()
            if low == high:
                self.a.branch(JEQ, 1, low, matched)
            else:
                if low:
                    self.a.branch(JLT, 1, low, other)
                self.a.branch(JLE, 1, high, matched)
            self.a.label(other)
            if self._maybe_split():
                self._load(2, 1, leg[1])
        self.a.comment(f"{test} the named ports {{{f'n:x{named}' if named else ''}}}, skip to next rule")
        if named:
            self._look_up(named, leg, SOURCE_KEY if leg is SOURCE else DESTINATION_KEY)
            self.a.branch(JNE, 0, 0, matched)
        if not negate:
            self.a.jump(skip)
            self.a.label(matched)

    def _look_up(self, number: int, leg: tuple[str, str], key: int) -> None:
        a, wide = self.a, self.style.version == 6
        later = 12 if wide else 0
        a.alu(MOV, 1, 0)
        a.store(1, 10, key + 19 + later, 1)
        a.alu(MOV, 1, 224 if wide else 128)
        a.store(4, 10, key, 1)
        for word in (0, 8) if wide else (0,):
            self._load(8 if wide else 4, 1, leg[0], word)
            a.store(8 if wide else 4, 10, key + 12 + word, 1)
        self._load(2, 1, leg[1])
        a.store(2, 10, key + 16 + later, 1)
        self._load(1, 1, "ip_proto")
        a.store(1, 10, key + 18 + later, 1)
        swapped = int.from_bytes(number.to_bytes(8, "big"), "little")
        a.alu(MOV, 1, swapped & 0xFFFFFFFF, bits=32)
        a.store(4, 10, key + 4, 1)
        a.alu(MOV, 1, swapped >> 32, bits=32)
        a.store(4, 10, key + 8, 1)
        self._map(1, SETS_FD)
        a.alu_register(MOV, 2, 10)
        a.alu(ADD, 2, key)
        a.call(LOOKUP)

    # -- small things --

    def _fresh(self) -> str:
        self.piece += 1
        return f"rule_{self.rule_number}_part_{self.piece}"

    def _at(self, name: str) -> int:
        return FIELDS[name] - 8 + self.style.header

    def _load(self, size: int, register: int, name: str, word: int = 0) -> None:
        at = self._at(name) + word
        note = f"R{register} = *(u{size * 8} *)(R9 + {at}) /* state->{name} */"
        self.a.load(size, register, 9, at, note)

    def _store(self, size: int, name: str, register: int) -> None:
        self.a.store(size, 9, self._at(name), register)

    def _map(self, register: int, descriptor: int) -> None:
        self.a.wide(register, self.style.descriptors.get(descriptor, descriptor), 1)


def debug_file(rules: Rules, style: Style | None = None, interface: str = "cali0123456789a", error: str = "") -> bytes:
    """The debug file that such a program would leave."""
    info: list[dict[str, Any]] = []
    for part in Builder(rules, style or Style()).parts:
        info += part.policy_info()
    hook = "tc xdp" if rules.xdp else "tc ingress"
    return json.dumps({"ifacename": interface, "hook": hook, "policyInfo": info, "error": error}).encode() + b"\n"
