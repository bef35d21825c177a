"""The commands of switch."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml

from calico_debug.cli.switch import TARGETS
from calico_debug.switch import check
from tests.cli.worlds import run
from tests.recordings import DATA

NFT, BPF, IPTABLES = (str(DATA / f"v3.32.1-{mode}.tar.xz") for mode in ("nft", "bpf", "iptables"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("switch") / "before.json"
    ran = run("switch", "record", "--bundle", NFT, "-f", str(file))
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"260 flows and 3 open connections of node1 (nftables), node2 (nftables): {file}\n"
    return str(file)


def test_a_record_is_for_its_owner_and_never_overwritten(recorded: str) -> None:
    assert stat.S_IMODE(Path(recorded).stat().st_mode) == 0o600
    ran = run("switch", "record", "--bundle", NFT, "-f", recorded)
    assert (ran.code, ran.out) == (2, "")
    assert "is there already: name another file with -f" in ran.err
    nowhere = run("switch", "record", "--bundle", NFT, "-f", f"{recorded}/no/file")
    assert (nowhere.code, nowhere.out) == (1, "")


def test_a_record_to_the_output(recorded: str) -> None:
    ran = run("switch", "record", "--bundle", NFT)
    assert (ran.code, ran.out) == (0, Path(recorded).read_text())


def test_flows_that_are_named(tmp_path: Path) -> None:
    flows = tmp_path / "flows.jsonl"
    flows.write_text('{"from": "client/client-5f8b", "to": "10.244.2.31:6379"}\n\n{"from": "external", "to": "svc/')
    ran = run("switch", "record", "--bundle", NFT, "--flows", str(flows))
    assert (ran.code, ran.out) == (2, "")
    assert "line 3 of --flows: not JSON" in ran.err
    flows.write_text('{"from": "client/client-5f8b", "to": "10.244.2.31:6379"}\n')
    first = json.loads(run("switch", "record", "--bundle", NFT, "--flows", str(flows)).out)["flows"][0]
    assert (first["origin"], first["source"]["name"], first["destination"]["port"]) == ("asked", "client-5f8b", 6379)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [("record", BPF, 1), (NFT, BPF, 1), (NFT, NFT, 0), (BPF, BPF, 0), (IPTABLES, IPTABLES, 4)],
)
def test_exit_codes(recorded: str, before: str, after: str, code: int) -> None:
    ran = run("switch", "compare", recorded if before == "record" else before, "--bundle", after)
    assert (ran.code, ran.err) == (code, "")


def test_text(recorded: str) -> None:
    lines = run("switch", "compare", recorded, "--bundle", BPF).out.splitlines()
    assert lines[:3] == ["node1  nftables -> ebpf", "node2  nftables -> ebpf", ""]
    at = lines.index("DIFFERS      tcp 198.51.100.1 -> node node2 (172.30.0.12:30180) via node2")
    assert lines[at + 1 : at + 3] == [
        "         before   ALLOWED on node1 by NetworkPolicy yaobank/customer-policy, rule 0",
        "         now      DENIED on node1 by GlobalNetworkPolicy security.quarantine, rule 1",
    ]
    assert "sees 198.51.100.1 as the source, and saw 172.30.0.12 (node node2)" in lines[at + 3]
    assert any(line.startswith("SOURCE   the far end sees the client's own address now") for line in lines)
    assert "OPEN     3 connections of before" in lines
    assert lines[-1] == "260 flows: 14 differs, 246 same"


def test_machines(recorded: str) -> None:
    document = json.loads(run("switch", "compare", recorded, "--bundle", BPF, "-o", "json").out)
    assert (document["kind"], document["result"]) == ("SwitchReport", "differs")
    assert document["counts"] == {"differs": 14, "undetermined": 0, "same": 246, "gone": 0}
    assert document["nodes"][0]["before"]["dataplane"] == "nftables"
    assert len(document["flows"]) == 260
    assert {one["source"]["kind"] for one in document["flows"] if "source" in one} == {"preserved", "otherwise"}
    assert yaml.safe_load(run("switch", "compare", recorded, "--bundle", BPF, "-o", "yaml").out) == document


def test_what_is_no_record(tmp_path: Path) -> None:
    assert "check the path" in run("switch", "compare", str(tmp_path / "none"), "--bundle", BPF).err
    (tmp_path / "other.json").write_text('{"kind": "Bundle"}')
    ran = run("switch", "compare", str(tmp_path / "other.json"), "--bundle", BPF)
    assert (ran.code, ran.out) == (1, "")
    assert "is not a record of flows: write one with calico-debug switch record" in ran.err
    (tmp_path / "empty").mkdir()
    assert run("switch", "compare", str(tmp_path / "empty"), "--bundle", BPF).code == 1
    (tmp_path / "empty" / "cluster").mkdir()
    (tmp_path / "empty" / "cluster" / "pods.json").write_text('{"kind": "List", "items": []}')
    assert "has no node to look at" in run("switch", "compare", NFT, "--bundle", str(tmp_path / "empty")).err


def test_targets() -> None:
    assert TARGETS == check.TARGETS


def test_nodes_without_calico_make_no_record(tmp_path: Path) -> None:
    (tmp_path / "nodes" / "n1").mkdir(parents=True)
    (tmp_path / "nodes" / "n1" / "nft-ruleset.json").write_text('{"nftables": []}')
    ran = run("switch", "record", "--bundle", str(tmp_path), "-f", str(tmp_path / "record.json"))
    assert (ran.code, ran.out) == (1, "")
    assert "no flow can be explained (n1: no dataplane of Calico is on it): name nodes that run Calico" in ran.err
    assert not (tmp_path / "record.json").exists()


def test_check() -> None:
    ran = run("switch", "check", "--to", "ebpf", "--bundle", NFT)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1] == "2 nodes: 0 errors, 0 warnings, 6 notes; 6 things not checked"
    document = json.loads(
        run("switch", "check", "--to", "iptables", "--bundle", NFT, "--node", "node1", "-o", "json").out
    )
    assert (document["kind"], document["nodes"]) == ("SwitchCheck", ["node1"])
    assert document["counts"]["warning"] == 1
    assert run("switch", "check", "--bundle", NFT).code == 2
    assert run("switch", "check", "--to", "ebpf", "--bundle", NFT, "--node", "node9").code == 2
