"""Rules of policy programs that are claimed to be unreachable, against the programs' own code."""

from __future__ import annotations

import random
from ipaddress import ip_network

import pytest

from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.explain.listing.policy_view import POD, EndpointView, PolicyView, RuleView, TierView
from calico_debug.hits.boxes import Values, ranges
from calico_debug.hits.model import ALWAYS, EMPTY, UNREACHABLE
from calico_debug.hits.programs import Proofs
from calico_debug.model.explanation import PolicyRef
from calico_debug.walk.bpf_policy import PolicyProgram, policy_of_debug
from calico_debug.walk.choices import Chooser
from tests.bytecode import generated
from tests.bytecode.felix import Policy, Rule, Rules, Tier, debug_file
from tests.walk.test_bpf_policy import Sets, member

PACKETS = 60
SETS = {0x11: ("10.1.0.0/16", "192.168.0.0/17"), 0x22: ("10.1.2.3/32",), 0x33: ()}
ACTIONS = {"allow": "Allow", "deny": "Deny", "pass": "Pass", "log": "Log"}


def words(rule: Rule) -> str:
    """The rule as Felix prints it (felix/proto/felixbackend.proto, message Rule, in Go's text form)."""
    found = []
    for name, protocol in (("protocol", rule.protocol), ("not_protocol", rule.not_protocol)):
        if protocol is not None:
            found.append(f"{name}:{{{'number:' if isinstance(protocol, int) else 'name:'}{quoted(protocol)}}}")
    for name, nets in (
        ("src_net", rule.source_nets),
        ("not_src_net", rule.not_source_nets),
        ("dst_net", rule.destination_nets),
        ("not_dst_net", rule.not_destination_nets),
    ):
        found += [f'{name}:"{net}"' for net in nets]
    for name, number in (
        ("src_ip_set_ids", rule.source_set),
        ("not_src_ip_set_ids", rule.not_source_set),
        ("dst_ip_set_ids", rule.destination_set),
        ("not_dst_ip_set_ids", rule.not_destination_set),
        ("dst_named_port_ip_set_ids", rule.named_port_set),
    ):
        found += [f'{name}:"s:{number:x}"'] if number else []
    for name, spans in (
        ("src_ports", rule.source_ports),
        ("dst_ports", rule.destination_ports),
        ("not_dst_ports", rule.not_destination_ports),
    ):
        found += [f"{name}:{{first:{first}  last:{last}}}" for first, last in spans]
    if rule.icmp is not None:
        kind, code = rule.icmp
        found.append(f"icmp_type:{kind}" if code is None else f"icmp_type_code:{{type:{kind} code:{code}}}")
    return " ".join(found) or "everything"


def quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else f'"{value}"'


def view(tier: Tier) -> EndpointView:
    policies = tuple(
        PolicyView(
            PolicyRef(policy.kind, policy.name),
            tuple(
                RuleView(
                    ACTIONS[rule.action],
                    index,
                    programmed=words(rule),
                    rule_id=str(rule.match_id),
                    absent="it is not of IPv4" if rule.version == 6 or not_of_ipv4(rule) else "",
                )
                for index, rule in enumerate(policy.rules)
            ),
        )
        for policy in tier.policies
    )
    shown = TierView(tier.name, policies, RuleView("Deny"))
    return EndpointView("node1", "ebpf", "cali1", POD, "ingress", 4, "", "", tiers=(shown,))


def not_of_ipv4(rule: Rule) -> bool:
    """Felix leaves such a rule out of the program (FilterRuleToIPVersion in felix/rules/policy.go)."""
    return "0.0.0.0/0" in (*rule.not_source_nets, *rule.not_destination_nets)


def known(name: str) -> Values | None:
    number = int(name.removeprefix("s:"), 16)
    if number not in SETS:
        return None
    nets = map(ip_network, SETS[number])
    return ranges((int(net.network_address), int(net.broadcast_address)) for net in nets)


def members() -> Sets:
    return Sets(
        *(
            member(number, int(ip_network(net).network_address), ip_network(net).prefixlen)
            for number, nets in SETS.items()
            for net in nets
        )
    )


def program(tier: Tier) -> PolicyProgram:
    debug = decode_policy_debug(debug_file(Rules(tiers=(tier,), suppress_host=True)), "a program")
    return policy_of_debug(debug, 4)


def claimed(tier: Tier) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {
        rule.rule_id: (standing, holds, tuple(other.rule_id for _, other, _ in by))
        for (_, rule, _), (standing, holds, by) in Proofs().of(view(tier), known)
    }


def tier(*rules: Rule) -> Tier:
    return Tier("default", (Policy("one", rules[:1]), Policy("two", rules[1:])))


def test_shadowed_in_a_later_policy() -> None:
    found = claimed(
        tier(
            Rule("allow", 1, protocol="tcp", destination_ports=((80, 90),)),
            Rule("deny", 2, protocol="tcp", destination_ports=((85, 85),), source_nets=("10.0.0.0/8",)),
            Rule("pass", 3, protocol="udp"),
            Rule("allow", 4, protocol=17),
            Rule("allow", 5, protocol="tcp"),
        )
    )
    assert found == {"2": (UNREACHABLE, ALWAYS, ("1",)), "4": (UNREACHABLE, ALWAYS, ("3",))}


def test_an_empty_set_and_members_of_a_network() -> None:
    found = claimed(
        tier(
            Rule("deny", 1, source_nets=("10.0.0.0/8",)),
            Rule("allow", 2, source_set=0x22),
            Rule("allow", 3, source_set=0x33),
            Rule("allow", 4, source_set=0x11),
            Rule("allow", 5, source_set=0x44),
        )
    )
    assert {number: standing for number, (standing, _, _) in found.items()} == {"2": UNREACHABLE, "3": EMPTY}
    assert all(holds != ALWAYS for _, holds, _ in found.values())


def test_a_rule_that_logs_shadows_nothing() -> None:
    assert claimed(tier(Rule("log"), Rule("allow", 2))) == {}


def test_no_packet_gets_to_a_rule_that_is_claimed_to_be_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "SETS", tuple(SETS))
    sets, claims, met = members(), 0, 0
    for seed in range(40):
        rng = random.Random(seed)
        made = Tier("default", generated.policies(rng, 4, 5, 1))
        own = {str(rule.match_id) for policy in made.policies for rule in policy.rules}
        found, code = claimed(made), program(made)
        claims += len(found)
        for _ in range(PACKETS):
            packet = generated.packet(rng, 4)
            hits = {str(hit.rule_id) for hit in code.run(packet, sets, Chooser()).hits}
            assert not hits & found.keys(), (seed, packet, found)
            met += len(hits & own)
    assert claims > 20
    assert met > 500
