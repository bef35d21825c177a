"""Generated policy programs decide about mapped packets what the originals decide about packets."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_instructions import fingerprint, tags
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import PolicyDebug, Section
from calico_debug.redact.bpf_programs import ProgramRedactor
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor
from calico_debug.walk.bpf_policy import PolicyRun, policy_of_debug
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import LAYOUTS, PolicyPacket
from calico_debug.walk.choices import Chooser
from tests.bytecode import generated
from tests.bytecode.felix import Policy, Rule, Rules, Style, Tier, debug_file

KEY = bytes(range(32))
TEXT = TextRedactor(KEY, addresses=True, names=True, chains={True: {}, False: {}})
NUMBERS = NumberMap(KEY, names=True)
REDACTOR = ProgramRedactor(TEXT, NUMBERS)
WHAT = "a debug file"


class Sets:
    """IP sets as the map has them; implements `calico_debug.walk.bpf_policy.PolicyMaps`."""

    def __init__(self, version: int, keys: list[bytes]) -> None:
        self._trie = PrefixTrie(KEY_BYTES[version], keys)

    def in_ip_set(self, _version: int, key: bytes, known: bytes) -> Any:
        return self._trie.contains(key, known)

    def sub_program(self, index: int) -> None:
        raise AssertionError(index)


def mapped_key(key: bytes, version: int) -> bytes:
    end = 12 + (4 if version == 4 else 16)
    address = ip_address(key[12:end])
    length = min(int.from_bytes(key[:4], "little") - 64, address.max_prefixlen)
    network = TEXT.addresses and TEXT.addresses.network(ip_network_of(address, length))
    assert network
    number = NUMBERS.ip_set(int.from_bytes(key[4:12]))
    return key[:4] + number.to_bytes(8) + network.network_address.packed + key[end:]


def ip_network_of(address: Any, length: int) -> Any:
    from calico_debug.decode.bpf_maps import network_of

    return network_of(address, length)


def mapped_packet(packet: PolicyPacket) -> PolicyPacket:
    def mapped(number: Any) -> Any:
        width = 4 if packet.version == 4 else 16
        assert TEXT.addresses is not None
        return None if number is None else int(TEXT.addresses.address(ip_address(number.to_bytes(width))))

    return replace(
        packet,
        source=mapped(packet.source),
        destination=mapped(packet.destination),
        original_destination=mapped(packet.original_destination),
    )


def summary(run: PolicyRun) -> Any:
    sections = [hit.section and (hit.section.kind, hit.section.index, hit.section.action) for hit in run.hits]
    return run.verdict, sections, [section and section.index for section in run.logged]


@given(st.integers(0, 2**32), st.sampled_from((4, 6)), st.sampled_from((0, 8)), st.sampled_from((30, 100, 10**9)))
def test_programs_decide_the_same(seed: int, version: int, header: int, split: int) -> None:
    rng = random.Random(seed)
    data = debug_file(generated.rules(rng, version), Style(version=version, header=header, split_after=split))
    changed = REDACTOR.debug_file(data, WHAT, version)
    layout = LAYOUTS[0] if header == 0 else LAYOUTS[-1]
    before, after = (decode_policy_debug(content, WHAT) for content in (data, changed))
    programs = [policy_of_debug(debug, version, layout) for debug in (before, after)]
    keys = generated.members(rng, version)
    sets = Sets(version, keys), Sets(version, [mapped_key(key, version) for key in keys])
    for _ in range(10):
        packet = generated.packet(rng, version)
        one = programs[0].run(packet, sets[0], Chooser(()))
        other = programs[1].run(mapped_packet(packet), sets[1], Chooser(()))
        assert summary(other) == summary(one)
        assert other.rule_ids == tuple(map(NUMBERS.rule, one.rule_ids))


def code(debug: PolicyDebug) -> list[Any]:
    return [program.instructions for program in debug.programs]


NET = "198.18.7.0/24"
SET = 0x1122334455667788
RULES = (
    Rule("allow", 0x77AA11BB22CC33DD, protocol="tcp", source_nets=(NET, "10.0.0.0/8"), destination_ports=((80, 80),)),
    Rule("deny", 0x78AA11BB22CC33DD, destination_set=SET, not_destination_nets=("198.18.7.9/32",)),
)
POLICY = Policy("platform.secretname", RULES, "NetworkPolicy", "secretspace")


def example(rules: tuple[Rule, ...] = RULES) -> bytes:
    policy = replace(POLICY, rules=rules)
    return debug_file(Rules(tiers=(Tier("platform", (policy,), "deny", 0x99AA11BB22CC33DD),), suppress_host=True))


def test_comments_still_tell_what_the_code_does() -> None:
    before, after = (decode_policy_debug(one, WHAT) for one in (example(), REDACTOR.debug_file(example(), WHAT, 4)))

    def named(section: Section) -> Section:
        namespace, name, tier = (
            TEXT.text(part, is_name=True) for part in (section.namespace, section.name, section.tier)
        )
        number = section.match_id and NUMBERS.rule(section.match_id)
        return replace(section, namespace=namespace, name=name, tier=tier, match_id=number, text="")

    assert [replace(section, text="") for section in after.rules] == [named(section) for section in before.rules]
    assert after.fields == before.fields
    for one, other in zip(before.programs, after.programs, strict=True):
        assert other.targets == one.targets
        kinds = [(slot, clause.kind, clause.negated, clause.by_set) for slot, clause in one.clauses.items()]
        assert [(slot, clause.kind, clause.negated, clause.by_set) for slot, clause in other.clauses.items()] == kinds
        wanted = [clause.wanted for clause in other.clauses.values() if clause.kind == "source"]
        assert wanted == [f"{TEXT.text(NET)}, {TEXT.text('10.0.0.0/8')}"]


def test_nothing_is_left_of_the_original() -> None:
    changed = REDACTOR.debug_file(example(), WHAT, 4)
    raw = b"".join(bytes(slot["inst"]) for slot in json.loads(changed)["policyInfo"])
    for secret in (
        bytes((198, 18, 7)),
        SET.to_bytes(8)[:4],
        SET.to_bytes(8)[4:],
        bytes.fromhex("aa11bb"),
        bytes.fromhex("cc33dd"),
    ):
        assert secret not in raw
        assert secret[::-1] not in raw
    assert not any(word in changed for word in (b"198.18.7", b"secret", b"1122334455667788", b"8622723931994600413"))


def test_tags_agree_where_they_agreed() -> None:
    before = decode_policy_debug(example(), WHAT)
    after = decode_policy_debug(REDACTOR.debug_file(example(), WHAT, 4), WHAT)
    found = REDACTOR.tags(example(), WHAT, 4)
    [old], [new] = code(before), code(after)
    assert tags(old) != tags(new)
    assert {found[tag] for tag in tags(old)} == tags(new)
    assert fingerprint(old) != fingerprint(new)


def test_programs_that_differ_in_one_address_differ_afterwards() -> None:
    other = example((replace(RULES[0], source_nets=(NET, "10.0.0.0/9")), RULES[1]))
    [one], [two] = (code(decode_policy_debug(REDACTOR.debug_file(data, WHAT, 4), WHAT)) for data in (example(), other))
    assert fingerprint(one) != fingerprint(two)
    assert not tags(one) & tags(two)


def test_nothing_changes_where_nothing_is_to_be_replaced() -> None:
    text = TextRedactor(KEY, addresses=False, names=False, chains={True: {}, False: {}})
    changed = ProgramRedactor(text, NumberMap(KEY, names=False)).debug_file(example(), WHAT, 4)
    assert json.loads(changed)["policyInfo"] == [
        {key: value for key, value in slot.items() if value} for slot in json.loads(example())["policyInfo"]
    ]


def test_names_alone() -> None:
    text = TextRedactor(KEY, addresses=False, names=True, chains={True: {}, False: {}})
    changed = ProgramRedactor(text, NUMBERS).debug_file(example(), WHAT, 4)
    assert b"198.18.7.0/24" in changed
    assert b"secret" not in changed
    raw = b"".join(bytes(slot["inst"]) for slot in json.loads(changed)["policyInfo"])
    assert bytes((198, 18, 7, 0)) in raw
    assert bytes.fromhex("aa11bb")[::-1] not in raw


@pytest.mark.parametrize("data", [b"{}", b"[]", b"", b'{"ifacename": "x", "policyInfo": [1]}'])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        REDACTOR.debug_file(data, WHAT, 4)


def test_a_file_without_a_program() -> None:
    changed = json.loads(
        REDACTOR.debug_file(b'{"ifacename": "nic7", "hook": "tc ingress", "error": "no nic7"}', WHAT, 4)
    )
    name = TEXT.text("nic7", is_name=True)
    assert (changed["ifacename"], changed["hook"], changed["policyInfo"]) == (name, "tc ingress", None)
    assert changed["error"].endswith(f" {name}")
