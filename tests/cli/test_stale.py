"""The command stale."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import yaml

from calico_debug.cli.environment import Environment
from calico_debug.cli.main import main

RECORDING = str(Path(__file__).resolve().parents[1] / "data" / "v3.32.1-stale-nft.tar.xz")


def _run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(["stale", *arguments], Environment(io.BytesIO(), out, err))
    return code, out.getvalue(), err.getvalue()


def test_text() -> None:
    code, out, err = _run("--bundle", RECORDING)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "tcp      client/client-5f8b (10.244.1.30) -> stars/backend-6c9d (10.244.2.31:6379)"
    assert lines[1] == "         if new   DENIED on node2 by GlobalNetworkPolicy platform.freeze, rule 0"
    assert "1 would be refused now, 0 could not be settled" in lines[-1]


def test_json_and_yaml() -> None:
    code, out, _ = _run("--bundle", RECORDING, "-o", "json")
    document = json.loads(out)
    (flow,) = document["refused"]
    assert (code, document["kind"], flow["count"]) == (0, "StaleReport", 1)
    assert flow["newConnection"]["decision"]["policy"]["name"] == "platform.freeze"
    assert flow["policyChange"] == {"created": "2026-11-21T10:24:18Z", "generation": 1, "exact": True}
    assert flow["connections"][0]["clientPort"] == 51604
    assert yaml.safe_load(_run("--bundle", RECORDING, "-o", "yaml")[1]) == document


def test_one_node() -> None:
    document = json.loads(_run("--bundle", RECORDING, "--node", "node2", "-o", "json")[1])
    assert document["nodes"] == ["node2"]
    assert document["refused"][0]["connections"][0]["nodes"] == ["node2"]
    assert _run("--bundle", RECORDING, "--node", "node9")[0] == 2


def test_missing_connections_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "nodes" / "n1").mkdir(parents=True)
    code, out, err = _run("--bundle", str(tmp_path))
    assert (code, out) == (1, "")
    assert "nft-ruleset.json" in err


def test_a_node_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    root = tmp_path / "recording"
    with tarfile.open(RECORDING) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            stream = archive.extractfile(member)
            if stream is not None and name != "nodes/node2/conntrack.txt":
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(stream.read())
    code, out, _ = _run("--bundle", str(root))
    assert code == 0
    assert out.splitlines()[-1].startswith("not looked at: node2: ")
    document = json.loads(_run("--bundle", str(root), "-o", "json")[1])
    assert [one["node"] for one in document["unread"]] == ["node2"]
    assert document["refused"][0]["connections"][0]["nodes"] == ["node1"]
