"""``calico-debug bundle`` on the command line."""

from __future__ import annotations

import json
import stat
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from calico_debug.cli.bundle import default_name
from calico_debug.evidence.bundle import open_bundle
from tests.cli.worlds import run

DATA = Path(__file__).parents[1] / "data"
NFT = DATA / "v3.32.1-nft.tar.xz"
BPF = DATA / "v3.32.1-bpf.tar.xz"


def test_a_copy_holds_the_same(tmp_path: Path) -> None:
    target = tmp_path / "copy.tar.gz"
    ran = run("bundle", "--bundle", str(NFT), "-f", str(target))
    assert (ran.code, ran.out) == (0, f"{target}\n")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    old, new = open_bundle(NFT), open_bundle(target)
    assert new.nodes() == old.nodes()
    for name in old.nodes():
        for file in old.node(name).files():
            assert new.node(name).read(file) == old.node(name).read(file)
    assert new.cluster_files() == old.cluster_files()


def test_one_node_without_the_cluster(tmp_path: Path) -> None:
    ran = run("bundle", "--bundle", str(NFT), "--node", "node2", "--no-cluster", "-f", str(tmp_path / "d"))
    assert ran.code == 0
    new = open_bundle(tmp_path / "d")
    assert (list(new.nodes()), list(new.cluster_files())) == (["node2"], [])


def test_a_file_over_the_limit_is_said(tmp_path: Path) -> None:
    ran = run("bundle", "--bundle", str(NFT), "--max-file-size", "100k", "-f", str(tmp_path / "d"))
    assert ran.code == 0
    assert "nodes/node1/nft-ruleset.json: left out: it is larger than the limit of one file, 102400 bytes" in ran.err
    manifest = json.loads((tmp_path / "d/manifest.json").read_bytes())
    assert "larger than the limit" in manifest["files"]["nodes/node1/nft-ruleset.json"]["status"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--bundle", str(NFT), "--node", "node9"], 2, "has nothing of node 'node9': it holds node1, node2"),
        (["--node", "a", "--node", "b"], 2, "give it once"),
        (["--redact", "all,names"], 2, "--redact 'all' is not known: write addresses, names, or all"),
        (["-f", "-"], 2, "-f '-' is no place for a bundle"),
        (["--max-size", "much"], 2, "'much' is no size"),
        (["--time-limit", "0"], 2, "--time-limit"),
        (["--bundle", "nowhere"], 1, "nowhere"),
    ],
)
def test_errors(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    ran = run("bundle", "-f", str(tmp_path / "b.tar"), *arguments)
    assert ran.code == code
    assert message in ran.err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "mine.tar"
    target.write_text("mine")
    ran = run("bundle", "--bundle", str(NFT), "-f", str(target))
    assert (ran.code, target.read_text()) == (1, "mine")


def test_redacted(tmp_path: Path) -> None:
    ran = run("bundle", "--bundle", str(NFT), "--node", "node1", "--redact", "all", "-f", str(tmp_path / "d"))
    assert ran.code == 0
    assert "nodes/node1/tc-qdisc.json is left out: this version cannot redact it" in ran.err
    content = b"".join(path.read_bytes() for path in (tmp_path / "d").rglob("*") if path.is_file())
    assert not any(word in content for word in (b"node1", b"yaobank", b"10.244.1.30", b"172.30.0.11"))
    (node,) = open_bundle(tmp_path / "d").nodes()
    assert node != "node1"
    assert len(json.loads((tmp_path / "d/manifest.json").read_bytes())["redactions"]) >= 3


def test_a_redacted_bundle_is_not_named_after_its_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("bundle", "--bundle", str(NFT), "--node", "node1", "--redact", "names")
    assert ran.code == 0
    assert "node1" not in ran.out


def test_ebpf_nodes_are_redacted(tmp_path: Path) -> None:
    ran = run("bundle", "--bundle", str(BPF), "--redact", "all", "-f", str(tmp_path / "b"))
    assert ran.code == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_bytes())
    assert manifest["replaced"] == ["addresses", "names"]
    assert any(sentence.startswith("eBPF: ") for sentence in manifest["redactions"])
    left_out = [record["status"] for record in manifest["files"].values() if record["status"] != "ok"]
    assert left_out
    assert all("it holds pieces of packets" in status for status in left_out)


def test_default_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_name(["n/1"], datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "calico-debug-n_1-20260102T030405Z"
    monkeypatch.chdir(tmp_path)
    ran = run("bundle", "--bundle", str(NFT), "--node", "node1", "--no-cluster")
    assert ran.out.startswith("calico-debug-node1-")
    assert tarfile.is_tarfile(tmp_path / ran.out.strip())
