"""Walking every pair of pods."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.intent.decide import Intent
from calico_debug.matrix.by_walk import flow_between, walked_table
from calico_debug.matrix.model import Asked
from tests.intent.clusters import intent
from tests.recordings import DATA


def test_a_flow_between_pods() -> None:
    web, db = intent().applicability.endpoints[:2]
    flow = flow_between(web, db, Asked(6, 80), 6)
    assert (flow.source.address, flow.destination.address) == (ip_address("fd00::1"), ip_address("fd00::2"))
    assert (flow.source.port, flow.destination.port, flow.icmp) == (49152, 80, None)
    assert (flow.source.pod, flow.destination.pod) == (("shop", "web"), ("shop", "db"))
    echo = flow_between(web, db, Asked(1), 4)
    assert (echo.source.port, echo.destination.port, echo.icmp) == (None, None, (8, 0))


def test_each_cell_is_walked_but_for_a_pod_with_itself() -> None:
    engine = Engine(open_bundle(DATA / "v3.32.1-nft.tar.xz"))
    pods = [one for one in Intent(engine.cluster.cluster).applicability.endpoints if one.kind == "pod"][:3]
    table = walked_table(engine, pods, pods, (Asked(6, 80), Asked(6, 81)), 4)
    assert [[index is None for index in table.rows[row][0]] for row in range(3)] == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
    ]
    assert all(reason.decisions for reason in table.reasons)


def test_evidence_that_is_missing_is_a_cell_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(open_bundle(DATA / "v3.32.1-nft.tar.xz"))
    pods = [one for one in Intent(engine.cluster.cluster).applicability.endpoints if one.kind == "pod"][:2]

    def missing(*_: object, **__: object) -> None:
        raise MissingEvidence("nft-ruleset.json is not there: record it")

    monkeypatch.setattr(engine, "explain", missing)
    table = walked_table(engine, pods, pods, (Asked(6, 80),), 4)
    assert table.rows[0][0] == [None, 0]
    assert table.reasons[0].verdict == "undetermined"
    assert table.reasons[0].decisions[0].detail == "nft-ruleset.json is not there: record it"
