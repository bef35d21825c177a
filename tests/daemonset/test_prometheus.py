"""What a real Prometheus stores is what was sent, and expressions of examples, alerts and dashboards find data."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from calico_debug.metrics.families import FAMILIES
from tests.daemonset.scraped import TARGETS, Prometheus, scraped_node, until
from tests.daemonset.test_alerts import ALERTS
from tests.daemonset.test_dashboards import DASHBOARDS, expressions
from tests.docs.markdown import DOCS
from tests.lab.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Prometheus]]:
    with scraped_node(tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def test_what_was_sent_is_what_is_stored(node: tuple[Lab, Prometheus]) -> None:
    lab, prometheus = node
    allowed = 'calico_debug_policy_rule_packets_total{policy="only-tcp", rule="#0"}'
    denied = f'calico_debug_dropped_packets_total{{reason="end-of-tier", instance="{TARGETS[0]}"}}'
    until(lambda: len(prometheus.query(allowed)) == 1)
    ((labels, before),), ((_, dropped),) = prometheus.query(allowed), prometheus.query(denied)
    assert labels["namespace"] == "red"
    counted = lab.counters()
    for _ in range(3):
        assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
    assert lab.send(lab.flow("red/cli1", "red/web1", "udp", 53)).verdict == "denied"
    chains: dict[str, int] = {}
    for key, packets in lab.moved(counted)["node1"].items():
        if key.chain.startswith("filter-cali-tw-"):
            chains[f"{key.chain} {key.handle}"] = packets
    until(lambda: prometheus.query(allowed)[0][1] == before + 3)
    until(lambda: prometheus.query(denied)[0][1] - dropped in chains.values())


def test_types_and_help_arrive(node: tuple[Lab, Prometheus]) -> None:
    _, prometheus = node
    told = prometheus.ask("targets/metadata")
    by_name = {one["metric"]: (one["type"], one["help"]) for one in told}
    expected = {family.name: (family.type, family.help) for family in FAMILIES}
    assert {name: about for name, about in by_name.items() if name.startswith("calico_debug_")} == expected


def examples() -> list[str]:
    text = re.findall(r"```promql\n(.*?)```", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line for block in text for line in block.splitlines() if not line.startswith("#")]


def test_every_expression_finds_data(node: tuple[Lab, Prometheus]) -> None:
    """An alert's comparison taken away, it has something to compare."""
    _, prometheus = node
    assert len(examples()) >= 3
    alerts = [re.sub(r"(==|>) [0-9.]+\s*$", "", alert["expr"].strip()) for alert in ALERTS]
    panels = [expression for dashboard in DASHBOARDS.values() for _, expression in expressions(dashboard)]
    assert len(panels) >= 15
    for expression in (*examples(), *alerts, *panels):
        until(lambda expression=expression: prometheus.query(expression) != [])  # type: ignore[misc]


def test_dashboards_find_the_nodes(node: tuple[Lab, Prometheus]) -> None:
    _, prometheus = node
    for dashboard in DASHBOARDS.values():
        (question,) = (one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query")
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", question)
        assert match
        found = {labels[match[2]] for labels, _ in prometheus.query(match[1])}
        assert found == set(TARGETS)
