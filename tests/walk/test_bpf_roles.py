"""Maps of policy programs by purpose."""

from __future__ import annotations

import pytest

from calico_debug.model.bytecode import MapReference, Program
from calico_debug.walk.bpf_roles import Role, inferred_roles, role_of_map
from calico_debug.walk.bpf_state import LAYOUTS
from tests.bytecode.felix import JUMP_FD, SETS_FD, STATE_FD, STATIC_FD, Builder, Policy, Rule, Rules, Style, Tier

RULES = Rules(
    normal=(Tier("t", (Policy("p", (Rule("allow", 1, source_set=3), Rule("deny", 2, protocol="udp"))),)),), host=True
)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("cali_state6", Role.STATE),
        ("cali_v4_ip_sets", Role.IP_SETS),
        ("cali_v6_ip_sets", Role.IP_SETS),
        ("cali_progs3", Role.VERDICT),
        ("cali_progs_ing2", Role.VERDICT),
        ("xdp_cali_progs3", Role.VERDICT),
        ("cali_jump3", Role.POLICIES),
        ("cali_jump_egr2", Role.POLICIES),
        ("cali_v4_routes", None),
    ],
)
def test_by_name(name: str, role: Role | None) -> None:
    assert role_of_map(name) is role


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("header", [0, 8])
@pytest.mark.parametrize("xdp", [False, True])
def test_from_the_code(version: int, header: int, xdp: bool) -> None:
    rules = Rules(normal=RULES.normal, xdp=True) if xdp else RULES
    found: dict[MapReference, Role] = {}
    for part in Builder(rules, Style(version=version, header=header, split_after=3)).parts:
        found |= inferred_roles(Program(part.instructions()), LAYOUTS[-1] if header else LAYOUTS[0])
    assert {reference.number: role for reference, role in found.items()} == {
        STATE_FD: Role.STATE,
        SETS_FD: Role.IP_SETS,
        STATIC_FD: Role.VERDICT,
        JUMP_FD: Role.POLICIES,
    }
