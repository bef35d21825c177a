"""A small assembler with labels. Knows nothing of the decoders: it packs the bytes itself."""

from __future__ import annotations

import struct
from typing import Any

from calico_debug.decode.bpf_instructions import from_bytes
from calico_debug.model.bytecode import Instruction

ADD, SUB, MUL, DIV, OR, AND, LSH, RSH, NEG, MOD, XOR, MOV, ARSH, END = range(0x00, 0xE0, 0x10)
JEQ, JGT, JGE, JSET, JNE, JSGT, JSGE = range(0x10, 0x80, 0x10)
JLT, JLE, JSLT, JSLE = range(0xA0, 0xE0, 0x10)
WORD, HALF, BYTE, DOUBLE = 0x00, 0x08, 0x10, 0x18
WIDTH = {1: BYTE, 2: HALF, 4: WORD, 8: DOUBLE}


class Assembler:
    """Collects slots; jumps name labels. ``comments`` and ``labels`` come out as Felix writes them."""

    def __init__(self) -> None:
        self.slots: list[tuple[int, int, int, int, int]] = []  # code, destination, source, offset, immediate
        self.goto: dict[int, str] = {}
        self.labels: dict[str, int] = {}
        self.comments: dict[int, list[str]] = {}
        self.notes: dict[int, str] = {}

    def emit(self, code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0, note: str = "") -> None:
        here = len(self.slots)
        if self.slots and self.slots[-1][0] in (0x05, 0x95) and not any(map(self.uses, self._labels_at(here))):
            # the kernel refuses code that nothing reaches; like Felix, leave it out with its labels
            for name in self._labels_at(here):
                del self.labels[name]
            self.goto.pop(here, None)
            return
        if note:
            self.notes[here] = note
        self.slots.append((code, dst, src, off, imm))

    def _labels_at(self, slot: int) -> list[str]:
        return [name for name, where in self.labels.items() if where == slot]

    def comment(self, *texts: str) -> None:
        self.comments.setdefault(len(self.slots), []).extend(texts)

    def label(self, name: str) -> None:
        assert name not in self.labels
        self.labels[name] = len(self.slots)

    def alu(self, operation: int, dst: int, imm: int, *, bits: int = 64) -> None:
        self.emit((7 if bits == 64 else 4) | operation, dst, imm=imm)

    def alu_register(self, operation: int, dst: int, src: int, *, bits: int = 64, off: int = 0) -> None:
        self.emit((7 if bits == 64 else 4) | operation | 8, dst, src, off)

    def load(self, size: int, dst: int, src: int, off: int, note: str = "") -> None:
        self.emit(0x61 | WIDTH[size], dst, src, off, note=note)

    def store(self, size: int, dst: int, off: int, src: int) -> None:
        self.emit(0x63 | WIDTH[size], dst, src, off)

    def wide(self, dst: int, value: int, source: int = 0) -> None:
        self.emit(0x18, dst, source, imm=value & 0xFFFFFFFF)
        self.emit(0, imm=value >> 32)

    def call(self, helper: int) -> None:
        self.emit(0x85, imm=helper)

    def jump(self, label: str) -> None:
        self.goto[len(self.slots)] = label
        self.emit(0x05)

    def branch(self, operation: int, dst: int, imm: int, label: str, *, bits: int = 64) -> None:
        self.goto[len(self.slots)] = label
        self.emit((5 if bits == 64 else 6) | operation, dst, imm=imm)

    def branch_register(self, operation: int, dst: int, src: int, label: str, *, bits: int = 64) -> None:
        self.goto[len(self.slots)] = label
        self.emit((5 if bits == 64 else 6) | operation | 8, dst, src)

    def exit(self, value: int | None = None) -> None:
        if value is not None:
            self.alu(MOV, 0, value)
        self.emit(0x95)

    def uses(self, label: str) -> bool:
        return label in self.goto.values()

    def unresolved(self) -> list[str]:
        return sorted({label for label in self.goto.values() if label not in self.labels})

    def raw(self) -> list[bytes]:
        packed = []
        for at, (code, dst, src, off, imm) in enumerate(self.slots):
            distance = self.labels[self.goto[at]] - at - 1 if at in self.goto else off
            packed.append(struct.pack("<BBhI", code, src << 4 | dst, distance, imm & 0xFFFFFFFF))
        return packed

    def instructions(self) -> tuple[Instruction, ...]:
        return from_bytes(b"".join(self.raw()))

    def policy_info(self) -> list[dict[str, Any]]:
        """The slots as Felix's debug file lists them."""
        listed = []
        for at, raw in enumerate(self.raw()):
            entry: dict[str, Any] = {"inst": list(raw)}
            if labels := [label for label, where in self.labels.items() if where == at]:
                entry["labels"] = labels
            if at in self.comments:
                entry["comments"] = self.comments[at]
            note = f"goto {self.goto[at]}" if at in self.goto else self.notes.get(at, "")
            if note:
                entry["annotation"] = note
            listed.append(entry)
        return listed
