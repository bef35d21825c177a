"""Policy programs that are not there, and ones that stand in for them, on a made-up node."""

from __future__ import annotations

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.walk.bpf_outcomes import EGRESS, INGRESS, Refusal
from calico_debug.walk.choices import Chooser
from tests.evidence.bpf_node import POD, BpfNode
from tests.walk.made_bpf import (
    POD_IP,
    SERVICE,
    made,
    packet,
)


def test_placeholders_and_empty_slots() -> None:
    asked = packet(POD_IP, SERVICE)
    empty = made(slots={"cali_jump_ing2": {}, "cali_jump_egr2": {}, "cali_progs_ing2": {0: 20}, "cali_progs_egr2": {}})
    for hook in (INGRESS, EGRESS):
        refusal = empty.policy(asked, POD, hook, None, Chooser())
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "program-missing"
    programs = BpfNode().programs
    named = [
        one | {"name": {30: "calico_tc_deny", 31: "calico_tc_allow"}.get(one["id"], one["name"])} for one in programs
    ]
    placeholders = made(programs=named)
    denied = placeholders.policy(asked, POD, INGRESS, None, Chooser())
    assert isinstance(denied, Refusal)
    assert "default program that drops everything" in denied.detail
    assert placeholders.policy(asked, POD, EGRESS, None, Chooser()) is None
    assert placeholders.policy(asked, "eth0", INGRESS, None, Chooser()) is None


@pytest.mark.parametrize("file", ["bpf/rodata-202.json", "bpf/map-cali_jump_egr2.json"])
def test_what_was_not_recorded_is_not_taken_for_a_missing_program(file: str) -> None:
    node = made(files={file: "absent"})
    with pytest.raises(MissingEvidence, match="not recorded"):
        node.policy(packet(POD_IP, SERVICE), POD, EGRESS, None, Chooser())
