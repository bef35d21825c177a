"""``calico-debug staged``."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from tests.cli.worlds import run
from tests.drift.altered import DATA

BUNDLE = str(DATA / "v3.32.1-nft.tar.xz")


def test_text() -> None:
    ran = run("staged", "--bundle", BUNDLE)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "StagedNetworkPolicy attack/staged-lock (stagedAction Set), 2 pods"
    assert lines[1] == "  DENIED in place of allowed, IPv4, 11 pairs of pods: icmp; udp port 53"


def test_machines() -> None:
    (document,) = json.loads(run("staged", "--bundle", BUNDLE, "-o", "json").out)
    assert document["policy"] == {"kind": "StagedNetworkPolicy", "namespace": "attack", "name": "staged-lock"}
    assert yaml.safe_load(run("staged", "--bundle", BUNDLE, "-o", "yaml").out) == [document]


def test_one_by_its_name() -> None:
    assert run("staged", "--bundle", BUNDLE, "--policy", "attack/staged-lock").out.count("staged-lock") == 1
    ran = run("staged", "--bundle", BUNDLE, "--policy", "other")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("has no staged policy 'other': it has attack/staged-lock\n")


def test_none_and_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    ran = run("staged", "--bundle", str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    pod = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"nodeName": "x"}, "status": {"podIP": "10.0.0.1"}}
    (tmp_path / "cluster" / "pods.json").write_text(json.dumps({"items": [pod]}))
    assert run("staged", "--bundle", str(tmp_path)).out == "no staged policy\n"
