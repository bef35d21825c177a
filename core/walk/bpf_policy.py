"""A policy program run for one packet: the verdict, and the rules it passed, as the bytecode itself decides.

No policy is evaluated here. The program of an interface (felix/bpf/polprog) reads the packet's state, looks up IP sets,
notes the ids of the rules it takes, writes its verdict and leaves by a tail call; this module answers its look-ups and
tells what the slots that ran stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from calico_debug.decode.bpf_instructions import recorded_ids
from calico_debug.model.bytecode import (
    JUMP,
    BytecodeError,
    MapReference,
    PolicyDebug,
    Program,
    Section,
    SectionKind,
)
from calico_debug.walk.bpf_compile import compiled
from calico_debug.walk.bpf_machine import BUDGET, Compiled, Doubtful, Left, Maps, Outcome, execute
from calico_debug.walk.bpf_memory import Pointer, Region
from calico_debug.walk.bpf_roles import Role, inferred_roles
from calico_debug.walk.bpf_sets import KEY_BYTES, VALUE_BYTES
from calico_debug.walk.bpf_state import (
    FLAG_LOG_PACKET,
    LAYOUTS,
    PolicyPacket,
    StateLayout,
    layout_of_fields,
    number_in,
    rule_ids_in,
    state_of,
)
from calico_debug.walk.bpf_values import Unsettled
from calico_debug.walk.choices import Chooser, Unsure
from calico_debug.walk.context import Undecided

POLICY_ALLOW, POLICY_DENY = 1, 2
"""``pol_rc``: felix/bpf-gpl/policy_program.h CALI_POL_ALLOW, CALI_POL_DENY."""
XDP_PASS: Final = 2
CONTEXT_BYTES: Final = 256
"""More than struct __sk_buff and struct sk_buff's first part, which policy programs read their jump indexes from."""
MAX_SUB_PROGRAMS: Final = 24
"""felix/bpf/jump: sub-programs of one policy."""
_OR_IMMEDIATE, _JUMP_FROM = 0x47, 0x35
ACTION_LABELS: Final = frozenset({"allow", "deny", "allowed_by_host_policy"})
"""Labels of jumps that carry out what a rule says."""


class Verdict(Enum):
    """What a policy program did with a packet."""

    ALLOWED = "allowed"
    DENIED = "denied"
    PASSED = "passed"
    """XDP: no untracked policy spoke; the packet goes on to the tc programs."""
    BROKEN = "broken"
    """The program gave up (no state, or a sub-program is missing): the packet is dropped, and no policy did it."""


class PolicyMaps(Protocol):
    """What a policy program asks about the node's maps."""

    def in_ip_set(self, version: int, key: bytes, known: bytes) -> bool | Unsure:
        """Whether the key, in the layout of `bpf_sets`, is covered; bits outside ``known`` are open."""

    def sub_program(self, index: int) -> Program | None:
        """The program at an index of the policy jump map, None if nothing is there. May raise `Undecided`."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A rule, an end of tier or the end of all that took the packet.

    ``rule_id`` is what the program noted down, None if it noted nothing (another release, or more than 32 rules):
    ``section`` says what it stands for, None if nothing tells.
    """

    rule_id: int | None
    section: Section | None


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """The result: ``hits`` in order; ``rule_ids`` as noted in the state, those that count.

    ``logged`` are the log rules on the way. ``detail`` explains a broken run. ``end`` is the part and the slot in it
    that the last hit was seen at.
    """

    verdict: Verdict
    hits: tuple[Hit, ...]
    rule_ids: tuple[int, ...]
    logged: tuple[Section | None, ...]
    detail: str = ""
    end: tuple[Compiled, int] | None = field(default=None, compare=False)

    @property
    def decision(self) -> Hit | None:
        """The hit that decided. None where nothing did: a host interface lets pass what no policy speaks about."""
        last = self.hits[-1] if self.hits else None
        if last is None or self.verdict is Verdict.DENIED:
            return last
        decided = self.verdict is Verdict.ALLOWED and (last.section is None or last.section.action == "allow")
        return last if decided else None


class PolicyProgram:
    """An interface's policy program, prepared once for many packets."""

    __slots__ = ("_known", "layout", "names", "parts", "roles", "version", "xdp")

    def __init__(
        self,
        parts: Sequence[Program],
        version: int,
        layout: StateLayout,
        roles: Mapping[MapReference, Role] | None = None,
        *,
        xdp: bool = False,
    ) -> None:
        """``parts`` are the sub-programs that are known, in order; ``roles`` what maps are for, where that is known.

        `names` may be filled with what rule ids stand for, which code without comments does not tell.

        Raises `BytecodeError` for bytecode that no kernel loads.
        """
        if not parts:
            raise BytecodeError("the policy program has no instructions; record it again")
        self.parts = tuple(compiled(part) for part in parts)
        self.version = version
        self.layout = layout
        self.xdp = xdp
        self.names: dict[int, Section] = {}
        self.roles: dict[MapReference, Role] = {}
        for part in parts:
            self.roles |= inferred_roles(part, layout)
        self.roles |= roles or {}
        self._known: dict[int, _Meaning] = {}

    @property
    def noted_ids(self) -> frozenset[int]:
        """The ids that the known parts can note down."""
        return frozenset(number for part in self.parts for number in recorded_ids(part.program.instructions).values())

    def run(self, packet: PolicyPacket, maps: PolicyMaps, chooser: Chooser, budget: int = BUDGET) -> PolicyRun:
        """What the program does with a packet. Raises `BytecodeError` or `Undecided`, as `bpf_machine.execute`."""
        if packet.version != self.version:
            raise Undecided(f"an IPv{packet.version} packet and a policy program for IPv{self.version}")
        return self.run_state(state_of(packet, self.layout), maps, chooser, budget)

    def run_state(self, state: Region, maps: PolicyMaps, chooser: Chooser, budget: int = BUDGET) -> PolicyRun:
        """What the program does with a state, which it changes. Raises as `run`."""
        context = Region("context", bytes(CONTEXT_BYTES), known=False, writable=False, aligned=True)
        return self._told(execute(self.parts[0], context, self.answers(state, maps), chooser, budget), state)

    def answers(self, state: Region, maps: PolicyMaps) -> Maps:
        """What look-ups of one run over ``state`` find."""
        return _Answers(self, state, maps)

    def _told(self, outcome: Outcome, state: Region) -> PolicyRun:
        hits: list[Hit] = []
        logged: list[Section | None] = []
        end: tuple[Compiled, int] | None = None
        for part, slots in outcome.trace:
            meaning = self._known.get(id(part))
            if meaning is None:
                meaning = self._known[id(part)] = _Meaning(part)
            last = meaning.tell(slots, hits, logged)
            end = (part, last) if last is not None else end
        if self.names:
            hits = [hit if hit.section is not None else Hit(hit.rule_id, self._named(hit.rule_id)) for hit in hits]
        verdict, detail = self._verdict(outcome, state)
        return PolicyRun(verdict, tuple(hits), rule_ids_in(state, self.layout), tuple(logged), detail, end)

    def _named(self, number: int | None) -> Section | None:
        """Id 0 is the end of all since v3.30; before, ends of tiers have it too."""
        if number == 0 and self.layout is not LAYOUTS[0]:
            return Section(SectionKind.NO_PROFILE, match_id=0)
        return self.names.get(number) if number is not None else None

    def _verdict(self, outcome: Outcome, state: Region) -> tuple[Verdict, str]:
        noted = number_in(state, self.layout, "pol_rc")
        if outcome.left is not None:
            if noted in (POLICY_ALLOW, POLICY_DENY):
                return (Verdict.ALLOWED if noted == POLICY_ALLOW else Verdict.DENIED), ""
            return Verdict.BROKEN, f"the program left with verdict {noted}, which is none"
        if isinstance(outcome.result, Unsettled):
            raise Undecided(f"what the policy program returns is open ({outcome.result.why})")
        if self.xdp and outcome.result == XDP_PASS:
            return Verdict.PASSED, ""
        return Verdict.BROKEN, f"the program ended with {outcome.result}: its state or its next part is missing"


class _Answers:
    """Map look-ups of one run."""

    __slots__ = ("_maps", "_policy", "_position", "_state")

    def __init__(self, policy: PolicyProgram, state: Region, maps: PolicyMaps) -> None:
        self._policy, self._state, self._maps = policy, state, maps
        self._position = 0

    def sizes(self, reference: MapReference) -> tuple[int, int]:
        role = self._policy.roles.get(reference)
        if role is Role.STATE:
            return 4, self._policy.layout.size
        if role is Role.IP_SETS:
            return KEY_BYTES[self._policy.version], VALUE_BYTES
        raise Undecided(f"the policy program looks into {reference}, which is none of Calico's that policy needs")

    def lookup(self, reference: MapReference, key: bytes, known: bytes) -> Region | Doubtful | None:
        if self._policy.roles.get(reference) is Role.STATE:
            if known != b"\xff" * 4:
                raise Undecided("the policy program looks up its state under a key that is not known")
            return self._state if key == bytes(4) else None
        if known[:4] != b"\xff" * 4:
            raise Undecided("the policy program looks into an IP set with a prefix length that is not known")
        answer = self._maps.in_ip_set(self._policy.version, key, known)
        if answer is False:
            return None
        member = Region("IP set member", (1).to_bytes(VALUE_BYTES, "little"), writable=False)
        return member if answer is True else Doubtful(member, answer)

    def update(self, reference: MapReference, _key: bytes, _value: bytes, _flags: int, /) -> int:
        raise Undecided(f"the policy program changes {reference}, which no known release does")

    def delete(self, reference: MapReference, _key: bytes, /) -> int:
        raise Undecided(f"the policy program changes {reference}, which no known release does")

    def value(self, reference: MapReference, _offset: int, /) -> Pointer:
        raise Undecided(f"the policy program uses {reference} without a look-up, which no known release does")

    def jump(self, reference: MapReference, index: int | None) -> Compiled | Left | None:
        role = self._policy.roles.get(reference)
        if role is Role.VERDICT:
            return Left(reference, index)
        if role is not Role.POLICIES or index is None:
            raise Undecided(f"the policy program jumps into {reference}, whose purpose is not known")
        self._position += 1
        if self._position < len(self._policy.parts):
            return self._policy.parts[self._position]
        if self._position >= MAX_SUB_PROGRAMS:
            raise BytecodeError(f"more than {MAX_SUB_PROGRAMS} parts of a policy program follow each other")
        found = self._maps.sub_program(index)
        return compiled(found) if found is not None else None


class _Meaning:
    """What the slots of one part stand for."""

    __slots__ = ("_decisions", "_instructions", "_sections")

    def __init__(self, part: Compiled) -> None:
        self._instructions, self._sections = part.program.instructions, part.program.sections
        self._decisions: dict[int, int | None] = dict(recorded_ids(self._instructions))
        """Slots that matter: those that note an id, with the id."""
        for slot, one in enumerate(self._instructions):
            if one.code == _OR_IMMEDIATE and one.immediate == FLAG_LOG_PACKET:
                self._decisions[slot] = None
        for slot, label in part.program.targets.items():
            section = self._sections.get(slot)
            if section is None or self._instructions[slot].code not in (JUMP, _JUMP_FROM):
                continue
            if _is_decision(section, label):
                self._decisions[slot] = None

    def tell(self, slots: Sequence[int], hits: list[Hit], logged: list[Section | None]) -> int | None:
        """Add what these slots, in the order they ran, decided, and return the slot of the last hit."""
        decisions, last = self._decisions, len(slots) - 1
        noted: Section | None = None
        found: int | None = None
        for position, slot in enumerate(slots):
            if slot not in decisions:
                continue
            rule_id, section, code = decisions[slot], self._sections.get(slot), self._instructions[slot].code
            if rule_id is not None:
                noted, found = section, slot
                hits.append(Hit(rule_id, section))
            elif code == _OR_IMMEDIATE:
                logged.append(section)
            elif section is not noted and (code == JUMP or (position < last and slots[position + 1] != slot + 1)):
                found = slot
                hits.append(Hit(None, section))
        return found


def _is_decision(section: Section, label: str) -> bool:
    """Whether a jump to ``label`` carries out what the section decides, and is no step to the next rule."""
    if section.kind is SectionKind.NO_PROFILE:
        return label == "deny"
    if section.kind is SectionKind.END_OF_TIER:
        return label == "deny" or label.startswith("end_of_tier_")
    return label in ACTION_LABELS or label.startswith("end_of_tier_")


def policy_of_debug(debug: PolicyDebug, version: int, layout: StateLayout | None = None) -> PolicyProgram:
    """The program in a debug file, which does not say its IP version. ``layout`` None is read from its annotations.

    Raises `EvidenceError` when the file has no program or one that no kernel loads.
    """
    layout = layout or layout_of_fields(debug.fields)
    return PolicyProgram(debug.programs, version, layout, xdp=debug.hook.endswith("xdp"))
