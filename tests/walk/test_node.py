"""What a node keeps between packets."""

from __future__ import annotations

from calico_debug.model.nft import Hook, Verdict
from calico_debug.walk.choices import Chooser
from calico_debug.walk.connections import ConnectionTable
from calico_debug.walk.passage import DENIED, SENT
from tests.walk.worlds import COUNT, Rules, packet, walker


def _rules(verdict: str) -> Rules:
    rules = Rules()
    rules.chain("forward", (COUNT, Verdict(verdict)), hook=Hook("filter", "forward", 0))
    return rules


def test_rules_are_compiled_once() -> None:
    node = walker(_rules("accept"))
    program, stages = node.program, node.stages(4, "forward")
    for _ in range(2):
        tracker = ConnectionTable(node.state, ask_evidence=False).track
        assert node.receive(packet(), "eth-c", tracker, Chooser()).ending == SENT
    assert node.program is program
    assert node.stages(4, "forward") is stages


def test_a_packet_that_was_denied_before_is_said_to_go_on_in_thought_only() -> None:
    node = walker(_rules("drop"))
    tracker = ConnectionTable(node.state, ask_evidence=False).track
    for hypothetical in (False, True):
        made = node.receive(packet(), "eth-c", tracker, Chooser(), hypothetical=hypothetical)
        assert (made.ending, made.trace.hypothetical) == (DENIED, hypothetical)


def test_a_node_without_programs_has_no_datapath() -> None:
    assert walker(_rules("accept")).datapath is None
