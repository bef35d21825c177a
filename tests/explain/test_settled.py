"""Explanations that are begun anew while rules change."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.explain.settled import ATTEMPTS, explain_settled
from calico_debug.model.explanation import Decision, FlowEnd, FlowExplanation


class Node:
    """What engines read: its verdict at the moment, and how often its rules change while one reads."""

    def __init__(self, verdicts: list[str]) -> None:
        self.verdicts = verdicts
        self.read = 0


class Engine:
    """Its rules have changed when another verdict of the node's comes next."""

    def __init__(self, node: Node) -> None:
        self.node, self.resolver, self.rules_changed = node, node, False

    def anew(self) -> Engine:
        return Engine(self.node)

    def explain(self, _flow: object) -> FlowExplanation:
        verdict = self.node.verdicts.pop(0)
        self.node.read += 1
        self.rules_changed = bool(self.node.verdicts)
        end = FlowEnd("10.0.0.1")
        return FlowExplanation("tcp", end, end, verdict, Decision("n1", "nftables", "rule"))


def explained(node: Node, engine: Any = None) -> tuple[Any, FlowExplanation]:
    found, flow, explanation = explain_settled(engine or Engine(node), lambda resolver: resolver)  # type: ignore[arg-type,return-value]
    assert flow is node
    return found, explanation


@pytest.mark.parametrize("changes", range(ATTEMPTS))
def test_the_answer_is_of_rules_that_belong_together(changes: int) -> None:
    node = Node(["denied"] * changes + ["allowed"])
    _, explanation = explained(node)
    assert explanation.verdict == "allowed"
    assert node.read == changes + 1


def test_answers_that_differ_are_none() -> None:
    _, explanation = explained(Node(["denied", "allowed"] * ATTEMPTS))
    assert explanation.verdict == "undetermined"
    assert explanation.decision is not None
    assert explanation.decision.detail == (
        f"the rules changed while they were read, {ATTEMPTS} times, and the answers were denied, allowed"
    )


def test_answers_that_agree_are_one() -> None:
    node = Node(["denied"] * 2 * ATTEMPTS)
    assert explained(node)[1].verdict == "denied"
    assert node.read == ATTEMPTS


def test_what_was_read_for_an_earlier_question_is_not_mixed_with_what_is_read_now() -> None:
    node = Node(["allowed"])
    kept = Engine(node)
    assert explained(node, kept)[0] is kept
    kept.rules_changed = True
    node.verdicts.append("denied")
    another, explanation = explained(node, kept)
    assert another is not kept
    assert explanation.verdict == "denied"
