"""Alert rules: names that exist, syntax by promtool, and for each a case in which it fires and one in which not."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from calico_debug.metrics.families import FAMILIES
from tests.daemonset.test_manifests import DAEMONSET, documents

if TYPE_CHECKING:
    from pathlib import Path

(RULES,) = documents(DAEMONSET / "overlays/metrics/prometheusrule.yaml")
ALERTS: list[dict[str, Any]] = [rule for group in RULES["spec"]["groups"] for rule in group["rules"]]

RATE = "0+{step}x60"
DENIED = 'calico_debug_policy_rule_{unit}_total{{instance="n1", tier="t", direction="egress", rule="{rule}"}}'
DROPPED = 'calico_debug_dropped_packets_total{{instance="n1", reason="{reason}"}}'
FULL = 'calico_debug_conntrack_entries{unit}{{instance="n1", table="netfilter"}}'

CASES: list[tuple[str, dict[str, str], bool]] = [
    ("CalicoDeniesByDefault", {DENIED.format(unit="packets", rule="end-of-tier"): RATE.format(step=120)}, True),
    ("CalicoDeniesByDefault", {DENIED.format(unit="evaluations", rule="end-of-tier"): RATE.format(step=120)}, True),
    ("CalicoDeniesByDefault", {DENIED.format(unit="packets", rule="0"): RATE.format(step=120)}, False),
    ("CalicoDeniesByDefault", {DENIED.format(unit="packets", rule="end-of-tier"): RATE.format(step=6)}, False),
    ("CalicoDropsFromUnknownInterface", {DROPPED.format(reason="unknown-interface"): RATE.format(step=12)}, True),
    ("CalicoDropsFromUnknownInterface", {DROPPED.format(reason="rule"): RATE.format(step=12)}, False),
    ("CalicoDropsSpoofedPackets", {DROPPED.format(reason="rpf"): RATE.format(step=120)}, True),
    ("CalicoDropsSpoofedPackets", {DROPPED.format(reason="rpf"): "5x60"}, False),
    ("CalicoConntrackNearlyFull", {FULL.format(unit=""): "95x60", FULL.format(unit="_limit"): "100x60"}, True),
    ("CalicoConntrackNearlyFull", {FULL.format(unit=""): "80x60", FULL.format(unit="_limit"): "100x60"}, False),
    ("CalicoDebugSourceDown", {'calico_debug_source_up{instance="n1", source="rules"}': "0x60"}, True),
    ("CalicoDebugSourceDown", {'calico_debug_source_up{instance="n1", source="rules"}': "0x5 1x54"}, False),
    ("CalicoDebugSeriesDropped", {'calico_debug_series_dropped{instance="n1", family="f"}': "3x60"}, True),
    ("CalicoDebugSeriesDropped", {'calico_debug_series_dropped{instance="n1", family="f"}': "0x60"}, False),
]
"""An alert, series by the minute, and whether it fires after an hour."""


def promtool(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: make test-prometheus installs it")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_only_metrics_that_exist_are_asked_for() -> None:
    names = {family.name for family in FAMILIES}
    for alert in ALERTS:
        used = set(re.findall(r"calico_debug_\w+", alert["expr"]))
        assert used
        assert used <= names


def test_every_alert_fires_in_one_case_and_not_in_another() -> None:
    names = [alert["alert"] for alert in ALERTS]
    assert len(set(names)) == len(names)
    assert {(name, fires) for name, _, fires in CASES} == {(name, fires) for name in names for fires in (True, False)}


def test_labels_that_are_asked_for_exist() -> None:
    by_name = {family.name: set(family.labels) for family in FAMILIES}
    for alert in ALERTS:
        for name, chosen in re.findall(r"(calico_debug_\w+)\{([^}]*)\}", alert["expr"]):
            assert set(re.findall(r"(\w+)=", chosen)) <= by_name[name]


def test_promtool_understands_them(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]))
    done = promtool(tmp_path, "check", "rules", "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_are_to(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES["spec"]))
    by_name = {alert["alert"]: alert for alert in ALERTS}
    for number, (name, series, fires) in enumerate(CASES):
        query = f'count(ALERTS{{alertname="{name}", alertstate="firing"}}) or vector(0)'
        case = {
            "rule_files": ["rules.yaml"],
            "evaluation_interval": "1m",
            "tests": [
                {
                    "interval": "1m",
                    "input_series": [{"series": one, "values": values} for one, values in series.items()],
                    "promql_expr_test": [
                        {"expr": query, "eval_time": "59m", "exp_samples": [{"labels": "{}", "value": int(fires)}]}
                    ],
                }
            ],
        }
        assert by_name[name]
        (tmp_path / f"case{number}.yaml").write_text(yaml.safe_dump(case))
        done = promtool(tmp_path, "test", "rules", f"case{number}.yaml")
        assert done.returncode == 0, f"{name} {series} {done.stdout}{done.stderr}"
