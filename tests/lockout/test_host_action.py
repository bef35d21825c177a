"""Pods' traffic to their own node, by Felix's setting."""

from __future__ import annotations

import pytest

from calico_debug.lockout.host_action import FIELD, VARIABLE, judge_host_action
from calico_debug.lockout.judge import CUT, OPEN, STAYS
from calico_debug.model.cluster import FelixConfiguration

DEFAULT = FelixConfiguration("default", {FIELD: "Drop"})
OWN = FelixConfiguration("node.node1", {FIELD: "Accept"})


@pytest.mark.parametrize(
    ("configurations", "environment", "standing"),
    [
        ((), {}, OPEN),
        ((DEFAULT,), {}, CUT),
        ((DEFAULT, OWN), {}, STAYS),
        ((DEFAULT,), {VARIABLE: "ACCEPT"}, STAYS),
        ((OWN,), {VARIABLE: "return"}, OPEN),
        ((), {"FELIX_LOGSEVERITYSCREEN": "info"}, CUT),
        ((FelixConfiguration("node.node2", {FIELD: "Accept"}),), {}, OPEN),
    ],
)
def test_who_decides(
    configurations: tuple[FelixConfiguration, ...], environment: dict[str, str], standing: str
) -> None:
    assert judge_host_action("node1", configurations, environment).standing == standing
