"""The policy program that an interface really runs, and whether Felix's debug file still tells of it.

Felix writes the debug file beside loading the program (felix/dataplane/linux/bpf_ep_mgr.go, writePolicyDebugInfo), for
people. What is certain is the tag that the kernel gave the loaded program, and its own dump of it: where the file
differs, the dump is what is run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from calico_debug.decode.bpf_instructions import fingerprint, from_xlated, tags
from calico_debug.decode.json_text import parse_json
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.model.bytecode import MapReference, PolicyDebug, Program, Section
from calico_debug.model.explanation import Finding
from calico_debug.walk.bpf_outcomes import XDP
from calico_debug.walk.bpf_policy import PolicyProgram, policy_of_debug
from calico_debug.walk.bpf_roles import Role, role_of_map
from calico_debug.walk.bpf_state import StateLayout, layout_of_size
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.state.bpf_programs import PolicyPrograms
    from calico_debug.state.node import NodeState

_DEBUG_FILE = re.compile(r"(?P<interface>.+)_(?:ingress|egress|xdp)_v[46]\.json")


@dataclass(frozen=True, slots=True)
class LoadedPolicy:
    """A program to run, what is odd about where it is from, and Felix's debug file where that tells of this program."""

    program: PolicyProgram
    findings: tuple[Finding, ...] = ()
    debug: PolicyDebug | None = None

    @property
    def rules(self) -> tuple[Section, ...]:
        """Felix's list of the program's rules; empty where it is not known."""
        return self.debug.rules if self.debug is not None else ()


class LoadedPolicies:
    """The policy programs of one node, each prepared once."""

    def __init__(self, state: NodeState) -> None:
        """Nothing is read yet."""
        self._state = state
        self._prepared: dict[tuple[tuple[int, ...], str, str, int], LoadedPolicy | Exception] = {}

    def policy(self, interface: str, direction: str, loaded: PolicyPrograms) -> LoadedPolicy:
        """The policy of an interface; ``direction`` is in the debug file's terms, ``loaded`` is what runs there.

        Raises `Undecided` when what is known of the program is stale, `EvidenceError` when nothing is known of it.
        """
        key = (loaded.programs, interface, direction, loaded.family)
        if key not in self._prepared:
            try:
                self._prepared[key] = self._prepare(interface, direction, loaded)
            except (EvidenceError, Undecided) as error:
                self._prepared[key] = error
        found = self._prepared[key]
        if isinstance(found, Exception):
            raise found
        return found

    def _prepare(self, interface: str, direction: str, loaded: PolicyPrograms) -> LoadedPolicy:
        name = f"{interface}_{direction}_v{loaded.family}.json"
        what = f"{name} of {self._state.name}"
        debug: PolicyDebug | None = None
        trouble = ""
        try:
            debug = self._state.policy_debug(name)
        except EvidenceError as error:
            trouble = str(error)
        else:
            if debug.error:
                trouble = f"{what}: Felix could not load this policy, and an older one may run: {debug.error}"
            elif not debug.programs:
                trouble = f"{what} has no instructions"
            elif debug.interface != interface:
                trouble = f"{what} is that of interface {debug.interface}"
        if debug is not None and not trouble and self._is_loaded(debug, loaded):
            return LoadedPolicy(policy_of_debug(debug, loaded.family), (), debug)
        try:
            dumped = [self._dump(number) for number in loaded.programs]
        except EvidenceError as error:
            if debug is None or trouble:
                numbers = ", ".join(map(str, loaded.programs))
                raise MissingEvidence(
                    f"the {direction} policy program of {interface} is not known: {trouble}; and no dump of the loaded "
                    f"program ({error}); record `bpftool -j prog dump xlated id {numbers} opcodes`, or set "
                    "BPFPolicyDebugEnabled in FelixConfiguration"
                ) from None
            return self._unverified(debug, what, loaded, error)
        if debug is not None and not trouble:
            if [fingerprint(part.instructions) for part in debug.programs] == [
                fingerprint(part.instructions) for part in dumped
            ]:
                return LoadedPolicy(policy_of_debug(debug, loaded.family), (), debug)
            trouble = f"{what} is stale: the loaded program is another one"
        return self._from_dump(dumped, debug, trouble, loaded, xdp=direction == XDP)

    def _is_loaded(self, debug: PolicyDebug, loaded: PolicyPrograms) -> bool:
        """Whether the kernel's tags tell that the file's code is the very code that was loaded."""
        written = [tags(part.instructions) for part in debug.programs]
        found = self._tags(loaded)
        return len(found) == len(written) and all(tag in ours for tag, ours in zip(found, written, strict=True))

    def _tags(self, loaded: PolicyPrograms) -> list[str]:
        programs = self._state.bpf.programs
        return [programs[part].tag if part in programs else "" for part in loaded.programs]

    def _unverified(
        self, debug: PolicyDebug, what: str, loaded: PolicyPrograms, missing: EvidenceError
    ) -> LoadedPolicy:
        """Without a dump and tags of the loaded program only the number of its parts can be compared."""
        if any(self._tags(loaded)):
            numbers = ", ".join(map(str, loaded.programs))
            raise Undecided(
                f"{what} is stale: the loaded program ({numbers}) has another tag; record `bpftool -j prog dump xlated "
                f"id {numbers} opcodes` too"
            )
        if len(debug.programs) != len(loaded.programs):
            raise Undecided(
                f"{what} is stale: it has {len(debug.programs)} programs, and {len(loaded.programs)} are loaded; "
                f"record `bpftool -j prog dump xlated id {loaded.programs[0]} opcodes` too"
            )
        numbers = ", ".join(map(str, loaded.programs))
        message = f"{what} is taken for what is loaded (program {numbers}), which it cannot be compared with: {missing}"
        return LoadedPolicy(
            policy_of_debug(debug, loaded.family), (Finding("bpf-policy-not-compared", "info", message),), debug
        )

    def _from_dump(
        self, dumped: Sequence[Program], debug: PolicyDebug | None, trouble: str, loaded: PolicyPrograms, *, xdp: bool
    ) -> LoadedPolicy:
        program = PolicyProgram(dumped, loaded.family, self._layout(loaded), self._roles(loaded), xdp=xdp)
        program.names |= self._names
        if debug is not None:
            program.names |= _named(debug)
        numbers = ", ".join(map(str, loaded.programs))
        message = f"{trouble}; the loaded program ({numbers}) was run instead, and its rules are named by their ids"
        stale = debug is not None
        code, severity = ("bpf-policy-debug-stale", "warning") if stale else ("bpf-policy-debug-missing", "info")
        return LoadedPolicy(program, (Finding(code, severity, message),))

    def _dump(self, number: int) -> Program:
        what = f"the dump of program {number} of {self._state.name}"
        return from_xlated(parse_json(self._state.bpf.program_dump(number), what), what)

    def _layout(self, loaded: PolicyPrograms) -> StateLayout:
        """The layout of the state map that the program names."""
        for info in self._maps(loaded):
            if role_of_map(info[1]) is Role.STATE:
                return layout_of_size(info[2])
        raise EvidenceError(
            f"program {loaded.programs[0]} of {self._state.name} names no state map; record map-show.json again"
        )

    def _roles(self, loaded: PolicyPrograms) -> Mapping[MapReference, Role]:
        found = {}
        for number, name, _ in self._maps(loaded):
            role = role_of_map(name)
            if role is not None:
                found[MapReference("id", number)] = role
        return found

    def _maps(self, loaded: PolicyPrograms) -> Iterator[tuple[int, str, int]]:
        """Maps that the parts name: id, name, bytes of a value."""
        maps, programs = self._state.bpf.maps, self._state.bpf.programs
        for part in loaded.programs:
            for number in programs[part].map_ids if part in programs else ():
                if number in maps:
                    yield number, maps[number].name, maps[number].value_size

    @cached_property
    def _names(self) -> Mapping[int, Section]:
        """What ids stand for, as any debug file of the node tells: an id is made of names and holds everywhere."""
        found: dict[int, Section] = {}
        for name in self._state.policy_debug_files:
            try:
                found |= _named(self._state.policy_debug(name))
            except EvidenceError:
                continue  # told where that file is the one that is needed
        return found


def _named(debug: PolicyDebug) -> Mapping[int, Section]:
    return {section.match_id: section for section in debug.rules if section.match_id}


def leftover_debug_files(state: NodeState) -> Iterator[Finding]:
    """Debug files of interfaces that the node does not have. Raises `EvidenceError`."""
    gone = sorted(
        {
            found["interface"]
            for name in state.policy_debug_files
            if (found := _DEBUG_FILE.fullmatch(name)) is not None and found["interface"] not in state.interfaces
        }
    )
    if gone:
        yield Finding(
            "bpf-policy-debug-leftover",
            "info",
            f"{state.name} has policy debug files of interfaces that are gone, which nothing is told from: "
            f"{', '.join(gone)}",
        )
