"""Felix's debug files: which instruction stands for which rule, in every release's words."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import PolicyDebug, Section, SectionKind
from tests.bytecode.felix import Policy, Rule, Rules, Style, Tier, debug_file
from tests.bytecode.recorded import RECORDED, RecordedCluster
from tests.recordings import Recording

RULES = Rules(
    tiers=(
        Tier("security", (Policy("security.dns", (Rule("allow", 11, protocol="udp"), Rule("pass", 12))),), "deny", 19),
        Tier(
            "default",
            (Policy("web", (Rule("log"), Rule("deny", 22, source_set=0xABC)), "NetworkPolicy", "shop"),),
            "pass",
            29,
        ),
    ),
    profiles=(Policy("kns.shop", (Rule("allow", 31, protocol="tcp"), Rule("deny", 32, protocol="udp"))),),
    suppress_host=True,
)


def decoded(rules: Rules = RULES, style: Style | None = None) -> PolicyDebug:
    return decode_policy_debug(debug_file(rules, style), "cali0123456789a_egress_v4.json")


def brief(section: Section) -> tuple[object, ...]:
    return (
        section.kind.value,
        section.tier,
        section.owner,
        section.namespace,
        section.name,
        section.index,
        section.action,
    )


class TestSections:
    def test_v332(self) -> None:
        debug = decoded()
        assert (debug.interface, debug.hook, debug.error) == ("cali0123456789a", "tc ingress", "")
        assert [brief(section) for section in debug.rules] == [
            ("rule", "security", "GlobalNetworkPolicy", "", "security.dns", 0, "allow"),
            ("rule", "security", "GlobalNetworkPolicy", "", "security.dns", 1, "pass"),
            ("end-of-tier", "security", "", "", "", 0, "deny"),
            ("rule", "default", "NetworkPolicy", "shop", "web", 0, "log"),
            ("rule", "default", "NetworkPolicy", "shop", "web", 1, "deny"),
            ("end-of-tier", "default", "", "", "", 0, "pass"),
            ("rule", "", "Profile", "", "kns.shop", 0, "allow"),
            ("rule", "", "Profile", "", "kns.shop", 1, "deny"),
        ]

    def test_ids_from_comments_and_for_ends_of_tiers_from_code(self) -> None:
        # nothing gets to the end of tier security: its last rule takes everything, and Felix leaves the code out
        assert [section.match_id for section in decoded().rules] == [11, 12, None, 0, 22, 29, 31, 32]

    def test_words_of_older_releases(self) -> None:
        old = decoded(style=Style(words="v3.30"))
        assert brief(old.rules[4]) == ("rule", "default", "", "", "shop/web", 1, "deny")
        assert old.rules[2].action == "deny"
        oldest = decoded(style=Style(words="v3.28", header=0))
        assert oldest.rules[2] == Section(SectionKind.END_OF_TIER, "security")
        assert [section.action for section in oldest.rules] == ["allow", "pass", "", "deny", "", "allow", "deny"]
        assert oldest.fields["flags"] == 360

    def test_slots_belong_to_their_section(self) -> None:
        debug = decoded()
        [program] = debug.programs
        for slot, one in enumerate(program.instructions):
            if one.code == 0x18 and one.source == 0 and one.immediate:
                assert program.sections[slot].match_id == one.immediate
        closing = max(slot for slot in program.sections)
        assert program.sections[closing].kind is SectionKind.NO_PROFILE

    @pytest.mark.parametrize("split", [3, 4, 5, 6, 8])
    def test_parts_continue_the_section(self, split: int) -> None:
        debug = decoded(style=Style(split_after=split))
        assert len(debug.programs) > 1
        assert [brief(section) for section in debug.rules] == [brief(section) for section in decoded().rules]
        for program in debug.programs:
            for slot, one in enumerate(program.instructions):
                if one.code == 0x18 and one.source == 0 and one.immediate:
                    assert program.sections[slot].match_id == one.immediate

    def test_rules_of_the_other_family_have_no_code_and_keep_their_number(self) -> None:
        policy = Policy(
            "p", (Rule("allow", 1, version=6), Rule("allow", 2, protocol="tcp", version=4), Rule("deny", 3, version=6))
        )
        debug = decoded(Rules(tiers=(Tier("t", (policy,), "deny", 9),), suppress_host=True))
        assert [(section.index, section.match_id) for section in debug.rules[:3]] == [(0, 1), (1, 2), (2, 3)]
        [program] = debug.programs
        with_code = {section.match_id for section in program.sections.values()}
        assert with_code == {2, 9, None}

    @pytest.mark.parametrize("words", ["v3.32", "v3.30", "v3.28"])
    def test_policies_without_rules_are_known_by_their_place(self, words: str) -> None:
        policies = (
            Policy("empty", ()),
            Policy("web", (Rule("allow", 1),), "NetworkPolicy", "shop"),
            Policy("last", ()),
        )
        rules = Rules(tiers=(Tier("default", policies, "deny", 9),), suppress_host=True)
        debug = decoded(rules, Style(words=words, header=0) if words == "v3.28" else Style(words=words))
        assert [(place, one.kind, one.tier, one.name) for place, one in debug.ruleless] == [
            (0, SectionKind.POLICY, "default", "empty"),
            (1, SectionKind.POLICY, "default", "last"),
        ]

    def test_names_of_ip_sets(self) -> None:
        assert decoded().ip_sets == {0xABC: f"s:x{0xABC}"}

    def test_relays_for_long_jumps_decide_nothing(self) -> None:
        document = json.loads(debug_file(RULES))
        relay = [
            {"inst": [5, 0, 1, 0, 0, 0, 0, 0], "annotation": "goto skip-trampoline-0"},
            {"inst": [5, 0, 1, 0, 0, 0, 0, 0], "labels": ["deny", "end_of_tier_0"], "annotation": "goto deny"},
        ]
        at = next(
            number
            for number, entry in enumerate(document["policyInfo"])
            if "rule_0_no_match" in entry.get("labels", [])
        )
        document["policyInfo"][at - 1 : at - 1] = relay  # before the jump that carries the rule out
        document["policyInfo"][at + 1].setdefault("labels", []).append("skip-trampoline-0")
        [program] = decode_policy_debug(json.dumps(document).encode(), "x").programs
        assert at - 1 not in program.sections
        assert at not in program.sections
        assert program.sections[at + 1].match_id == 11

    def test_an_end_of_tier_where_another_tier_s_label_stands(self) -> None:
        """The first tier ends in a rule that takes everything, the second has no rules: one slot has it all."""
        rules = Rules(
            tiers=(Tier("first", (Policy("p", (Rule("pass", 1),)),), "deny", 8), Tier("second", (), "pass", 9)),
            suppress_host=True,
        )
        [program] = decoded(rules).programs
        noted = [slot for slot, one in enumerate(program.instructions) if one.immediate == 9 and one.code == 0x18]
        assert [brief(program.sections[slot])[:2] for slot in noted] == [("end-of-tier", "second")]


class TestFiles:
    def test_without_instructions(self) -> None:
        debug = decode_policy_debug(b'{"ifacename":"eth0","hook":"tc egress","policyInfo":null,"error":"too big"}', "x")
        assert (debug.programs, debug.rules, debug.error) == ((), (), "too big")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "is empty"),
            (b"{", "not complete JSON"),
            (b"[]", "no policy debug file"),
            (b'{"ifacename":"a","policyInfo":3}', "no list of instructions"),
            (b'{"ifacename":"a","policyInfo":[1]}', "instruction 0 is not 8 bytes"),
            (b'{"ifacename":"a","policyInfo":[{"inst":[1,2]}]}', "instruction 0 is not 8 bytes"),
            (b'{"ifacename":"a","policyInfo":[{"inst":[1,2,3,4,5,6,7,256]}]}', "instruction 0 is not 8 bytes"),
            (b'{"ifacename":"a","policyInfo":[{"inst":[1,2,3,4,5,6,7,8],"labels":"x"}]}', "instruction 0 is not 8"),
            (b'{"ifacename":"a","policyInfo":[{"inst":[24,2,3,4,5,6,7,8]}]}', "lacks the second half"),
        ],
    )
    def test_damaged(self, data: bytes, message: str) -> None:
        with pytest.raises(EvidenceError, match=message):
            decode_policy_debug(data, "eth0_ingress_v4.json")

    @given(
        st.recursive(
            st.none() | st.integers(0, 300) | st.text(max_size=8) | st.sampled_from(["Start of tier x", "goto deny"]),
            lambda inner: (
                st.lists(inner, max_size=9)
                | st.dictionaries(st.sampled_from(["inst", "labels", "comments", "annotation", "policyInfo"]), inner)
            ),
            max_leaves=30,
        )
    )
    def test_anything_is_read_or_refused(self, info: Any) -> None:
        document = {"ifacename": "a", "policyInfo": info}
        with suppress(EvidenceError):
            decode_policy_debug(json.dumps(document).encode(), "x")


@RECORDED
def test_recorded_files(recording: Recording) -> None:
    """Every id that the code notes is the one of the section it stands in."""
    count = 0
    for node in RecordedCluster(recording).nodes.values():
        for _, debug in node.debug_files():
            for program in debug.programs:
                for slot, one in enumerate(program.instructions):
                    if one.code == 0x18 and one.source == 0 and one.immediate:
                        assert program.sections[slot].match_id == one.immediate
                        count += 1
    assert count > 100
