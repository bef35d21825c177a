"""``calico-debug drift``: what it prints, and where."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.cli.worlds import run
from tests.drift.altered import DATA

BUNDLE = str(DATA / "v3.32.1-nft.tar.xz")


def test_none() -> None:
    ran = run("drift", "--bundle", BUNDLE)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == "no difference; compared: 22 endpoints, 16 IP sets, 20 services\n"


def test_one_node() -> None:
    assert "10 endpoints, 8 IP sets" in run("drift", "--bundle", BUNDLE, "--node", "node1").out
    ran = run("drift", "--bundle", BUNDLE, "--node", "other")
    assert (ran.code, ran.out) == (2, "")
    assert "has no node other: it has node1, node2" in ran.err


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    from calico_debug.drift import report
    from calico_debug.drift.model import Drift, Drifts

    one = Drift("policy-left", "error", "node1", "pod a/\x1b[2J", "a message", "a cause")
    drifts = Drifts((one,), ("node2: nothing: broken",), {"endpoints": 3})
    monkeypatch.setattr(report, "find_drift", lambda _source, _nodes: drifts)


@pytest.mark.usefixtures("found")
def test_what_differs_and_what_was_not_compared() -> None:
    ran = run("drift", "--bundle", BUNDLE)
    assert ran.out.splitlines() == [
        "error    node1  pod a/\\x1b[2J: a message (policy-left)",
        "         likely: a cause",
        "1 difference; compared: 3 endpoints",
    ]
    assert ran.err == "warning: not compared: node2: nothing: broken\n"


@pytest.mark.usefixtures("found")
def test_machines() -> None:
    (document,) = json.loads(run("drift", "--bundle", BUNDLE, "-o", "json").out)
    assert (document["kind"], document["code"], document["node"]) == ("Drift", "policy-left", "node1")
    assert yaml.safe_load(run("drift", "--bundle", BUNDLE, "-o", "yaml").out) == [document]
