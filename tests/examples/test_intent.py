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
        (answers,) = found.key
        for _, deciders in answers:  # type: ignore[attr-defined]
            tiers = [tier for _, _, tier, _, _ in deciders]
            names = [f"{p.namespace}/{p.name}" if p.namespace else p.name for *_, p, _ in deciders if p is not None]
            assert not one.tier or one.tier in tiers, (one, deciders)
            assert not one.policy or one.policy in names, (one, deciders)


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
