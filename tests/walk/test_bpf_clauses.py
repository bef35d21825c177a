"""The rules that a denied packet missed, and by which of their clauses."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address, ip_network

import pytest

from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.model.bytecode import Clause, SectionKind
from calico_debug.model.values import unknown
from calico_debug.walk.bpf_clauses import MissedRule, missed_rules
from calico_debug.walk.bpf_machine import execute
from calico_debug.walk.bpf_memory import Region
from calico_debug.walk.bpf_policy import PolicyMaps, PolicyProgram, PolicyRun, policy_of_debug
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import PolicyPacket, state_of
from calico_debug.walk.choices import Chooser, Unsure
from tests.bytecode import generated
from tests.bytecode.felix import PROTOCOLS, Policy, Rule, Rules, Style, Tier, debug_file
from tests.bytecode.recorded import RECORDED, RecordedCluster
from tests.recordings import Recording

ALICE, BOB = 0x0A010203, 0x0A000002


class Sets:
    """IP sets by number: networks, or (address, protocol, port)."""

    def __init__(self, members: dict[int, list[str | tuple[str, int, int]]], version: int = 4) -> None:
        self.members, self.version = members, version
        self.trie = PrefixTrie(KEY_BYTES[version], [self._key(n, one) for n, many in members.items() for one in many])

    def _key(self, number: int, member: str | tuple[str, int, int]) -> bytes:
        network, protocol, port = (member, 0, 0) if isinstance(member, str) else member
        net = ip_network(network)
        length = 64 + net.prefixlen + (24 if port else 0)
        tail = struct.pack("<HBB", port, protocol, 0)
        return struct.pack("<I", length) + struct.pack(">Q", number) + net.network_address.packed + tail

    def in_ip_set(self, _version: int, key: bytes, known: bytes) -> bool | Unsure:
        return self.trie.contains(key, known)

    def sub_program(self, _index: int) -> None:
        return None

    def holds(self, number: int, address: int, protocol: int, port: int) -> bool:
        for member in self.members.get(number, []):
            network, wanted, at = (member, 0, 0) if isinstance(member, str) else member
            if _address(self.version, address) in ip_network(network) and (not at or (wanted, at) == (protocol, port)):
                return True
        return False


def _address(version: int, number: int) -> object:
    return ip_address(number.to_bytes(4 if version == 4 else 16, "big"))


def workload(*rules: Rule, style: Style | None = None) -> PolicyProgram:
    made = Rules((Tier("t", (Policy("x", rules),), "deny", 9),), no_profile_id=0, suppress_host=True)
    return policy_of_debug(decode_policy_debug(debug_file(made, style), "a program"), 4)


def missed(
    program: PolicyProgram, packet: PolicyPacket, sets: Sets | None = None, *, host: bool = False
) -> tuple[MissedRule, ...]:
    sets = sets or Sets({})
    return missed_rules(program, program.run(packet, sets, Chooser()), packet, sets, host=host)


def tcp(port: int, **more: object) -> PolicyPacket:
    return PolicyPacket(4, 6, ALICE, BOB, 40000, port, **more)  # type: ignore[arg-type]


def kinds(rules: tuple[MissedRule, ...]) -> list[tuple[int, list[str]]]:
    return [(rule.section.index, [clause.kind for clause in rule.failed]) for rule in rules]


def test_every_clause_that_failed_is_found() -> None:
    program = workload(
        Rule("deny", 1, destination_ports=((22, 22),)),
        Rule("allow", 2, protocol="udp", source_nets=("192.168.0.0/16",), destination_ports=((80, 80), (8000, 8100))),
        Rule("allow", 3, not_source_nets=("10.0.0.0/8",), destination_nets=("10.0.0.2/32",), named_port_set=5),
    )
    first, second = missed(program, tcp(80), Sets({5: [("10.0.0.2/32", 6, 81)]}))
    assert first.failed == (Clause("protocol", "udp"), Clause("source", "192.168.0.0/16"))
    assert second.failed == (
        Clause("source", "10.0.0.0/8", negated=True),
        Clause("destination ports", "set n:x5", by_set=True, with_ports=True),
    )
    assert (first.section.index, second.section.index) == (1, 2)


def test_nothing_is_said_where_a_comparison_is_open() -> None:
    program = workload(Rule("allow", 2, protocol="udp", source_ports=((80, 80),)), Rule("allow", 3, protocol="udp"))
    assert len(missed(program, tcp(80))) == 2
    assert missed(program, PolicyPacket(4, 6, ALICE, BOB, unknown(16, "not given"), 80)) == ()


def test_nothing_is_said_of_rules_in_two_parts() -> None:
    networks = tuple(f"192.168.{n}.0/24" for n in range(9))
    assert len(missed(workload(Rule("allow", 1, source_nets=networks)), tcp(80))) == 1
    assert missed(workload(Rule("allow", 1, source_nets=networks), style=Style(split_after=6)), tcp(80)) == ()


def test_rules_in_an_earlier_part_count_too() -> None:
    rules = [Rule("allow", n, protocol="udp", source_set=n) for n in range(1, 9)]
    program = workload(*rules, style=Style(split_after=9))
    assert len(program.parts) > 1
    assert [index for index, _ in kinds(missed(program, tcp(80)))] == list(range(8))


def test_only_the_tier_that_denied_is_looked_at() -> None:
    passing = Tier("first", (Policy("a", (Rule("allow", 1, protocol="udp"),)),), "pass", 8)
    last = Tier("t", (Policy("x", (Rule("allow", 2, protocol="sctp"),)),), "deny", 9)
    made = Rules((passing, last), no_profile_id=0, suppress_host=True)
    program = policy_of_debug(decode_policy_debug(debug_file(made), "a program"), 4)
    assert [rule.section.name for rule in missed(program, tcp(80))] == ["x"]


def test_other_ends_than_a_tier_s_have_no_closest_rule() -> None:
    allow = Rule("allow", 1, protocol="udp")
    assert missed(workload(allow, Rule("deny", 2)), tcp(80)) == ()
    assert missed(workload(allow), PolicyPacket(4, 17, ALICE, BOB, 40000, 80)) == ()


def test_a_host_s_tier_in_a_pod_s_program_is_not_told() -> None:
    """A wildcard host endpoint's forward policy: ingress there is what leaves the pod."""
    forward = Tier("h", (Policy("aof", (Rule("allow", 1, protocol="udp"),)),), "deny", 9)
    made = Rules((Tier("t", ()),), no_profile_id=0, suppress_host=True, forward=(forward,))
    pod = policy_of_debug(decode_policy_debug(debug_file(made), "a program"), 4)
    assert missed(pod, tcp(80)) == ()
    own = Rules(host=True, forward=(forward,))
    host = policy_of_debug(decode_policy_debug(debug_file(own), "a program"), 4)
    assert kinds(missed(host, tcp(80), host=True)) == [(0, ["protocol"])]


@pytest.mark.parametrize("words", ["v3.28", "v3.31", "v3.32"])
@pytest.mark.parametrize("version", [4, 6])
def test_generated_policies_fail_by_the_clauses_that_do_not_hold(version: int, words: str) -> None:
    """The oracle is the policy itself, evaluated clause by clause."""
    rng = random.Random(f"clauses {version} {words}")
    seen = 0
    for _ in range(60):
        tier = Tier("t", generated.policies(rng, version, 3, 256), "deny", 9)
        made = Rules((tier,), no_profile_id=0, suppress_host=True)
        debug = decode_policy_debug(debug_file(made, Style(version, words=words)), "a program")
        program = policy_of_debug(debug, version)
        members: list[str | tuple[str, int, int]] = [
            generated.NETS[version][2],
            (generated.HOSTS[version][1], 6, 80),
        ]
        sets = Sets({generated.SETS[0]: members, generated.SETS[1]: [generated.NETS[version][0]]}, version)
        rules = {(policy.name, n): rule for policy in tier.policies for n, rule in enumerate(_listed(policy, words))}
        for _ in range(20):
            packet = generated.packet(rng, version)
            found = missed_rules(program, run := program.run(packet, sets, Chooser()), packet, sets, host=False)
            if not _ended_there(run):
                assert found == ()
                continue
            wanted = {
                place: failed
                for place, rule in rules.items()
                if rule.action == "allow" and rule.version in (None, version) and (failed := _fails(rule, packet, sets))
            }
            assert {(rule.section.name, rule.section.index): [c.kind for c in rule.failed] for rule in found} == wanted
            seen += len(found)
    assert seen > 100


def _listed(policy: Policy, words: str) -> list[Rule]:
    return [rule for rule in policy.rules if words != "v3.28" or rule.action != "log"]


def _ended_there(run: PolicyRun) -> bool:
    last = run.hits[-1].section
    return last is not None and last.kind is SectionKind.END_OF_TIER


def _fails(rule: Rule, packet: PolicyPacket, sets: Sets) -> list[str]:
    assert isinstance(packet.source, int)
    assert isinstance(packet.destination, int)
    protocol, version = packet.protocol, packet.version
    ends = {"source": (packet.source, packet.source_port), "destination": (packet.destination, packet.destination_port)}
    source, destination = (_address(version, ends[side][0]) for side in ends)

    def number(name: str | int | None) -> int:
        return name if isinstance(name, int) else PROTOCOLS.get(str(name), 0)

    def member(index: int, side: str) -> bool:
        return sets.holds(index, ends[side][0], protocol, ends[side][1])  # type: ignore[arg-type]

    def within(ports: tuple[tuple[int, int], ...], side: str) -> bool:
        return any(low <= ends[side][1] <= high for low, high in ports)  # type: ignore[operator]

    def covered(address: object, nets: tuple[str, ...]) -> bool:
        return any(address in ip_network(net) for net in nets)

    type_and_code = packet.original_port  # where programs look for them, whatever the protocol
    assert isinstance(type_and_code, int)
    kind, code = type_and_code & 0xFF, type_and_code >> 8
    checks = [
        ("protocol", rule.protocol is not None and number(rule.protocol) != protocol),
        ("protocol", rule.not_protocol is not None and number(rule.not_protocol) == protocol),
        ("source", bool(rule.source_nets) and not covered(source, rule.source_nets)),
        ("source", covered(source, rule.not_source_nets)),
        ("destination", bool(rule.destination_nets) and not covered(destination, rule.destination_nets)),
        ("destination", covered(destination, rule.not_destination_nets)),
        ("source", bool(rule.source_set) and not member(rule.source_set, "source")),
        ("source", bool(rule.not_source_set) and member(rule.not_source_set, "source")),
        ("destination", bool(rule.destination_set) and not member(rule.destination_set, "destination")),
        ("destination", bool(rule.not_destination_set) and member(rule.not_destination_set, "destination")),
        ("source ports", bool(rule.source_ports) and not within(rule.source_ports, "source")),
        (
            "destination ports",
            bool(rule.destination_ports or rule.named_port_set)
            and not within(rule.destination_ports, "destination")
            and not (rule.named_port_set and member(rule.named_port_set, "destination")),
        ),
        ("destination ports", within(rule.not_destination_ports, "destination")),
        ("icmp", rule.icmp is not None and (kind != rule.icmp[0] or rule.icmp[1] not in (None, code))),
    ]
    return [name for name, failed in checks if failed]


@RECORDED
def test_recorded_programs_left_each_rule_at_the_first_clause_that_failed(recording: Recording) -> None:
    cluster = RecordedCluster(recording)
    checked = 0
    for node_name, node in cluster.nodes.items():
        packets = [one for probe in cluster.probes[::9] for one in list(cluster.packets(probe, node_name))[:2]]
        for name, debug in node.debug_files():
            program = policy_of_debug(debug, int(name[-1]))
            for packet in packets if program.version == cluster.version and not program.xdp else ():
                host = debug.interface.startswith("eth")
                found = missed_rules(program, program.run(packet, node, Chooser()), packet, node, host=host)
                left = _left_at(program, packet, node) if found else {}
                for rule in found:
                    assert rule.failed[0] is left[id(rule.section)]
                    checked += 1
    assert checked > 20


def _left_at(program: PolicyProgram, packet: PolicyPacket, maps: PolicyMaps) -> dict[int, Clause]:
    """The last clause that a run met in each section, by the section's identity."""
    state = state_of(packet, program.layout)
    context = Region("context", bytes(256), known=False, writable=False, aligned=True)
    outcome = execute(program.parts[0], context, program.answers(state, maps), Chooser(), 1_000_000)
    met = {}
    for part, slots in outcome.trace:
        for slot in slots:
            if slot in part.program.clauses and slot in part.program.sections:
                met[id(part.program.sections[slot])] = part.program.clauses[slot]
    return met
