"""Policy programs: what they decide, and what their decisions are called."""

from __future__ import annotations

import struct
import time
from functools import cache

import pytest

from calico_debug.decode.bpf_instructions import fingerprint, from_xlated
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.model.bytecode import BytecodeError, Program, Section, SectionKind
from calico_debug.model.values import unknown
from calico_debug.walk.bpf_policy import Hit, PolicyProgram, PolicyRun, Verdict, policy_of_debug
from calico_debug.walk.bpf_sets import PrefixTrie
from calico_debug.walk.bpf_state import LAYOUTS, PolicyPacket
from calico_debug.walk.choices import Chooser, Unsure, explore
from calico_debug.walk.context import Undecided
from tests.bytecode.assembler import MOV, Assembler
from tests.bytecode.felix import Builder, Policy, Rule, Rules, Style, Tier, debug_file
from tests.bytecode.recorded import RECORDED, RecordedCluster, octets
from tests.recordings import Recording

ALICE, BOB, WEB = 0x0A000001, 0x0A000002, 0xAAAA0000BBBB


class Sets:
    """IP sets of two members, and parts of programs by index."""

    def __init__(self, *keys: bytes, parts: dict[int, Program] | None = None) -> None:
        self.trie = PrefixTrie(20, keys)
        self.parts = parts or {}

    def in_ip_set(self, version: int, key: bytes, known: bytes) -> bool | Unsure:
        assert version == 4
        return self.trie.contains(key, known)

    def sub_program(self, index: int) -> Program | None:
        return self.parts.get(index)


def member(number: int, address: int, bits: int = 32, port: int = 0, protocol: int = 0) -> bytes:
    length = 64 + bits + (24 if port else 0)
    return struct.pack("<I", length) + struct.pack(">QI", number, address) + struct.pack("<HBB", port, protocol, 0)


def run(rules: Rules, packet: PolicyPacket, style: Style | None = None, sets: Sets | None = None) -> PolicyRun:
    debug = decode_policy_debug(debug_file(rules, style), "a program")
    return policy_of_debug(debug, 4).run(packet, sets or Sets(), Chooser())


def told(result: PolicyRun) -> list[tuple[int | None, str]]:
    return [(hit.rule_id, name_of(hit)) for hit in result.hits]


def name_of(hit: Hit) -> str:
    section = hit.section
    assert section is not None
    if section.kind is SectionKind.RULE:
        return f"{section.owner} {section.name} rule {section.index} {section.action}"
    return f"{section.kind.value} {section.tier}".strip()


def tcp(port: int, source: int = ALICE, **more: object) -> PolicyPacket:
    return PolicyPacket(4, 6, source, BOB, 40000, port, **more)  # type: ignore[arg-type]


GUARD = Policy(
    "guard",
    (Rule("log"), Rule("deny", 11, protocol="tcp", destination_ports=((22, 22),)), Rule("pass", 12, protocol="tcp")),
)
SHOP = Policy("web", (Rule("allow", 21, destination_ports=((80, 80), (8000, 8100))),), "NetworkPolicy", "shop")
PROFILE = Policy("kns.shop", (Rule("allow", 31, destination_ports=((53, 53),)),))
WORKLOAD = Rules(
    tiers=(Tier("security", (GUARD,), "pass", 19), Tier("default", (SHOP,), "deny", 29)),
    profiles=(PROFILE,),
    no_profile_id=0,
    suppress_host=True,
)


class TestDecisions:
    def test_a_rule_allows_after_a_pass(self) -> None:
        result = run(WORKLOAD, tcp(8050))
        assert result.verdict is Verdict.ALLOWED
        assert told(result) == [(12, "GlobalNetworkPolicy guard rule 2 pass"), (21, "NetworkPolicy web rule 0 allow")]
        assert result.rule_ids == (12, 21)
        assert result.decision == result.hits[1]
        assert [section.index for section in result.logged if section] == [0]

    def test_a_rule_denies(self) -> None:
        result = run(WORKLOAD, tcp(22))
        assert (result.verdict, told(result)) == (Verdict.DENIED, [(11, "GlobalNetworkPolicy guard rule 1 deny")])

    def test_the_end_of_a_tier_denies(self) -> None:
        result = run(WORKLOAD, tcp(443))
        assert result.verdict is Verdict.DENIED
        assert told(result)[1:] == [(29, "end-of-tier default")]
        assert result.decision == result.hits[1]

    def test_the_end_of_a_tier_passes(self) -> None:
        result = run(WORKLOAD, PolicyPacket(4, 17, ALICE, BOB, 1, 80))
        assert told(result) == [(19, "end-of-tier security"), (21, "NetworkPolicy web rule 0 allow")]

    @pytest.mark.parametrize(
        ("port", "verdict", "last"),
        [(53, Verdict.ALLOWED, (31, "Profile kns.shop rule 0 allow")), (54, Verdict.DENIED, (0, "no-profile"))],
    )
    def test_profiles(self, port: int, verdict: Verdict, last: tuple[int, str]) -> None:
        rules = Rules(tiers=(Tier("security", (GUARD,), "pass", 19),), profiles=(PROFILE,), suppress_host=True)
        result = run(rules, tcp(port))
        assert (result.verdict, told(result)[-1]) == (verdict, last)

    def test_no_policy_at_all(self) -> None:
        result = run(Rules(suppress_host=True), tcp(80))
        assert (result.verdict, told(result)) == (Verdict.DENIED, [(0, "no-profile")])

    @pytest.mark.parametrize("split", [3, 5, 7, 11])
    @pytest.mark.parametrize("port", [22, 53, 80, 8050, 443])
    def test_parts_decide_as_the_whole(self, split: int, port: int) -> None:
        whole, parts = run(WORKLOAD, tcp(port)), run(WORKLOAD, tcp(port), Style(split_after=split))
        assert parts == whole


class TestReleases:
    def test_without_a_header(self) -> None:
        style = Style(header=0, record_ends=False, words="v3.28")
        for port, last in ((443, (0, "end-of-tier default")), (22, (11, " guard rule 0 deny"))):
            result = run(WORKLOAD, tcp(port), style)
            assert (result.verdict, told(result)[-1]) == (Verdict.DENIED, last)

    @pytest.mark.parametrize("words", ["v3.28", "v3.30", "v3.32"])
    def test_uncounted_decisions_have_their_name(self, words: str) -> None:
        style = Style(record=False, words=words)
        ended = run(WORKLOAD, tcp(443), style)
        assert ended.rule_ids == ()
        assert [hit.rule_id for hit in ended.hits] == [None, None]
        assert name_of(ended.hits[-1]) == "end-of-tier default"
        assert told(run(Rules(suppress_host=True), tcp(443), style)) == [(None, "no-profile")]

    def test_more_than_are_noted(self) -> None:
        tiers = tuple(Tier(f"t{n}", (Policy("p", (Rule("pass", 500 + n),)),)) for n in range(33))
        result = run(Rules(tiers=tiers, suppress_host=True), tcp(80))
        assert [hit.rule_id for hit in result.hits] == [*range(500, 532), None, None]
        assert [name_of(hit) for hit in result.hits][-2:] == [
            "GlobalNetworkPolicy p rule 0 pass",
            "no-profile",
        ]


class TestHost:
    RULES = Rules(
        host=True,
        pre_dnat=(
            Tier(
                "security", (Policy("nodeports", (Rule("deny", 41, destination_ports=((30180, 30180),)),)),), "pass", 49
            ),
        ),
        normal=(Tier("default", (Policy("ssh", (Rule("allow", 51, destination_ports=((22, 22),)),)),), "deny", 59),),
    )

    def test_policy_before_translation(self) -> None:
        result = run(self.RULES, tcp(80, original_port=30180))
        assert (result.verdict, result.rule_ids) == (Verdict.DENIED, (41,))

    def test_forwarded_packets_skip_the_node_s_own_policy(self) -> None:
        result = run(self.RULES, tcp(80))
        assert (result.verdict, told(result)) == (Verdict.ALLOWED, [(49, "end-of-tier security")])
        assert result.decision is None

    def test_packets_to_the_node(self) -> None:
        assert run(self.RULES, tcp(22, to_host=True)).rule_ids == (49, 51)
        assert told(run(self.RULES, tcp(23, to_host=True)))[-1] == (59, "end-of-tier default")

    def test_untracked(self) -> None:
        tier = Tier(
            "default",
            (Policy("ddos", (Rule("deny", 61, source_nets=("10.0.0.0/31",)), Rule("allow", 62, protocol="udp"))),),
            "pass",
            69,
        )
        rules = Rules(normal=(tier,), xdp=True)
        assert run(rules, tcp(80)).verdict is Verdict.DENIED
        assert run(rules, PolicyPacket(4, 17, BOB, ALICE, 1, 1)).verdict is Verdict.ALLOWED
        passed = run(rules, tcp(80, source=BOB))
        assert passed.decision is None
        assert (passed.verdict, told(passed)) == (Verdict.PASSED, [(69, "end-of-tier default")])


class TestSets:
    RULES = Rules(
        tiers=(
            Tier(
                "default",
                (Policy("p", (Rule("allow", 1, source_set=WEB), Rule("allow", 2, named_port_set=WEB + 1))),),
                "deny",
                9,
            ),
        ),
        suppress_host=True,
    )

    def test_networks_and_named_ports(self) -> None:
        sets = Sets(member(WEB, 0x0A000000, 31), member(WEB + 1, BOB, port=80, protocol=6))
        assert run(self.RULES, tcp(443), sets=sets).rule_ids == (1,)
        assert run(self.RULES, tcp(80, source=BOB), sets=sets).rule_ids == (2,)
        assert run(self.RULES, tcp(81, source=BOB), sets=sets).rule_ids == (9,)

    def test_an_open_source_port_is_no_matter_for_networks(self) -> None:
        sets = Sets(member(WEB, 0x0A000000, 31))
        packet = PolicyPacket(4, 6, ALICE, BOB, unknown(16, "source port: not given"), 80)
        chooser = Chooser()
        debug = decode_policy_debug(debug_file(self.RULES), "a program")
        assert policy_of_debug(debug, 4).run(packet, sets, chooser).rule_ids == (1,)
        assert chooser.choices == []


class TestOpenPackets:
    def alternatives(self, rules: Rules, packet: PolicyPacket) -> dict[tuple[int, ...], str]:
        program = policy_of_debug(decode_policy_debug(debug_file(rules), "a program"), 4)

        def once(chooser: Chooser) -> PolicyRun:
            return program.run(packet, Sets(), chooser)

        return {one.result.rule_ids: ", ".join(choice.why for choice in one.choices) for one in explore(once, 50)}

    def test_each_answer_is_found_and_no_impossible_one(self) -> None:
        ports = unknown(16, "destination port: not given")
        policy = Policy(
            "p",
            (
                Rule("allow", 1, destination_ports=((80, 90),)),
                Rule("deny", 2, destination_ports=((85, 88),)),
                Rule("deny", 3, destination_ports=((443, 443),)),
                Rule("deny", 4, destination_ports=((443, 443),)),
            ),
        )
        rules = Rules(tiers=(Tier("t", (policy,), "deny", 9),), suppress_host=True)
        found = self.alternatives(rules, PolicyPacket(4, 6, ALICE, BOB, 1, ports))
        assert set(found) == {(1,), (3,), (9,)}
        assert all("destination port: not given" in why for why in found.values())

    def test_what_is_open_and_does_not_matter(self) -> None:
        packet = PolicyPacket(4, 6, unknown(32, "source: not given"), BOB, 1, 22)
        assert self.alternatives(WORKLOAD, packet) == {(11,): ""}

    def test_an_open_protocol(self) -> None:
        packet = PolicyPacket(4, unknown(8, "protocol: not given"), ALICE, BOB, 1, 22)
        assert set(self.alternatives(WORKLOAD, packet)) == {(11,), (19, 29)}


class TestWithoutComments:
    def test_only_ids_are_known(self) -> None:
        [part] = Builder(WORKLOAD, Style()).parts
        program = PolicyProgram([Program(part.instructions())], 4, LAYOUTS[-1])
        result = program.run(tcp(80), Sets(), Chooser())
        assert result == PolicyRun(Verdict.ALLOWED, (Hit(12, None), Hit(21, None)), (12, 21), (None,))

    def test_names_of_ids(self) -> None:
        [part] = Builder(WORKLOAD, Style()).parts
        program = PolicyProgram([Program(part.instructions())], 4, LAYOUTS[-1])
        assert program.noted_ids == {11, 12, 19, 21, 29}  # nothing gets beyond the last tier
        end = Section(SectionKind.END_OF_TIER, "default", match_id=29, action="deny")
        program.names[29] = end
        assert program.run(tcp(443), Sets(), Chooser()).hits == (Hit(12, None), Hit(29, end))
        [alone] = Builder(Rules(suppress_host=True), Style()).parts
        nothing = PolicyProgram([Program(alone.instructions())], 4, LAYOUTS[-1])
        nothing.names[29] = end
        assert told(nothing.run(tcp(443), Sets(), Chooser())) == [(0, "no-profile")]

    def test_later_parts_are_found_in_the_jump_map(self) -> None:
        parts = [Program(part.instructions()) for part in Builder(WORKLOAD, Style(split_after=10)).parts]
        assert len(parts) > 2
        program = PolicyProgram(parts[:1], 4, LAYOUTS[-1])
        found = Sets(parts={3 + 10000 * number: part for number, part in enumerate(parts)})
        assert program.run(tcp(443), found, Chooser()).rule_ids == (12, 29)
        missing = program.run(tcp(443), Sets(), Chooser())
        assert missing.verdict is Verdict.BROKEN
        assert "missing" in missing.detail


class TestWhatCannotBeDecided:
    def header(self) -> Assembler:
        code = Assembler()
        code.alu_register(MOV, 6, 1)
        return code

    def of(self, code: Assembler) -> PolicyProgram:
        return PolicyProgram([Program(code.instructions())], 4, LAYOUTS[-1])

    def test_an_unknown_helper(self) -> None:
        code = self.header()
        code.call(93)
        code.exit()
        with pytest.raises(Undecided, match="helper number 93, which is not understood"):
            self.of(code).run(tcp(80), Sets(), Chooser())

    def test_an_unknown_map(self) -> None:
        code = self.header()
        code.wide(1, 99, 1)
        code.slots += [(0xBF, 7, 1, 0, 0)] * 12
        code.alu_register(MOV, 2, 10)
        code.call(1)
        code.exit()
        with pytest.raises(Undecided, match="map fd 99"):
            self.of(code).run(tcp(80), Sets(), Chooser())

    def test_another_family(self) -> None:
        program = policy_of_debug(decode_policy_debug(debug_file(WORKLOAD), "a program"), 4)
        with pytest.raises(Undecided, match="IPv6 packet and a policy program for IPv4"):
            program.run(PolicyPacket(6, 6, 1, 2), Sets(), Chooser())

    def test_no_program(self) -> None:
        with pytest.raises(BytecodeError, match="no instructions"):
            PolicyProgram([], 4, LAYOUTS[-1])

    def test_parts_without_end(self) -> None:
        parts = [Program(part.instructions()) for part in Builder(WORKLOAD, Style(split_after=10)).parts]
        loop = Sets(parts={3 + 10000 * number: parts[0] for number in range(30)})
        program = PolicyProgram(parts[:1], 4, LAYOUTS[-1])
        with pytest.raises(BytecodeError, match="more than 24 parts"):
            program.run(tcp(443), loop, Chooser())


@cache
def recorded(recording: Recording) -> RecordedCluster:
    return RecordedCluster(recording)


@RECORDED
def test_recorded_counters_moved_as_predicted(recording: Recording) -> None:
    """Wherever policy accepted or dropped a probe, the interface's program does, and moves the same rule counters."""
    cluster = recorded(recording)
    checked = disturbed = 0
    for probe in cluster.probes:
        for node in cluster.nodes:
            moved = cluster.moved(probe, node)
            packets = list(cluster.packets(probe, node))
            own = cluster.own_hooks(node, packets, moved)
            disturbed += own != moved.hooks
            if own:
                checked += 1
                assert any(cluster.agrees(node, packet, moved, own) for packet in packets), (probe, node)
            elif not moved.hooks:
                assert not moved.rules
    assert checked > 300
    assert disturbed < 10


@RECORDED
def test_loaded_programs_decide_as_the_debug_files(recording: Recording) -> None:
    """The xlated dump of the program that each interface really runs, against Felix's file, for every probe."""
    cluster = recorded(recording)
    compared = 0
    for name, node in cluster.nodes.items():
        files = {file.split("-")[1]: file for file in node.evidence.files() if file.startswith("bpf/xlated-")}
        packets = {packet for probe in cluster.probes[::7] for packet in cluster.packets(probe, name)}
        jumps = {
            hook: {
                octets(entry["key"]): int.from_bytes(octets(entry["value"]), "little")
                for entry in node.json(f"bpf/map-cali_jump_{short}2.json")
            }
            for hook, short in (("ingress", "ing"), ("egress", "egr"))
        }
        for entry in node.json("bpf/map-cali_iface4.json"):
            value = octets(entry["value"])
            interface = value[4:20].rstrip(b"\0").decode()
            later = 12 if cluster.version == 6 else 0
            for hook, offset in (("ingress", 24 + later), ("egress", 28 + later)):
                loaded = jumps[hook].get(value[offset : offset + 4])
                if loaded is None or str(loaded) not in files:
                    continue
                direction = (
                    hook if not interface.startswith("cali") else {"ingress": "egress", "egress": "ingress"}[hook]
                )
                ours = node.program(interface, direction, cluster.version)
                dump = from_xlated(node.json(files[str(loaded)]), files[str(loaded)])
                theirs = PolicyProgram([dump], cluster.version, LAYOUTS[-1])
                compared += 1
                [mine] = ours.parts
                assert fingerprint(mine.program.instructions) == fingerprint(dump.instructions)
                for packet in list(packets)[:40]:
                    one, other = ours.run(packet, node, Chooser()), theirs.run(packet, node, Chooser())
                    assert (one.verdict, one.rule_ids) == (other.verdict, other.rule_ids)
    assert compared >= 20


@RECORDED
def test_a_thousand_runs_a_second(recording: Recording) -> None:
    cluster = recorded(recording)
    node = next(iter(cluster.nodes.values()))
    programs = [
        policy_of_debug(debug, cluster.version)
        for name, debug in node.debug_files()
        if name.endswith(f"v{cluster.version}")
    ]
    packets = [packet for probe in cluster.probes[:20] for packet in cluster.packets(probe, next(iter(cluster.nodes)))][
        :100
    ]
    started, runs = time.perf_counter(), 0
    for packet in packets:
        for program in programs:
            program.run(packet, node, Chooser())
            runs += 1
    assert runs / (time.perf_counter() - started) > 1000
