"""Policy programs with their constants replaced: Felix's debug files and dumps of loaded programs.

The kernel's tag of a program is a digest of its code, and what proves that a debug file tells of the loaded program. So
for every debug file both are computed, the tags before and after: where they agreed they agree again, and where they
did not, the tag becomes one that agrees with nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Final

from calico_debug.decode.bpf_instructions import byte_swapped, from_xlated, signed, tag_by_digest
from calico_debug.decode.json_text import parse_json
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.model.bytecode import LOAD_WIDE, SECOND_HALF, Instruction, MapReference, Program
from calico_debug.redact.bpf_comments import CommentRedactor
from calico_debug.redact.bpf_constants import constants_of
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor
from calico_debug.walk.bpf_roles import Role
from calico_debug.walk.bpf_state import StateLayout, layout_of_fields

_CALL_TEXT: Final = re.compile(r"\(85\) call [A-Za-z_][A-Za-z0-9_]*#-?\d+")
"""Of the disassembly only this is kept: the rest says no more than the opcodes."""

HOOKS: Final = frozenset(("tc ingress", "tc egress", "tc xdp"))
"""Hooks as Felix calls them in debug files."""

_WORD: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class _Understood:
    """A debug file's hook and error, its new immediates by their place in the file, and what its tags become."""

    hook: str
    error: str
    new: dict[int, int] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class ProgramRedactor:
    """Changes policy programs, all in the same way."""

    def __init__(self, text: TextRedactor, numbers: NumberMap) -> None:
        """``text`` replaces names and addresses, ``numbers`` ids."""
        self._text = text
        self._numbers = numbers
        self._comments = CommentRedactor(text, numbers)
        self._known: dict[bytes, _Understood] = {}

    def debug_file(self, content: bytes, what: str, family: int) -> bytes:
        """A debug file for IP version ``family``. Raises `EvidenceError` when its program is not understood."""
        known = self._understand(content, what, family)
        document = parse_json(content, what)
        slots = document.get("policyInfo") or []
        changed = {
            "ifacename": self._text.text(document["ifacename"], is_name=True),
            "hook": known.hook if known.hook in HOOKS else self._text.text(known.hook, is_name=True),
            "error": self._text.text(known.error, is_name=True),
            "policyInfo": [self._slot(entry, slot, known.new) for slot, entry in enumerate(slots)] or None,
        }
        return json.dumps(changed).encode() + b"\n"

    def tags(self, content: bytes, what: str, family: int) -> Mapping[str, str]:
        """The tags that the programs of a debug file have as they are, with those that they get. Raises
        `EvidenceError` as `debug_file`.
        """
        return self._understand(content, what, family).tags

    def dump(
        self, content: bytes, what: str, family: int, layout: StateLayout, roles: Mapping[MapReference, Role]
    ) -> bytes:
        """A dump of a loaded program. Raises `EvidenceError` when it is not understood."""
        document = parse_json(content, what)
        program = from_xlated(document, what)
        new = self._replacements(program, family, layout, roles)
        slot, written = 0, []
        for entry in document:
            text = str(entry.get("disasm", ""))
            opcodes = {key: entry["opcodes"][key] for key in ("code", "src_reg", "dst_reg", "off", "imm")}
            wide = int(opcodes["code"], 16) == LOAD_WIDE
            if slot in new:
                opcodes["imm"] = _octets(new[slot], wide, opcodes["imm"])
            kept = text if _CALL_TEXT.fullmatch(text) else ""
            written.append({"disasm": kept, "opcodes": opcodes})
            slot += 2 if wide else 1
        return json.dumps(written).encode() + b"\n"

    def _understand(self, content: bytes, what: str, family: int) -> _Understood:
        """What there is to a debug file, worked out once: it is asked for its tags first, and for its content later."""
        digest = sha256(content).digest()
        if digest not in self._known:
            debug = decode_policy_debug(content, what)
            layout = layout_of_fields(debug.fields)
            found, start = _Understood(debug.hook, debug.error), 0
            for program in debug.programs:
                new = self._replacements(program, family, layout, {})
                before, after = (tag_by_digest(code) for code in (program.instructions, _with(program, new)))
                found.tags.update((tag, after[name]) for name, tag in before.items())
                found.new.update((start + slot, immediate) for slot, immediate in new.items())
                start += len(program.instructions)
            self._known[digest] = found
        return self._known[digest]

    def _replacements(
        self, program: Program, family: int, layout: StateLayout, roles: Mapping[MapReference, Role]
    ) -> Mapping[int, int]:
        """New immediates, as `Instruction` has them, by slot."""
        constants = constants_of(program, family, layout, roles)
        found: dict[int, int] = {}
        addresses = self._text.addresses
        for slot, word in constants.words.items():
            if addresses is not None:
                network = addresses.network(word.network)
                shift = network.max_prefixlen - 32 * (word.place + 1)
                found[slot] = signed(byte_swapped(int(network.network_address) >> shift & _WORD))
        for slot, (number, half) in constants.set_halves.items():
            octets = self._numbers.ip_set(number).to_bytes(8)
            found[slot] = int.from_bytes(octets[4 * half : 4 * half + 4], "little", signed=True)
        for slot, number in constants.rules.items():
            found[slot] = self._numbers.rule(number)
        return found

    def _slot(self, entry: Mapping[str, Any], slot: int, new: Mapping[int, int]) -> dict[str, Any]:
        octets = list(entry["inst"])
        if slot in new:
            octets[4:] = (new[slot] & _WORD).to_bytes(4, "little")
        elif slot - 1 in new and octets[0] == SECOND_HALF:
            octets[4:] = (new[slot - 1] >> 32 & _WORD).to_bytes(4, "little")
        changed: dict[str, Any] = {"inst": octets}
        if entry.get("labels"):
            changed["labels"] = [self._comments.label(label) for label in entry["labels"]]
        if entry.get("comments"):
            changed["comments"] = [self._comments.comment(comment) for comment in entry["comments"]]
        if entry.get("annotation"):
            changed["annotation"] = self._comments.annotation(entry["annotation"])
        return changed


def _with(program: Program, new: Mapping[int, int]) -> Iterator[Instruction]:
    for slot, one in enumerate(program.instructions):
        yield replace(one, immediate=new[slot]) if slot in new else one


def _octets(immediate: int, wide: bool, old: Sequence[str]) -> list[str]:
    """An immediate as bpftool prints it; that of a wide load has the next instruction's first half between its own."""
    low, high = (immediate & _WORD).to_bytes(4, "little"), (immediate >> 32 & _WORD).to_bytes(4, "little")
    if not wide:
        return [f"0x{octet:02x}" for octet in low]
    return [*(f"0x{octet:02x}" for octet in low), *old[4:8], *(f"0x{octet:02x}" for octet in high)]
