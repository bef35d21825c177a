"""Bytecode to typed instructions and back: raw bytes, and ``bpftool -j prog dump xlated … opcodes``.

The kernel rewrites a loaded program before it shows it (kernel/bpf/syscall.c bpf_insn_prepare_dump, verifier.c
do_misc_fixups): maps by id instead of descriptor, helpers by address (bpftool prints their name), look-ups in arrays
inlined. `from_xlated` undoes what matters.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import new
from typing import Final

from calico_debug.model.bytecode import (
    CALL,
    JUMP,
    LOAD_WIDE,
    MAP,
    MAP_VALUE,
    MAX_INSTRUCTIONS,
    PLAIN,
    SECOND_HALF,
    BytecodeError,
    Instruction,
    Program,
)

HELPERS: Final[Mapping[int, str]] = {
    1: "bpf_map_lookup_elem",
    2: "bpf_map_update_elem",
    3: "bpf_map_delete_elem",
    5: "bpf_ktime_get_ns",
    6: "bpf_trace_printk",
    7: "bpf_get_prandom_u32",
    8: "bpf_get_smp_processor_id",
    12: "bpf_tail_call",
    26: "bpf_skb_load_bytes",
    51: "bpf_redirect_map",
    69: "bpf_fib_lookup",
    125: "bpf_ktime_get_boot_ns",
    177: "bpf_trace_vprintk",
}
"""Helpers by number (include/uapi/linux/bpf.h, ___BPF_FUNC_MAPPER): others are unknown."""

_LOOKUPS: Final = frozenset(
    {
        "array_map_lookup_elem",
        "percpu_array_map_lookup_elem",
        "trie_lookup_elem",
        "htab_map_lookup_elem",
        "htab_percpu_map_lookup_elem",
        "htab_lru_map_lookup_elem",
        "htab_lru_percpu_map_lookup_elem",
    }
)
"""Functions of the kernel that a call of bpf_map_lookup_elem is replaced by (map_ops.map_lookup_elem of each type)."""

_CALLED: Final = re.compile(r"\(85\) call ([A-Za-z_][A-Za-z0-9_]*)#")
_SLOT: Final = struct.Struct("<BBhi")
_MOVE_IMMEDIATE32, _SMALL = 0xB4, 16
_COMPARISONS: Final = frozenset({0x15, 0x55, 0x35, 0xA5, 0xB5, 0x16, 0x56})
"""Comparisons with numbers that Felix's assembler writes (felix/bpf/asm)."""
_TAG_DIGITS: Final = 16
"""Twice BPF_TAG_SIZE."""
_ADD_IMMEDIATE, _LOAD_WORD, _JUMP_ABOVE, _MOVE_IMMEDIATE = 0x07, 0x61, 0x35, 0xB7


def from_bytes(raw: bytes, name: str = "the program") -> tuple[Instruction, ...]:
    """Instructions from the bytes that a program is loaded from. Raises `BytecodeError` when they cannot be any."""
    if len(raw) % _SLOT.size:
        raise BytecodeError(f"{name}: {len(raw)} bytes are no whole number of 8-byte instructions: record it again")
    if len(raw) // _SLOT.size > MAX_INSTRUCTIONS:
        raise BytecodeError(f"{name}: more than {MAX_INSTRUCTIONS} instructions, which no kernel loads")
    slots = list(_SLOT.iter_unpack(raw))
    instructions: list[Instruction] = []
    position = 0
    while position < len(slots):
        code, registers, offset, immediate = slots[position]
        destination, source = registers & 15, registers >> 4
        if code == LOAD_WIDE:
            if position + 1 == len(slots) or slots[position + 1][0] != SECOND_HALF:
                raise BytecodeError(f"{name}: instruction {position} lacks the second half of its 64-bit number")
            wide = _wide(immediate, slots[position + 1][3])
            instructions += (Instruction(code, destination, source, offset, wide), Instruction(SECOND_HALF))
            position += 2
            continue
        helper = HELPERS.get(immediate, "") if code == CALL and source == PLAIN else ""
        instructions.append(Instruction(code, destination, source, offset, immediate, helper))
        position += 1
    return tuple(instructions)


def to_bytes(instructions: Iterable[Instruction]) -> bytes:
    """The bytes of instructions, as they are loaded into the kernel."""
    raw = bytearray()
    upper: int | None = None
    for one in instructions:
        immediate = one.immediate
        if one.code == LOAD_WIDE:
            upper, immediate = signed(immediate >> 32), signed(immediate & 0xFFFFFFFF)
        elif upper is not None:
            immediate, upper = upper, None
        raw += _SLOT.pack(one.code, one.source << 4 | one.destination, one.offset, immediate)
    return bytes(raw)


def tags(instructions: Iterable[Instruction]) -> frozenset[str]:
    """The tags that kernels give a program loaded from these instructions, as bpftool shows them."""
    return frozenset(tag_by_digest(instructions).values())


def tag_by_digest(instructions: Iterable[Instruction]) -> Mapping[str, str]:
    """The tags by the digest that they are made with: "sha1", and "sha256" since Linux 6.18.

    It is that of the code with the maps left out (kernel/bpf/core.c bpf_prog_calc_tag).
    """
    raw = to_bytes(
        replace(one, immediate=0) if one.code == LOAD_WIDE and one.source in (MAP, MAP_VALUE) else one
        for one in instructions
    )
    return {name: new(name, raw).hexdigest()[:_TAG_DIGITS] for name in ("sha1", "sha256")}


def from_xlated(dump: object, name: str = "the program") -> Program:
    """A program from ``bpftool -j prog dump xlated … opcodes``. Raises `BytecodeError` if the dump is none.

    Jumps are in slots and a wide load takes two, as in the kernel. Look-ups in arrays are calls again.
    """
    if not isinstance(dump, list) or not dump:
        raise BytecodeError(f"{name}: not a list of instructions as `bpftool -j prog dump xlated … opcodes` prints it")
    instructions: list[Instruction] = []
    for entry in dump:
        position = len(instructions)
        try:
            opcodes, text = entry["opcodes"], str(entry.get("disasm", ""))
            code, source = int(opcodes["code"], 16), int(opcodes["src_reg"], 16)
            destination = int(opcodes["dst_reg"], 16)
            offset = int.from_bytes(_octets(opcodes["off"], (2,)), "little", signed=True)
            octets = _octets(opcodes["imm"], (12,) if code == LOAD_WIDE else (4,))
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BytecodeError(
                f"{name}: instruction {position} has no opcodes: dump it with the word `opcodes` at the end"
            ) from None
        if not (0 <= code < 256 and 0 <= source < 16 and 0 <= destination < 16):
            raise BytecodeError(f"{name}: instruction {position} has an opcode or register out of range")
        immediate = int.from_bytes(octets[:4], "little", signed=True)
        if code == LOAD_WIDE:
            wide = _wide(immediate, int.from_bytes(octets[8:], "little", signed=True))
            instructions += (Instruction(code, destination, source, offset, wide), Instruction(SECOND_HALF))
            continue
        if code == CALL:
            instructions.append(_call(Instruction(code, destination, source, offset, immediate), text))
            continue
        instructions.append(Instruction(code, destination, source, offset, immediate))
    return Program(_with_calls(instructions), "id", name)


def recorded_ids(instructions: Sequence[Instruction]) -> dict[int, int]:
    """Rule ids that a policy program notes down, by the slot that stores them.

    Felix's form (felix/bpf/polprog writeRecordRuleID): ``r2 = id (64 bits); r1 += r9; *(u64 *)(r1 + 0) = r2``.
    """
    found: dict[int, int] = {}
    for slot in range(3, len(instructions)):
        store, load = instructions[slot], instructions[slot - 3]
        if (store.code, store.destination, store.source, store.offset) == (0x7B, 1, 2, 0) and (
            load.code,
            load.destination,
            load.source,
        ) == (LOAD_WIDE, 2, PLAIN):
            found[slot] = load.immediate
    return found


def fingerprint(instructions: Sequence[Instruction]) -> tuple[int, ...]:
    """What a policy program compares with and notes down: rule ids, IP sets, networks, ports, protocols, in order.

    Equal for Felix's debug file and for the dump of the program that was loaded from the same code, whatever the
    kernel rewrote. Comparisons with 0 and small constants are left out: the kernel removes checks that never fail.
    """
    found: list[int] = []
    after = 0
    for slot, one in enumerate(instructions):
        if slot < after:
            continue
        if one.code == JUMP and slot and instructions[slot - 1].helper == "bpf_map_lookup_elem":
            after = slot + 1 + one.offset  # what an inlined look-up left behind
        elif (
            (one.code == LOAD_WIDE and one.source == PLAIN)
            or (one.code == _MOVE_IMMEDIATE32 and abs(one.immediate) > _SMALL)
            or (one.code in _COMPARISONS and one.immediate)
        ):
            found.append(one.immediate)
    return tuple(found)


def _call(instruction: Instruction, text: str) -> Instruction:
    """A call as before loading: helpers by name, functions of the program by distance (verifier.c jit_subprogs)."""
    if instruction.source == MAP:
        return Instruction(CALL, 0, MAP, 0, instruction.offset or instruction.immediate)
    if instruction.source != PLAIN:
        return instruction
    found = _CALLED.match(text)
    helper = found[1] if found else ""
    if helper in _LOOKUPS:
        helper = "bpf_map_lookup_elem"
    if helper in {"", "unknown", "bpf_unspec"}:  # the kernel hides the address, or bpftool its symbols
        helper = "bpf_tail_call" if instruction.immediate == 12 else ""
    return Instruction(CALL, 0, PLAIN, 0, instruction.immediate, helper)


def _with_calls(instructions: Sequence[Instruction]) -> tuple[Instruction, ...]:
    """The same with inlined look-ups turned back into calls; what they leave unused stays in place, never reached.

    Shape (kernel/bpf/arraymap.c array_map_gen_lookup, since 6.10 percpu_array_map_gen_lookup too): ``r1 += start of the
    values; r0 = *(u32 *)r2; if r0 >= entries goto zero; …; goto end; zero: r0 = 0; end:``.
    """
    result = list(instructions)
    for start in range(len(instructions) - 6):
        add, load, check = instructions[start : start + 3]
        if (add.code, add.destination) != (_ADD_IMMEDIATE, 1) or check.code != _JUMP_ABOVE:
            continue
        if (load.code, load.destination, load.source, load.offset) != (_LOAD_WORD, 0, 2, 0) or check.destination != 0:
            continue
        zero = start + 3 + check.offset
        if not 3 <= check.offset <= 7 or zero >= len(instructions):
            continue
        skip, last = instructions[zero - 1], instructions[zero]
        if (skip.code, skip.offset) == (JUMP, 1) and (last.code, last.destination, last.immediate) == (
            _MOVE_IMMEDIATE,
            0,
            0,
        ):
            result[start] = Instruction(CALL, immediate=1, helper="bpf_map_lookup_elem")
            result[start + 1] = Instruction(JUMP, offset=zero - start - 1)
    return tuple(result)


def _octets(texts: Sequence[str], sizes: tuple[int, ...]) -> bytes:
    octets = bytes(int(text, 16) for text in texts)
    if len(octets) not in sizes:
        raise ValueError(texts)
    return octets


def _wide(lower: int, upper: int) -> int:
    return (upper & 0xFFFFFFFF) << 32 | lower & 0xFFFFFFFF


def byte_swapped(word: int) -> int:
    """32 bits in the other order of bytes: a program holds words of addresses as a little-endian machine loads them."""
    return int.from_bytes(word.to_bytes(4, "little"))


def signed(word: int) -> int:
    """32 bits as an instruction's immediate."""
    return word - (1 << 32) if word >> 31 else word
