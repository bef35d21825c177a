"""Bytecode: raw bytes, and dumps as bpftool prints them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_instructions import fingerprint, from_bytes, from_xlated, recorded_ids, tags, to_bytes
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import CALL, LOAD_WIDE, MAP, SECOND_HALF, BytecodeError, Instruction
from tests.bytecode.felix import Builder, Policy, Rule, Rules, Style, Tier
from tests.bytecode.recorded import RECORDED


def slot(text: str) -> bytes:
    return bytes.fromhex(text)


def dumped(text: str, code: str, dst: int, src: int, off: int, *imm: int) -> dict[str, Any]:
    """An entry as ``bpftool -j prog dump xlated id N opcodes`` prints it."""
    offset = [f"0x{octet:02x}" for octet in (off & 0xFFFF).to_bytes(2, "little")]
    octets = b"".join((number & 0xFFFFFFFF).to_bytes(4, "little") for number in imm)
    opcodes = {
        "code": code,
        "src_reg": hex(src),
        "dst_reg": hex(dst),
        "off": offset,
        "imm": [f"0x{octet:02x}" for octet in octets],
    }
    return {"disasm": text, "opcodes": opcodes}


INLINED = [  # the state's look-up in a loaded program, Linux 6.18
    dumped("(18) r1 = map[id:8156]", "0x18", 1, 1, 0, 8156, 0, 0),
    dumped("(07) r1 += 312", "0x07", 1, 0, 0, 312),
    dumped("(61) r0 = *(u32 *)(r2 +0)", "0x61", 0, 2, 0, 0),
    dumped("(35) if r0 >= 0x2 goto pc+5", "0x35", 0, 0, 5, 2),
    dumped("(67) r0 <<= 3", "0x67", 0, 0, 0, 3),
    dumped("(0f) r0 += r1", "0x0f", 0, 1, 0, 0),
    dumped("(79) r0 = *(u64 *)(r0 +0)", "0x79", 0, 0, 0, 0),
    dumped("(bf) r0 = r0", "0xbf", 0, 0, -1, 0),
    dumped("(05) goto pc+1", "0x05", 0, 0, 1, 0),
    dumped("(b7) r0 = 0", "0xb7", 0, 0, 0, 0),
    dumped("(95) exit", "0x95", 0, 0, 0, 0),
]


class TestTags:
    def test_the_smallest_program(self) -> None:
        """What bpftool shows for ``r0 = 0; exit``: the first on every kernel before 6.18."""
        smallest = from_bytes(slot("b700000000000000") + slot("9500000000000000"))
        assert tags(smallest) == {"a04f5eef06a7f555", "59f4a931744dcdc6"}

    def test_maps_do_not_count_and_numbers_do(self) -> None:
        def wide(source: int, number: int) -> list[Instruction]:
            return [Instruction(LOAD_WIDE, 1, source, 0, number), Instruction(SECOND_HALF)]

        assert tags(wide(MAP, 7)) == tags(wide(MAP, 8)) != tags(wide(0, 7))
        assert not tags(wide(0, 7)) & tags(wide(0, 8))


class TestRaw:
    def test_fields(self) -> None:
        load, store, call = from_bytes(slot("7991700100000000") + slot("631afcff00000000") + slot("8500000001000000"))
        assert load == Instruction(0x79, 1, 9, 368)
        assert store == Instruction(0x63, 10, 1, -4)
        assert call == Instruction(CALL, immediate=1, helper="bpf_map_lookup_elem")

    def test_negative_numbers(self) -> None:
        [one] = from_bytes(slot("07020000fcffffff"))
        assert one.immediate == -4

    def test_numbers_of_64_bits_take_two_slots(self) -> None:
        wide, second = from_bytes(slot("1802000078ae676d") + slot("000000002755e930"))
        assert (wide.immediate, second.code) == (0x30E955276D67AE78, SECOND_HALF)

    def test_unknown_helpers_have_no_name(self) -> None:
        [one] = from_bytes(slot("8500000063000000"))
        assert (one.helper, one.immediate) == ("", 99)

    def test_truncated(self) -> None:
        with pytest.raises(BytecodeError, match=r"7 bytes are no whole number .*record it again"):
            from_bytes(bytes(7))
        with pytest.raises(BytecodeError, match="instruction 1 lacks the second half"):
            from_bytes(slot("b700000000000000") + slot("1802000078ae676d"))

    @given(st.binary(max_size=400))
    def test_any_bytes_decode_or_are_refused(self, raw: bytes) -> None:
        try:
            decoded = from_bytes(raw)
        except BytecodeError:
            return
        assert len(decoded) * 8 == len(raw)

    def test_back_to_bytes(self) -> None:
        rules = Rules(tiers=(Tier("t", (Policy("p", (Rule("allow", 1 << 63 | 5, source_set=7),)),), "deny", 3),))
        for part in Builder(rules, Style()).parts:
            raw = b"".join(part.raw())
            assert to_bytes(from_bytes(raw)) == raw

    def test_ids_that_are_noted(self) -> None:
        rules = Rules(
            tiers=(Tier("t", (Policy("p", (Rule("allow", 55, protocol="tcp"),)),), "deny", 66),), suppress_host=True
        )
        [part] = Builder(rules, Style()).parts
        assert list(recorded_ids(part.instructions()).values()) == [55, 66]

    def test_fingerprints_tell_programs_apart(self) -> None:
        def print_of(port: int, match_id: int = 5, net: str = "10.0.0.0/8") -> tuple[int, ...]:
            rule = Rule("allow", match_id, source_nets=(net,), destination_ports=((port, port),))
            [part] = Builder(Rules(tiers=(Tier("t", (Policy("p", (rule,)),)),), suppress_host=True), Style()).parts
            return fingerprint(part.instructions())

        assert print_of(80) == print_of(80)
        assert len({print_of(80), print_of(81), print_of(80, 6), print_of(80, 5, "11.0.0.0/8")}) == 4


class TestXlated:
    def test_look_ups_in_arrays_are_calls_again(self) -> None:
        program = from_xlated(INLINED)
        assert program.space == "id"
        assert program.instructions[0] == Instruction(LOAD_WIDE, 1, MAP, 0, 8156)
        assert program.instructions[2].helper == "bpf_map_lookup_elem"
        jump = program.instructions[3]
        assert 3 + 1 + jump.offset == len(program.instructions) - 1

    def test_a_jump_over_a_comparison_is_no_look_up(self) -> None:
        other = [*INLINED[:8], dumped("(05) goto pc+2", "0x05", 0, 0, 2, 0), *INLINED[9:]]
        assert all(one.code != CALL for one in from_xlated(other).instructions)

    @pytest.mark.parametrize(
        ("text", "number", "helper"),
        [
            ("(85) call trie_lookup_elem#367264", 367264, "bpf_map_lookup_elem"),
            ("(85) call percpu_array_map_lookup_elem#-5", -5, "bpf_map_lookup_elem"),
            ("(85) call bpf_tail_call#12", 12, "bpf_tail_call"),
            ("(85) call bpf_fib_lookup#77", 77, "bpf_fib_lookup"),
            ("(85) call unknown#0", 0, ""),
            ("(85) call bpf_unspec#0", 0, ""),
            ("(85) call 0xffffffff81234567", 17, ""),
        ],
    )
    def test_helpers_by_name(self, text: str, number: int, helper: str) -> None:
        [one] = from_xlated([dumped(text, "0x85", 0, 0, 0, number)]).instructions
        assert (one.helper, one.immediate) == (helper, number)

    def test_functions_of_the_program_are_found_by_distance(self) -> None:
        [one] = from_xlated([dumped("(85) call pc+5#bpf_prog_1_f", "0x85", 0, 1, 5, 1)]).instructions
        assert (one.source, one.immediate) == (MAP, 5)

    @pytest.mark.parametrize(
        "dump",
        [
            [],
            {},
            None,
            "text",
            [1],
            [{}],
            [{"opcodes": None}],
            [
                {
                    "opcodes": {
                        "code": "0x18",
                        "src_reg": "0",
                        "dst_reg": "0",
                        "off": ["0x00", "0x00"],
                        "imm": ["0x00"] * 4,
                    }
                }
            ],
            [{"opcodes": {"code": "zz", "src_reg": "0", "dst_reg": "0", "off": ["0x00", "0x00"], "imm": ["0x00"] * 4}}],
            [
                {
                    "opcodes": {
                        "code": "0x1ff",
                        "src_reg": "0",
                        "dst_reg": "0",
                        "off": ["0x00", "0x00"],
                        "imm": ["0x00"] * 4,
                    }
                }
            ],
            [{"opcodes": {"code": "0x07", "src_reg": "0", "dst_reg": "0", "off": ["0x00"], "imm": ["0x1ff"] * 4}}],
        ],
    )
    def test_foreign_dumps(self, dump: object) -> None:
        with pytest.raises(EvidenceError, match=r"p1: (not a list|instruction 0)"):
            from_xlated(dump, "p1")

    @RECORDED
    def test_recorded_dumps(self, recording: Any) -> None:
        for name in recording.source.nodes():
            node = recording.source.node(name)
            files = [file for file in node.files() if file.startswith("bpf/xlated-")]
            assert files
            for file in files:
                program = from_xlated(recording.json(f"nodes/{name}/{file}"), file)
                calls = [one for one in program.instructions if one.code == CALL]
                assert {one.helper for one in calls} == {"bpf_map_lookup_elem", "bpf_tail_call"}
                assert re.search(r"p[46][IE]_", file)
