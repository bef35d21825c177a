"""What is wrong with the programs of interfaces."""

from __future__ import annotations

import json
from typing import Any

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.model.bpf_objects import Attachment
from calico_debug.model.explanation import Finding
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_checks import check_interfaces, running_order
from calico_debug.state.bpf_lookups import BpfLookups
from tests.evidence.bpf_node import BpfNode, settings
from tests.evidence.memory import recorded_bundles

COUNTERS = [({"ifindex": 3, "hook": hook}, {}) for hook in (0, 1)]


def node(flags: int = 3, **policies: Any) -> BpfNode:
    indexes = {"ingress_policy_v4": 5, "egress_policy_v4": 5, **policies}
    return BpfNode(
        {"cali_iface4": [({"ifindex": 3}, {"flags": flags, "name": "cali1", **indexes})], "cali_counters6": COUNTERS}
    )


def findings(made: BpfNode) -> list[Finding]:
    state = BpfState(made.evidence())
    return list(check_interfaces(state, BpfLookups(state)))


def test_nothing_is_wrong() -> None:
    assert findings(node()) == []


def test_recorded_nodes_are_healthy() -> None:
    for bundle in recorded_bundles():
        source = open_bundle(bundle)
        for name in source.nodes():
            if "bpf/map-show.json" in source.node(name).files():
                state = BpfState(source.node(name))
                assert list(check_interfaces(state, BpfLookups(state))) == []


@pytest.mark.parametrize(("flags", "severities"), [(3, ["error"]), (8, ["warning"]), (0x408, []), (0x28, [])])
def test_a_hook_without_a_program(flags: int, severities: list[str]) -> None:
    made = node(flags)
    made.tcx = [made.hook("tcx/ingress", 10)]
    found = findings(made)
    assert [(one.code, one.severity) for one in found] == [("bpf-no-program", severity) for severity in severities]
    if flags == 3:
        # What tc calls egress is the way to the pod.
        assert found[0].message.startswith("cali1 on n1, ingress: Calico's program is not attached")


@pytest.mark.parametrize(("name", "word"), [("calico_tc_deny", "denied"), ("calico_tc_allow", "allowed")])
def test_a_policy_that_is_not_loaded(name: str, word: str) -> None:
    made = node()
    made.programs[4] = made.program(30, name, [])
    (found,) = findings(made)
    assert found.code == "bpf-policy-not-loaded"
    assert found.message.startswith("cali1 on n1, egress, IPv4: the policy is not loaded yet")
    assert f"everything is {word}" in found.message


def test_a_policy_that_is_missing() -> None:
    made = node()
    made.slots["cali_jump_egr2"] = {}
    (found,) = findings(made)
    assert (found.code, found.severity) == ("bpf-policy-missing", "error")
    made = node(flags=8)
    made.slots["cali_jump_egr2"] = {}
    assert findings(made) == []  # a host interface without policy


def test_a_policy_of_another_place() -> None:
    (found,) = findings(node(ingress_policy_v4=6))
    assert found.code == "bpf-policy-differs"
    assert "jumps to policy 5, Felix has noted 6" in found.message


@pytest.mark.parametrize(("noted", "codes"), [((6, 5), []), ((5, 6), ["bpf-policy-differs"] * 2)])
def test_places_in_a_joint_jump_map(noted: tuple[int, int], codes: list[str]) -> None:
    """Up to v3.31.2 Felix notes a pod's places by the direction of the policy, which is not the hook's."""
    made = node(ingress_policy_v4=noted[0], egress_policy_v4=noted[1])
    made.settings[202] = settings("cali1", 0, 6)
    made.add_map("cali_jump3", 160)
    made.slots["cali_jump3"] = {5: 30, 6: 31}
    split = {made.ids["cali_jump_ing2"], made.ids["cali_jump_egr2"]}
    for program in made.programs:
        program["map_ids"] = [160 if number in split else number for number in program["map_ids"]]
    assert [one.code for one in findings(made)] == codes


def test_no_counters() -> None:
    made = node()
    made.entries["cali_counters6"] = COUNTERS[:1]
    (found,) = findings(made)
    assert found.code == "bpf-no-counters"
    assert "cali1 on n1, ingress" in found.message


@pytest.mark.parametrize("name", ["cali_counters2", "cali_counters3"])
def test_up_to_v3_30_programs_make_their_counters(name: str) -> None:
    """There is no entry before the first packet (counters_get in felix/bpf-gpl/counters.h)."""
    made = node()
    made.maps = [info for info in made.maps if info.name != "cali_counters6"]
    made.add_map(name, 150)
    for program in made.programs:
        program["map_ids"] = [150 if one == made.ids["cali_counters6"] else one for one in program["map_ids"]]
    made.files["bpf/pins.txt"] = f"/sys/fs/bpf/tc/globals/{name}\n"
    assert findings(made) == []


def test_programs_by_two_mechanisms() -> None:
    """Felix changes from clsact to tcx: the kernel runs tcx's first."""
    made = node()
    kept = [{"devname": "cali1", "ifindex": 3, "kind": "clsact/ingress", "id": 11, "name": "cali_tc_preambl"}]
    made.files["bpf/net-show.json"] = json.dumps([{"xdp": [], "tc": kept}])
    (found,) = findings(made)
    assert (found.code, found.severity) == ("bpf-attached-twice", "warning")
    assert "cali1 on n1, egress: programs of Calico's are attached by tcx and clsact" in found.message


def test_the_order_of_running() -> None:
    listed = [
        Attachment(mechanism, hook, number, position=position)
        for number, (mechanism, hook, position) in enumerate(
            [
                ("clsact", "ingress", 0),
                ("clsact", "egress", 0),
                ("netkit", "ingress", 0),
                ("netkit", "egress", 0),
                ("tcx", "ingress", 1),
                ("tcx", "ingress", 0),
                ("tcx", "egress", 0),
                ("xdp", "ingress", 0),
            ]
        )
    ]
    assert [one.program_id for one in running_order(listed, "ingress")] == [2, 5, 4, 0]
    assert [one.program_id for one in running_order(listed, "egress")] == [6, 1, 3]
