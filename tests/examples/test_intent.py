"""What the objects of the examples decide is what the examples say."""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.decode.assertions import decode_assertions
from calico_debug.diff.intended import Intentions
from calico_debug.diff.model import FlowText
from tests.examples.environments import Stage, stages


@pytest.mark.parametrize("stage", stages(), ids=str)
def test_every_answer(stage: Stage, tmp_path: Path) -> None:
    meant = Intentions(stage.cluster(tmp_path))
    expected = decode_assertions(stage.expected.read_bytes(), str(stage))
    assert len(expected) >= 9
    for one in expected:
        found = meant.of(FlowText(one.source, one.destination))
        assert found.verdict in one.verdicts, (one, found)
        for reason in found.reasons:
            tiers = [decision.tier for decision in reason.decisions]
            policies = [decision.policy for decision in reason.decisions if decision.policy is not None]
            names = [f"{policy.namespace}/{policy.name}".lstrip("/") for policy in policies]
            assert not one.tier or one.tier in tiers, (one, reason)
            assert not one.policy or one.policy in names, (one, reason)


def test_every_stage_has_its_place() -> None:
    found = list(map(str, stages()))
    assert found[:2] == ["stars/0-no-policy", "stars/1-default-deny"]
    assert len(found) == 11


def test_each_stage_changes_something() -> None:
    """Stages with the same answers would show nothing: but for one, whose policy waits for the next."""
    same = []
    for before, after in zip(stages(), stages()[1:], strict=False):
        if before.example == after.example:
            old, new = (decode_assertions(one.expected.read_bytes(), "") for one in (before, after))
            assert [(one.source, one.destination) for one in old] == [(one.source, one.destination) for one in new]
            if [one.verdicts for one in old] == [one.verdicts for one in new]:
                same.append(str(after))
    assert same == ["yaobank/2-database"]
