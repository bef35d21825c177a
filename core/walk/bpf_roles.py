"""What a policy program uses its maps for: by their names, or from the code alone."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from calico_debug.model.bytecode import CALL, LOAD_WIDE, MAP, PLAIN, Instruction, MapReference, Program
from calico_debug.walk.bpf_state import StateLayout

_STORE_WORD: Final = 0x63
_REACH: Final = 10
"""Slots before a call in which its arguments are set."""


class Role(Enum):
    """What a policy program uses a map for."""

    STATE = "state"
    IP_SETS = "IP sets"
    VERDICT = "programs that carry out the verdict"
    POLICIES = "policy programs"


_ROLES_OF_NAMES: Final = (
    ("cali_state", Role.STATE),
    ("cali_v4_ip_sets", Role.IP_SETS),
    ("cali_v6_ip_sets", Role.IP_SETS),
    ("cali_progs", Role.VERDICT),
    ("xdp_cali_progs", Role.VERDICT),
    ("cali_p_nk", Role.VERDICT),
    ("cali_jump", Role.POLICIES),
    ("xdp_cali_jump", Role.POLICIES),
    ("cali_j_nk", Role.POLICIES),
)


def role_of_map(name: str) -> Role | None:
    """What a policy program uses the map with that name for (the names of v3.28 to v3.33); None if for nothing."""
    for prefix, role in _ROLES_OF_NAMES:
        if name.startswith(prefix):
            return role
    return None


def inferred_roles(program: Program, layout: StateLayout) -> dict[MapReference, Role]:
    """What a policy program uses its maps for, from the code alone, as far as that tells.

    The program looks up its state first and IP sets after that; it jumps to the verdict's programs with an index from
    the packet's context or, in XDP, a fixed one, and to its next part after storing register 0 in ``pol_rc``
    (felix/bpf/polprog maybeSplitProgram).
    """
    roles: dict[MapReference, Role] = {}
    instructions = program.instructions
    for slot, one in enumerate(instructions):
        if one.code != CALL or one.source != PLAIN:
            continue
        before = instructions[max(0, slot - _REACH) : slot]
        if one.helper == "bpf_map_lookup_elem":
            reference = _map_in(before, 1, program.space)
            if reference is not None:
                roles.setdefault(reference, Role.IP_SETS if Role.STATE in roles.values() else Role.STATE)
        elif one.helper == "bpf_tail_call":
            reference = _map_in(before, 2, program.space)
            offset = layout.fields["pol_rc"][0]
            splits = any((it.code, it.source, it.offset) == (_STORE_WORD, 0, offset) for it in before)
            if reference is not None:
                roles.setdefault(reference, Role.POLICIES if splits else Role.VERDICT)
    return roles


def _map_in(instructions: Sequence[Instruction], register: int, space: str) -> MapReference | None:
    for one in reversed(instructions):
        if (one.code, one.destination, one.source) == (LOAD_WIDE, register, MAP):
            return MapReference(space, one.immediate & 0xFFFFFFFF)
    return None
