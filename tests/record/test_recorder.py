"""A bundle is an account of each file: written, or why not."""

from __future__ import annotations

import hashlib
import json
from itertools import count
from typing import Any

import pytest

from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bundle import OWN, Bundle
from calico_debug.record.recorder import Recorder, RecordLimits
from calico_debug.state.cluster import load_cluster
from tests.evidence.memory import MemoryNode, MemorySource
from tests.record.worlds import MemorySink, quiet_world
from tests.redact.worlds import MemoryFiles

FILES = {"nft-ruleset.json": "{}", "ip-addr.json": "[]", "conntrack.txt": "tcp"}


class Failing(MemoryNode):
    def read(self, file: str) -> bytes:
        if file == "ip-addr.json":
            raise MissingEvidence("ip is not installed")
        return super().read(file)


def record(
    node: MemoryNode, cluster: dict[str, str] | None = None, **options: Any
) -> tuple[MemorySink, dict[str, Any]]:
    sink = MemorySink()
    told = options.pop("told", None)
    world = quiet_world(told, options.pop("elapsed", lambda: 0.0))
    source = MemorySource(cluster or {}, {node.name: node})
    Recorder(source, sink, world, "calico-debug test", **options).record([node.name])
    return sink, json.loads(sink.files["manifest.json"])


def test_files_and_their_account() -> None:
    node = MemoryNode(FILES)
    sink, manifest = record(node, {"pods.json": '{"items": []}', "secrets.json": "{}"})
    assert node.reads == ["nft-ruleset.json", "ip-addr.json", "conntrack.txt"]
    assert set(sink.files) == {*(f"nodes/n1/{file}" for file in FILES), "cluster/pods.json", "manifest.json"}
    assert (manifest["kind"], manifest["takenAt"], manifest["tool"]) == (
        "Bundle",
        "2026-11-21T10:00:05Z",
        "calico-debug test",
    )
    assert manifest["files"]["nodes/n1/conntrack.txt"] == {
        "status": "ok",
        "takenAt": "2026-11-21T10:00:05Z",
        "size": 3,
        "sha256": hashlib.sha256(b"tcp").hexdigest(),
    }


def test_what_fails_is_told_and_the_rest_written() -> None:
    told: list[str] = []
    sink, manifest = record(Failing(FILES), told=told)
    assert manifest["files"]["nodes/n1/ip-addr.json"]["status"] == "ip is not installed"
    assert "nodes/n1/ip-addr.json" not in sink.files
    assert told == ["nodes/n1/ip-addr.json: ip is not installed"]


def test_nothing_readable_is_an_error() -> None:
    with pytest.raises(EvidenceError, match="ip is not installed"):
        record(Failing({"ip-addr.json": ""}))


def test_limits_of_size() -> None:
    node = MemoryNode({"nft-ruleset.json": "x" * 8, "ip-addr.json": "y" * 20, "ip-link.json": "z" * 5})
    sink, manifest = record(node, limits=RecordLimits(file=10, total=12))
    assert [path for path in sink.files if path != "manifest.json"] == ["nodes/n1/nft-ruleset.json"]
    statuses = {path: entry["status"] for path, entry in manifest["files"].items()}
    assert "limit of the bundle" in statuses["nodes/n1/ip-addr.json"]
    assert "4 bytes" in statuses["nodes/n1/ip-link.json"]


def test_limit_of_one_file() -> None:
    sink, manifest = record(MemoryNode({"a": "x" * 11, "b": "y"}), limits=RecordLimits(file=10))
    assert "limit of one file, 10 bytes" in manifest["files"]["nodes/n1/a"]["status"]
    assert "nodes/n1/b" in sink.files


def test_limit_of_time() -> None:
    clock = count(0.0, 10.0)
    sink, manifest = record(MemoryNode(FILES), elapsed=lambda: next(clock), limits=RecordLimits(seconds=15))
    assert [path for path in sink.files if path != "manifest.json"] == ["nodes/n1/nft-ruleset.json"]
    assert "time limit of 15 s" in manifest["files"]["nodes/n1/conntrack.txt"]["status"]


class Forbidding(MemorySource):
    def read_cluster(self, file: str) -> bytes:
        if file == "pods.json":
            raise MissingEvidence("the cluster forbids to list pods: apply daemonset/base/rbac.yaml")
        return super().read_cluster(file)


def test_lists_that_may_not_be_read_are_named_as_on_the_node() -> None:
    source = Forbidding({"pods.json": "", "services.json": '{"items": []}'}, {"n1": MemoryNode(FILES)})
    sink = MemorySink()
    Recorder(source, sink, quiet_world(), f"{OWN}test").record(["n1"])
    clusters = [load_cluster(one) for one in (source, Bundle("bundle", MemoryFiles(sink.files)))]
    assert [list(one.pods) for one in clusters] == [[], []]
    assert clusters[0].problems == clusters[1].problems
    assert "forbids to list pods" in clusters[0].problems[0]


def test_secrets_are_said() -> None:
    sink, manifest = record(MemoryNode({"felix-env.txt": "FELIX_A=1\nFELIX_PASSWORD=x\n"}))
    assert sink.files["nodes/n1/felix-env.txt"] == b"FELIX_A=1\n"
    assert manifest["redactions"] == ["values of FELIX_… variables that may be secret"]
