"""docs/metrics.md against the code."""

from __future__ import annotations

import re

from calico_debug.agent.collector import CACHED_SECONDS, SERIES
from calico_debug.metrics.accumulator import RETAINED
from calico_debug.metrics.families import FAMILIES, LABELS
from tests.docs.markdown import DOCS, section, tables

TEXT = (DOCS / "metrics.md").read_text(encoding="utf-8")


def test_metrics_and_labels() -> None:
    metrics, labels = tables(section("metrics.md", "Metrics"))
    assert metrics == [(f"`{f.name}`", f.type, ", ".join(f"`{label}`" for label in f.labels), f.help) for f in FAMILIES]
    assert labels == [(f"`{name}`", meaning) for name, meaning in LABELS.items()]


def test_every_metric_that_is_mentioned_exists() -> None:
    names = {family.name for family in FAMILIES}
    assert set(re.findall(r"calico_debug_\w+", TEXT)) == names


def test_numbers() -> None:
    assert f"older than {CACHED_SECONDS:g} s" in TEXT
    assert f"at most {SERIES:,} series" in TEXT
    assert f"for {RETAINED} more pages" in TEXT
