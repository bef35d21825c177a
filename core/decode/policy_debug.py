"""Felix's policy debug files: ``/var/run/calico/bpf/policy/<interface>_<ingress|egress|xdp>_v<4|6>.json``.

Written by felix/dataplane/linux/bpf_ep_mgr.go (writePolicyDebugInfo) in the form of felix/bpf/bpf_defs.go
(PolicyDebugInfo); comments and labels are those of felix/bpf/polprog/pol_prog_builder.go, read for v3.28 to v3.32.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, Final

from calico_debug.decode.bpf_instructions import from_bytes, recorded_ids
from calico_debug.decode.json_text import parse_json
from calico_debug.decode.policy_clauses import read_clause, starts_clause, with_named_ports, with_number
from calico_debug.errors import EvidenceError
from calico_debug.model.bytecode import BytecodeError, Clause, PolicyDebug, Program, Section, SectionKind

_NEW_PROGRAM: Final = re.compile(r"##### Start of program \d+ #####")
_SPLIT: Final = "Splitting program after "
_TIER_START: Final = re.compile(r"Start of tier (.*)")
_TIER_END: Final = re.compile(r"End of tier (.*?)(?:: (deny|pass|))?")  # v3.28, v3.29: without the action
_LEGACY_POLICY: Final = re.compile(r"Start of policy (\S+)")  # v3.28 to v3.31
_POLICY: Final = re.compile(r"Start of ([A-Z]\w*) (?:([^\s/]+)/)?(\S+) \d+")  # since v3.32
_POLICY_END: Final = re.compile(r"End of (policy|[A-Z]\w*) \S+(?: \d+)?")
_RULE: Final = re.compile(r"Start of rule (?:([^\s:]+) +)?(.*)", re.DOTALL)
_MATCH_ID: Final = re.compile(r"Rule MatchID: (\d+)")
_ACTION: Final = re.compile(r'\baction:\s*"([a-z-]+)"')
_IP_SET: Final = re.compile(r"ipset (\S+) \(0x([0-9a-f]{1,16})\)")
_FIELD: Final = re.compile(r"\(R9 \+ (\d+)\) /\* state->(\w+) \*/")
_GOTO: Final = re.compile(r"goto (\S+)")
_ACTIONS: Final = {"next-tier": "pass"}
_OUTSIDE: Final = Section(SectionKind.NO_PROFILE)
_NOWHERE: Final = -1
"""Number of the section of slots that decide nothing: relays for long jumps."""
_CLOSING: Final = frozenset({"allow", "deny", "exit", "xdp_pass", "allowed_by_host_policy", "to_or_from_host"})
"""Labels after which no rule and no tier is open."""


def decode_policy_debug(data: bytes, what: str) -> PolicyDebug:
    """A debug file. ``what`` names it for messages. Raises `EvidenceError` for anything that Felix would not write."""
    document = parse_json(data, what)
    if not isinstance(document, dict) or not isinstance(document.get("ifacename"), str):
        raise EvidenceError(f"{what} is no policy debug file of Felix: it has no ifacename; record it again")
    listed = document.get("policyInfo") or []
    if not isinstance(listed, list):
        raise EvidenceError(f"{what}: policyInfo is no list of instructions; record it again")
    slots = [_slot(entry, position, what) for position, entry in enumerate(listed)]
    reader = _Reader()
    for slot in slots:
        reader.read(slot)
    programs, final_ids = _programs(slots, reader, what)
    return PolicyDebug(
        document["ifacename"],
        str(document.get("hook", "")),
        str(document.get("error") or ""),
        programs,
        tuple(final_ids.get(position, rule) for position, rule in enumerate(reader.rules)),
        reader.ip_sets,
        reader.fields,
        tuple(reader.ruleless),
    )


class _Slot:
    __slots__ = ("comments", "labels", "raw", "target", "text")

    def __init__(self, raw: bytes, labels: Sequence[str], comments: Sequence[str], text: str) -> None:
        self.raw, self.labels, self.comments, self.text = raw, labels, comments, text
        found = _GOTO.fullmatch(text)
        self.target = found[1] if found else ""


def _slot(entry: Any, position: int, what: str) -> _Slot:
    if isinstance(entry, Mapping):
        octets, labels, comments = entry.get("inst"), entry.get("labels") or [], entry.get("comments") or []
        text = entry.get("annotation") or ""
        if (
            isinstance(octets, list)
            and len(octets) == 8
            and all(isinstance(octet, int) and 0 <= octet < 256 for octet in octets)
            and isinstance(text, str)
            and all(
                isinstance(words, list) and all(isinstance(word, str) for word in words) for words in (labels, comments)
            )
        ):
            return _Slot(bytes(octets), labels, comments, text)
    raise BytecodeError(
        f"{what}: instruction {position} is not 8 bytes with labels and comments; record the file again"
    )


class _Reader:
    """Follows the comments through the slots and notes what each slot decides."""

    def __init__(self) -> None:
        self.rules: list[Section] = []
        self.ip_sets: dict[int, str] = {}
        self.fields: dict[str, int] = {}
        self.sections: list[int | None] = []
        self.starts = [0]
        self.clauses: dict[int, Clause] = {}
        self._clause = 0
        """Slot of the last clause."""
        self._tier = ""
        self._ended = -1
        """Number of the tier that ended last: Felix numbers the labels behind the ends so."""
        self._policy: tuple[str, str, str] | None = None
        self._policy_start = 0
        self.ruleless: list[tuple[int, Section]] = []
        self._count: dict[tuple[str, str, str], int] = {}
        self._current: int | None = None
        self._before_split: int | None = None
        self._skipping = ""

    def read(self, slot: _Slot) -> None:
        """Note one more slot."""
        position = len(self.sections)
        if self._skipping:  # jumps over a trampoline; their labels are those of elsewhere
            if self._skipping not in slot.labels:
                self.sections.append(_NOWHERE)
                return
            self._skipping = ""
        for comment in slot.comments:
            self._comment(comment, position)
        if _CLOSING.intersection(slot.labels) and not any("Start of " in comment for comment in slot.comments):
            self._current = None
        if f"end_of_tier_{self._ended}" in slot.labels and self._kind() is SectionKind.END_OF_TIER:
            self._current = None
        if found := _FIELD.search(slot.text):
            at = int(found[1])  # of an IPv6 address, each half is named after the whole
            self.fields[found[2]] = min(at, self.fields.get(found[2], at))
        if slot.target.startswith("skip-trampoline-"):
            self._skipping = slot.target
            self.sections.append(_NOWHERE)
            return
        self.sections.append(self._current)

    def _kind(self) -> SectionKind | None:
        return None if self._current is None else self.rules[self._current].kind

    def _comment(self, comment: str, position: int) -> None:
        if comment.startswith(_SPLIT):
            self._before_split, self._current = self._current, None
        elif _NEW_PROGRAM.fullmatch(comment):
            self.starts.append(position)
            self._current = self._before_split
        elif found := _TIER_START.fullmatch(comment):
            self._tier, self._current = found[1], None
            self._count.clear()
        elif found := _TIER_END.fullmatch(comment):
            self._ended += 1
            self._open(Section(SectionKind.END_OF_TIER, found[1], action=found[2] or ""))
            self._tier = ""
        elif comment.startswith("Start of rule "):
            self._rule(comment)
        elif comment.startswith("End of rule "):
            self._current = None
        elif found := _LEGACY_POLICY.fullmatch(comment):
            self._start_policy("", "", found[1])
        elif found := _POLICY.fullmatch(comment):
            self._start_policy(found[1], found[2] or "", found[3])
        elif _POLICY_END.fullmatch(comment):
            if self._policy is not None and self._policy_start == len(self.rules):
                self.ruleless.append((len(self.rules), Section(SectionKind.POLICY, self._tier, *self._policy)))
            self._policy = None
        elif (found := _MATCH_ID.fullmatch(comment)) and self._current is not None:
            self.rules[self._current] = replace(self.rules[self._current], match_id=int(found[1]))
        elif found := _IP_SET.search(comment):
            self.ip_sets[int(found[2], 16)] = found[1]
        if starts_clause(comment):
            self._clause = position
            self.clauses[position] = read_clause(comment)
        elif self._clause in self.clauses:
            self.clauses[self._clause] = with_named_ports(self.clauses[self._clause], comment)

    def _start_policy(self, owner: str, namespace: str, name: str) -> None:
        self._policy, self._policy_start = (owner, namespace, name), len(self.rules)

    def _rule(self, comment: str) -> None:
        found = _RULE.fullmatch(comment)
        name, text = (found[1] or "", found[2]) if found else ("", comment)
        owner = self._policy or ("Profile", "", name)
        index = self._count.get(owner, 0)
        self._count[owner] = index + 1
        action = _ACTION.search(text)
        word = _ACTIONS.get(action[1], action[1]) if action else ""
        self._open(Section(SectionKind.RULE, self._tier, *owner, index, None, word, text.strip()))

    def _open(self, section: Section) -> None:
        self._current = len(self.rules)
        self.rules.append(section)


def _programs(slots: Sequence[_Slot], reader: _Reader, what: str) -> tuple[tuple[Program, ...], dict[int, Section]]:
    """The sub-programs, and the sections whose id only the code tells, by number."""
    programs: list[Program] = []
    final: dict[int, Section] = {}
    bounds = [*reader.starts, len(slots)] if slots else []
    for start, end in pairwise(bounds):
        instructions = from_bytes(b"".join(slot.raw for slot in slots[start:end]), what)
        ids = recorded_ids(instructions)
        sections: dict[int, Section] = {}
        for offset, index in enumerate(reader.sections[start:end]):
            if index is None:
                sections[offset] = _OUTSIDE
            elif index != _NOWHERE and offset in ids and reader.rules[index].match_id is None:
                reader.rules[index] = replace(reader.rules[index], match_id=ids[offset])
                final[index] = reader.rules[index]
        for offset, index in enumerate(reader.sections[start:end]):
            if index is not None and index != _NOWHERE:
                sections[offset] = reader.rules[index]
        targets = {offset: slot.target for offset, slot in enumerate(slots[start:end]) if slot.target}
        clauses = {
            slot - start: with_number(clause, instructions[slot - start : slot - start + 2])
            for slot, clause in reader.clauses.items()
            if start <= slot < end
        }
        programs.append(Program(instructions, "fd", f"{what}#{len(programs)}", sections, targets, clauses))
    return tuple(programs), final
