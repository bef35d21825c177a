"""Which checks are run for which target, and that each finding has an entry that is used."""

from __future__ import annotations

import inspect
import re

import pytest

from calico_debug.switch import installation, meaning, platform, standing
from calico_debug.switch.catalogue import REQUIREMENTS
from calico_debug.switch.check import CLUSTER_ROWS, NODE_ROWS, TARGETS
from tests.switch.sources import checked

MODULES = (installation, meaning, platform, standing)


def test_every_code_has_an_entry_and_every_entry_a_check() -> None:
    made = {code for module in MODULES for code in re.findall(r'"([a-z]+(?:-[a-z]+)+)"', inspect.getsource(module))}
    assert set(REQUIREMENTS) - {"unsupported"} <= made
    assert list(REQUIREMENTS) == sorted(REQUIREMENTS)


def test_names_are_used_once_and_targets_are_known() -> None:
    for rows in (CLUSTER_ROWS, NODE_ROWS):
        assert len({row.name for row in rows}) == len(rows)
        assert all(set(row.targets) <= set(TARGETS) for row in rows)


@pytest.mark.parametrize("mode", ["nft", "iptables", "bpf"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_recorded_cluster_has_no_errors(mode: str, target: str) -> None:
    report = checked(mode, target)
    assert report.nodes == ("node1", "node2")
    assert not report.count("error")
    assert {one.entry for one in report.findings} <= set(REQUIREMENTS.values())
