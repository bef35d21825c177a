"""``calico-debug hits`` with a real Prometheus that scrapes the agent of a node under traffic."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemonset.scraped import PORT, PROGRAM, SECONDS, scraped_node, until
from tests.lab import namespaces
from tests.lab.model import Model, Policy, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.daemonset.scraped import Prometheus
    from tests.lab.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

SERIES = 'calico_debug_policy_rule_packets_total{policy="only-tcp", rule="#0"}'


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Prometheus]]:
    with scraped_node(tmp_path_factory.mktemp("prometheus")) as found:
        yield found


def hits(lab: Lab, *options: str) -> dict[str, Any]:
    command = [str(PROGRAM), "hits", "--prometheus", f"http://127.0.0.1:{PORT}", "--since", "5m", "-o", "json"]
    return dict(json.loads(namespaces.run(lab.namespace("node1"), [*command, *options])))


def rule(document: dict[str, Any], policy: str, direction: str = "ingress") -> dict[str, Any]:
    return next(
        one
        for one in document["rules"]
        if (one["direction"], one.get("policy", {}).get("name"), one["rule"]) == (direction, policy, "#0")
    )


def test_growth_and_what_was_never_met(node: tuple[Lab, Prometheus]) -> None:
    lab, prometheus = node
    until(lambda: prometheus.query(SERIES) != [])
    before = prometheus.query(SERIES)[0][1]
    first = rule(hits(lab), "only-tcp")
    for _ in range(4):
        assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
    until(lambda: prometheus.query(SERIES)[0][1] == before + 4)
    until(lambda: rule(hits(lab), "only-tcp")["window"]["growth"] >= first["window"]["growth"] + 3.5)
    document = hits(lab)
    found = rule(document, "only-tcp")
    assert (found["standing"], found["unit"], found["count"]) == ("met", "packets", before + 4)
    assert "2 agents)" in document["since"]
    ended = next(one for one in document["rules"] if one["rule"] == "end-of-tier")
    assert ended["window"]["growth"] >= 0


def test_a_rule_that_is_gone_is_remembered(node: tuple[Lab, Prometheus]) -> None:
    lab, prometheus = node
    kept = lab.model
    try:
        lab.program(Model(policies=(Policy("NetworkPolicy", "gone", namespace="red", ingress=(Rule("Allow"),)),)))
        until(lambda: prometheus.query('calico_debug_policy_rule_packets_total{policy="gone"}') != [])
    finally:
        lab.program(kept)
    found = rule(hits(lab), "gone")
    assert "nodes" not in found
    unused = hits(lab, "--unused")
    # Both have a chain for IPv6, too, where nothing was sent
    names = {(one["policy"]["name"], one["rule"]) for one in unused["rules"]}
    assert {("gone", "#0"), ("gone", "#0/ip6"), ("only-tcp", "#0/ip6"), ("only-tcp", "#1")} <= names
    assert ("only-tcp", "#0") not in names


def test_a_server_that_is_none(node: tuple[Lab, Prometheus]) -> None:
    lab, _ = node
    address = f"http://127.0.0.1:{PORT}/nowhere"
    command = ["ip", "netns", "exec", lab.namespace("node1"), str(PROGRAM), "hits", "--prometheus", address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert ran.returncode == 1
    assert "does not speak Prometheus' language (status 404)" in ran.stderr
