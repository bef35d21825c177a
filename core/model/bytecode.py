"""eBPF bytecode as decoded: instructions, programs, and the notes that Felix leaves beside a policy program.

Instruction encoding: Linux include/uapi/linux/bpf.h (struct bpf_insn) and Documentation/bpf/standardization (RFC 9669).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from calico_debug.errors import EvidenceError

LOAD_WIDE: Final = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: the only instruction of two slots."""
CALL: Final = 0x85
EXIT: Final = 0x95
JUMP: Final = 0x05
JUMP_LONG: Final = 0x06
SECOND_HALF: Final = 0x00
"""Code of the second slot of a wide load."""

PLAIN: Final = 0
"""``source`` of a wide load or a call: a number; a kernel helper."""
MAP: Final = 1
"""``source`` of a wide load: a map by file descriptor or id (BPF_PSEUDO_MAP_FD). Of a call: one inside the program."""
MAP_VALUE: Final = 2
"""``source`` of a wide load: the address of a map's value (BPF_PSEUDO_MAP_VALUE)."""

MAX_INSTRUCTIONS: Final = 1_000_000
"""Linux BPF_COMPLEXITY_LIMIT_INSNS: no loadable program is longer."""


class BytecodeError(EvidenceError):
    """Bytecode that the kernel would not run: truncated, with a bad jump, a bad access or without an end."""


@dataclass(frozen=True, slots=True)
class Instruction:
    """One 8-byte slot.

    ``immediate`` is signed, 32 bits; of a wide load it is the whole unsigned 64-bit number (of a map: its descriptor or
    id). ``offset`` is in slots for jumps, in bytes for memory. ``helper`` is the name of the helper that a call calls,
    "" when neither the number nor the disassembly tells it.
    """

    code: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0
    helper: str = ""


@dataclass(frozen=True, slots=True)
class MapReference:
    """A map as bytecode names it: ``space`` is "fd" (Felix's descriptor, good for comparing only) or "id"."""

    space: str
    number: int

    def __str__(self) -> str:
        """``map id 17``."""
        return f"map {self.space} {self.number}"


class SectionKind(Enum):
    """What a stretch of a policy program decides."""

    RULE = "rule"
    END_OF_TIER = "end-of-tier"
    POLICY = "policy"
    """A policy that has no rule for the direction: it decides nothing, and its tier's end may."""
    NO_PROFILE = "no-profile"
    """After the last tier and profile, where workloads are denied."""


@dataclass(frozen=True, slots=True)
class Section:
    """What one stretch of a policy program stands for, in Felix's words.

    ``owner`` is the policy's or profile's kind ("" before v3.32, "Profile" for profiles), ``namespace`` and ``name``
    its name as Felix writes it, ``index`` the rule's number in its list, ``match_id`` the id it counts under (None when
    neither comments nor code say), ``action`` allow, deny, pass, log or "". ``text`` is the rule as Felix prints it.
    """

    kind: SectionKind
    tier: str = ""
    owner: str = ""
    namespace: str = ""
    name: str = ""
    index: int = 0
    match_id: int | None = None
    action: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a rule, which leaves the rule when it fails.

    ``kind`` is "protocol", "source", "destination", "source ports", "destination ports", "icmp" or "" for one that is
    not understood; ``wanted`` what it compares with, as programmed; ``negated`` that it wants anything else. With
    ``by_set`` an IP set answers, and with ``with_ports`` one that holds addresses together with ports.
    """

    kind: str
    wanted: str = ""
    negated: bool = False
    by_set: bool = False
    with_ports: bool = False


@dataclass(frozen=True, slots=True)
class Program:
    """A program, slot by slot. ``space`` says how it names maps: see `MapReference`.

    ``sections`` gives, by slot, what the code there decides; ``targets`` the label that a jump goes to; ``clauses``, by
    the slot where its code begins, what must hold for a rule. All are empty without Felix's comments.
    """

    instructions: tuple[Instruction, ...]
    space: str = "fd"
    name: str = ""
    sections: Mapping[int, Section] = field(default_factory=dict)
    targets: Mapping[int, str] = field(default_factory=dict)
    clauses: Mapping[int, Clause] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PolicyDebug:
    """Felix's debug file of one policy program.

    ``rules`` are all its sections in order, those without code of their own too. ``ruleless`` are policies that have no
    rule, each as a section of kind POLICY, with the number of sections before it.
    ``hook`` is the tc hook ("tc ingress", "tc egress", "tc xdp"), opposite to the policy's direction on a pod.
    ``error`` is Felix's message when loading failed, else "". ``programs`` are the sub-programs in order; empty when
    Felix had none to write. ``ip_sets`` gives names of IP sets by number. ``fields`` is the byte offset of fields of
    the state, as the annotations name them (``ip_proto``: 104).
    """

    interface: str
    hook: str
    error: str
    programs: tuple[Program, ...]
    rules: tuple[Section, ...]
    ip_sets: Mapping[int, str]
    fields: Mapping[str, int]
    ruleless: tuple[tuple[int, Section], ...] = ()
