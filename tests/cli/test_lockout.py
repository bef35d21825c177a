"""The command line of previews."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calico_debug.cli.exit_codes import ExitCode
from tests.cli.worlds import run
from tests.recordings import recordings

BUNDLE = str(recordings("2.1-nft")[0].path)
HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: a}
spec: {node: node1, interfaceName: "*"}
"""


@pytest.fixture
def manifest(tmp_path: Path) -> str:
    file = tmp_path / "host.yaml"
    file.write_text(HOST)
    return str(file)


def test_nothing_is_cut() -> None:
    ran = run("lockout", "--bundle", BUNDLE)
    assert ran.code == ExitCode.ANSWERED
    assert "0 cut" in ran.out
    assert "1 node has no host endpoint" in ran.out


def test_something_is_cut(manifest: str) -> None:
    ran = run("lockout", manifest, "--bundle", BUNDLE)
    assert ran.code == ExitCode.FAILED
    assert ran.out.splitlines()[1].split()[:3] == ["node1", "kubelet", "ingress"]
    told = run("lockout", manifest, "--bundle", BUNDLE, "-o", "json")
    assert told.code == ExitCode.FAILED
    document = json.loads(told.out)
    assert document["worst"] == "cut"
    assert {one["standing"] for one in document["flows"]} == {"cut", "saved by a failsafe", "stays"}


def test_errors(tmp_path: Path) -> None:
    assert run("lockout", str(tmp_path / "gone"), "--bundle", BUNDLE).code == ExitCode.FAILED
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("[]")
    ran = run("lockout", str(wrong), "--bundle", BUNDLE)
    assert ran.code == ExitCode.USAGE
    assert "is no object" in ran.err
