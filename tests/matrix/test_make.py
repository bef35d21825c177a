"""Whole matrices over recordings: what the nodes do is what the objects say, and each pair is what a trace says."""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.matrix import by_walk, make
from calico_debug.matrix.make import Wanted, make_matrix
from calico_debug.matrix.model import Asked, FlowMatrix
from calico_debug.state.resolve import Resolver
from tests.matrix.worlds import write_cluster
from tests.recordings import DATA, recordings

ECHO = Asked(1)
SOME = (Asked(6, 80), Asked(6, 6379), Asked(17, 53), ECHO)


def engine(name: str) -> Engine:
    return Engine(open_bundle(DATA / f"v3.32.1-{name}.tar.xz"))


def pairs(matrix: FlowMatrix) -> dict[tuple[str, str, Asked], str]:
    """The verdict of every pair of different pods."""
    return {
        (a, b, asked): cell.verdict
        for sheet in matrix.sheets
        for asked in sheet.asked
        for source, row in zip(matrix.sources, sheet.rows, strict=True)
        for target, cell in zip(matrix.destinations, row, strict=True)
        for a in source.pods
        for b in target.pods
        if a != b
    }


@pytest.mark.parametrize("dataplane", ["nft", "iptables", "bpf"])
def test_nodes_do_what_the_objects_say(dataplane: str) -> None:
    own = engine(dataplane)
    walked = make_matrix(own, Wanted(basis="predicted", asked=SOME))
    meant = make_matrix(own, Wanted(basis="intent", asked=SOME))
    assert walked.basis == "predicted"
    assert meant.basis == "intent"
    assert pairs(walked) == pairs(meant)
    assert len(walked.sources) < walked.pods[0]


def test_each_pair_is_what_a_trace_says() -> None:
    own = engine("nft")
    resolver = Resolver(own.cluster, own.states)
    for (source, target, asked), verdict in pairs(make_matrix(own, Wanted(asked=SOME[:1]))).items():
        flow = resolver.resolve(source, f"{target}:{asked.port}", protocol="tcp")
        assert own.explain(flow, as_new=True).verdict == verdict


@pytest.mark.parametrize("recording", recordings("-v6-bpf"), ids=lambda one: one.name)
def test_ipv6(recording: object) -> None:
    own = Engine(recording.source)  # type: ignore[attr-defined]
    walked = make_matrix(own, Wanted(version=6, basis="predicted", asked=(Asked(6, 80), Asked(58))))
    assert walked.version == 6
    assert pairs(walked) == pairs(make_matrix(own, Wanted(version=6, basis="intent", asked=(Asked(6, 80), Asked(58)))))


def test_only_some() -> None:
    made = make_matrix(engine("nft"), Wanted(sources=("client",), destinations=("stars", "yaobank/customer-7d5c9")))
    assert [pod for group in made.sources for pod in group.pods] == ["client/client-5f8b"]
    assert made.pods == (1, 3)
    assert not made.notes


def test_names_that_nobody_has() -> None:
    with pytest.raises(UsageError, match=r"--to 'star': no namespace or pod .* namespaces are attack, client"):
        make_matrix(engine("nft"), Wanted(destinations=("star",)))


def test_too_much_to_walk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "MOST_WALKS", 100)
    own = engine("nft")
    made = make_matrix(own, Wanted(asked=SOME[:1]))
    assert made.basis == "intent"
    assert made.notes[-1].startswith("from the API's objects alone: 121 flows are too many to walk")
    with pytest.raises(UsageError, match="121 flows are too many to walk"):
        make_matrix(own, Wanted(basis="predicted", asked=SOME[:1]))
    monkeypatch.setattr(make, "MOST_PAIRS", 100)
    with pytest.raises(UsageError, match="121 pairs and ports are too many"):
        make_matrix(own, Wanted(basis="intent", asked=SOME[:1]))
    assert by_walk.MOST_WALKS == 20_000


def test_walking_ends_when_it_is_enough() -> None:
    turns = iter(range(1000))
    own = engine("nft")
    made = make_matrix(own, Wanted(asked=SOME[:1]), lambda: next(turns) >= 50)
    assert made.basis == "intent"
    assert made.notes[-1].startswith("from the API's objects alone: walking the rules of the nodes takes long")
    assert next(turns) == 51
    assert make_matrix(own, Wanted(basis="predicted", asked=SOME[:1]), lambda: True).basis == "predicted"


def test_objects_alone(tmp_path: Path) -> None:
    from tests.matrix.worlds import namespace, pod

    pods = [pod("a", "x", 1), pod("a", "y", 2)]
    bundle = write_cluster(tmp_path / "b", pods=pods, namespaces=[namespace("a")])
    made = make_matrix(Engine(open_bundle(bundle)), Wanted())
    assert made.basis == "intent"
    assert "from the API's objects alone: there is no evidence of n1" in made.notes
    with pytest.raises(EvidenceError, match="has no node to walk"):
        make_matrix(Engine(open_bundle(bundle)), Wanted(basis="predicted"))
    with pytest.raises(EvidenceError, match="has no pods"):
        make_matrix(Engine(open_bundle(write_cluster(tmp_path / "c", nodes=[]))), Wanted())
