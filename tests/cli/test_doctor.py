"""The command doctor."""

from __future__ import annotations

import io
import json
from pathlib import Path

import yaml

from calico_debug.cli.environment import Environment
from calico_debug.cli.main import main

DATA = Path(__file__).resolve().parents[1] / "data"
RECORDING = str(DATA / "v3.32.1-stale-nft.tar.xz")


def _run(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = main(["doctor", *arguments], Environment(io.BytesIO(), out, err))
    return code, out.getvalue(), err.getvalue()


def test_text() -> None:
    code, out, err = _run("--bundle", RECORDING)
    assert (code, err) == (0, "")
    first, seen, *_ = out.splitlines()
    assert first.startswith("WARNING  mtu-pod: packets of pods are larger than")
    assert seen.startswith("         seen     node1: 5 of 5 interfaces of pods send packets that do not fit")
    assert "         remedy   set the MTU that Calico gives to pods" in out
    assert out.splitlines()[-1].startswith("2 nodes: 0 errors, ")


def test_one_node() -> None:
    code, out, _ = _run("--bundle", RECORDING, "--node", "node2", "-o", "json")
    document = json.loads(out)
    assert (code, document["kind"], document["nodes"]) == (0, "DoctorReport", ["node2"])
    assert {one.get("node") for one in document["findings"]} == {"node2", None}
    assert document["counts"]["warning"] == sum(one["severity"] == "warning" for one in document["findings"])


def test_yaml_is_the_same_document() -> None:
    assert yaml.safe_load(_run("--bundle", RECORDING, "-o", "yaml")[1]) == json.loads(
        _run("--bundle", RECORDING, "-o", "json")[1]
    )


def test_usage_errors() -> None:
    code, _, err = _run("--bundle", RECORDING, "--node", "node9")
    assert (code, "has no node node9: it has node1, node2" in err) == (2, True)
    assert _run("--bundle", RECORDING, "--context", "x")[0] == 2


def test_names_with_escapes_are_neutralised(tmp_path: Path) -> None:
    node = tmp_path / "nodes" / "n\x1b[31m"
    node.mkdir(parents=True)
    (node / "ip-link.json").write_text('[{"ifindex": 1, "ifname": "x\\u001b[2J", "flags": []}]')
    code, out, _ = _run("--bundle", str(tmp_path))
    assert code == 0
    assert "NOT CHECKED" in out
    assert "\x1b" not in out
