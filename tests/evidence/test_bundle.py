"""Bundles in directories: what is there is read, what is missing or unsafe is said."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bundle import Bundle, Limits, open_bundle
from tests.evidence.memory import recorded_bundles


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    root = tmp_path / "bundle"
    (root / "nodes/n1/bpf").mkdir(parents=True)
    (root / "nodes/n2").mkdir()
    (root / "cluster").mkdir()
    (root / "nodes/n1/ip-addr.json").write_text("[]")
    (root / "nodes/n1/bpf/map-x.json").write_text("{}")
    (root / "cluster/pods.json").write_text('{"items": []}')
    return root


def test_reads_verbatim(bundle: Path) -> None:
    source = open_bundle(bundle)
    assert source.origin == str(bundle)
    assert source.nodes() == ["n1", "n2"]
    assert source.cluster_files() == ["pods.json"]
    assert source.read_cluster("pods.json") == b'{"items": []}'
    node = source.node("n1")
    assert (node.name, node.taken_at, node.nftables) == ("n1", "", None)
    assert node.files() == ["bpf/map-x.json", "ip-addr.json"]
    assert node.read("bpf/map-x.json") == b"{}"
    assert str(bundle) in node.origin
    assert "n1" in node.origin


def test_either_half_is_a_bundle(bundle: Path, tmp_path: Path) -> None:
    nodes, cluster = tmp_path / "a", tmp_path / "b"
    nodes.mkdir()
    cluster.mkdir()
    (bundle / "nodes").rename(nodes / "nodes")
    (bundle / "cluster").rename(cluster / "cluster")
    assert open_bundle(nodes).cluster_files() == []
    assert open_bundle(cluster).nodes() == ()


def test_a_missing_file_names_its_command(bundle: Path) -> None:
    source = open_bundle(bundle)
    with pytest.raises(MissingEvidence, match=r"nodes/n1/ip-rule.json .*`ip -j rule` on node n1"):
        source.node("n1").read("ip-rule.json")
    with pytest.raises(MissingEvidence, match=r"cluster/services.json .*`kubectl get services -A -o json`"):
        source.read_cluster("services.json")
    with pytest.raises(MissingEvidence, match=r"nothing of node n3 \(it holds n1, n2\)"):
        source.node("n3")


def test_the_manifest_tells_time_and_failures(bundle: Path) -> None:
    manifest = {
        "apiVersion": "calico-debug/v1",
        "kind": "Bundle",
        "takenAt": "2026-11-21T10:00:00Z",
        "files": {
            "nodes/n1/ip-addr.json": {"status": "ok"},
            "nodes/n1/ip-rule.json": {"status": "ip: not found"},
            "cluster/pods.json": {"status": "forbidden: pods"},
            "nodes/n2/nft-ruleset.json": {"status": "ok", "takenAt": "2026-11-21T11:00:00Z"},
        },
    }
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    source = open_bundle(bundle)
    assert source.node("n1").taken_at == "2026-11-21T10:00:00Z"
    assert source.node("n2").taken_at == "2026-11-21T11:00:00Z"
    assert source.node("n1").read("ip-addr.json") == b"[]"
    assert source.cluster_files() == ["pods.json"]  # to be asked for, and to say then why it is not there
    with pytest.raises(MissingEvidence, match="ip: not found"):
        source.node("n1").read("ip-rule.json")
    with pytest.raises(MissingEvidence, match="forbidden: pods"):
        source.read_cluster("pods.json")


def test_a_broken_manifest_is_a_note(bundle: Path) -> None:
    (bundle / "manifest.json").write_text('{"apiVersion": ')
    source = open_bundle(bundle)
    assert isinstance(source, Bundle)
    assert "manifest.json is not JSON" in source.notes[0]
    assert source.node("n1").read("ip-addr.json") == b"[]"


@pytest.mark.parametrize("content", [{}, {"nodes/": None, "readme.txt": "x"}, {"x/nodes/n1/ip-addr.json": "[]"}])
def test_not_a_bundle(tmp_path: Path, content: dict[str, str | None]) -> None:
    for name, text in content.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if text is None else path.write_text(text)
    with pytest.raises(EvidenceError, match="is not a bundle: a bundle has nodes/<node>/"):
        open_bundle(tmp_path)


def test_a_directory_around_bundles_names_one(bundle: Path) -> None:
    with pytest.raises(EvidenceError, match=r"did you mean .*/bundle\?"):
        open_bundle(bundle.parent)


def test_no_such_path(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="No such file"):
        open_bundle(tmp_path / "gone")
    with pytest.raises(EvidenceError, match="check the path"):
        open_bundle("a\0b")


def test_links_stay_inside(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (bundle / "nodes/n2/ip-addr.json").symlink_to("../n1/ip-addr.json")
    (bundle / "nodes/n2/ip-rule.json").symlink_to(tmp_path / "secret")
    (bundle / "nodes/n3").symlink_to(tmp_path, target_is_directory=True)
    source = open_bundle(bundle)
    assert source.node("n2").read("ip-addr.json") == b"[]"
    with pytest.raises(EvidenceError, match=r"is a link to .*secret, outside of the bundle"):
        source.node("n2").read("ip-rule.json")
    with pytest.raises(EvidenceError, match="outside of the bundle"):
        source.node("n3").read("secret")


def test_the_bundle_itself_may_be_a_link(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(bundle)
    assert open_bundle(tmp_path / "link").node("n1").read("ip-addr.json") == b"[]"


def test_special_and_oversized_files(bundle: Path) -> None:
    os.mkfifo(bundle / "nodes/n1/conntrack.txt")
    (bundle / "nodes/n1/ip-link.json").mkdir()
    (bundle / "nodes/n1/ip-rule.json").write_bytes(b"x" * 101)
    source = open_bundle(bundle, Limits(file=100))
    for file, message in (
        ("conntrack.txt", "is not a regular file"),
        ("ip-link.json", "regular file|Is a directory"),
        ("ip-rule.json", "is larger than"),
    ):
        with pytest.raises(EvidenceError, match=message):
            source.node("n1").read(file)


def test_a_bundle_of_too_many_files(bundle: Path) -> None:
    source = open_bundle(bundle, Limits(members=1))
    with pytest.raises(EvidenceError, match="more than 1 files"):
        source.node("n1").files()


def test_recordings_open() -> None:
    for path in recorded_bundles():
        source = open_bundle(path)
        assert source.nodes() == ["node1", "node2"]
        assert "pods.json" in source.cluster_files()
        assert "nft-ruleset.json" in source.node("node1").files()
