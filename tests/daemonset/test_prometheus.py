"""A real Prometheus scrapes the agent of a node under traffic: what it stores is what was sent."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from calico_debug.metrics.families import FAMILIES
from tests.daemonset.test_alerts import ALERTS
from tests.docs.markdown import DOCS
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Policy, Rule, Selector

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

PROGRAM = Path(sys.executable).with_name("calico-debug")
PORT, METRICS = 9090, 9097
SECONDS = 30.0
WEB = Selector("app", ("web",))
POLICY = Policy("NetworkPolicy", "only-tcp", namespace="red", selector=WEB, ingress=(Rule("Allow", "tcp"),))
CONFIGURATION = {
    "global": {"scrape_interval": "1s"},
    "scrape_configs": [{"job_name": "calico-debug", "static_configs": [{"targets": [f"127.0.0.1:{METRICS}"]}]}],
}


@contextmanager
def process(namespace: str, folder: Path, *command: str | Path) -> Iterator[None]:
    """A process in a namespace, which ends at the end."""
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        running = subprocess.Popen(["ip", "netns", "exec", namespace, *command], stderr=log, cwd=folder)
    try:
        yield
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            running.wait(SECONDS)
        finally:
            running.kill()


class Prometheus:
    """Its HTTP interface, in a namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def ask(self, path: str, **parameters: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=SECONDS)
        with namespaces.entered(self._namespace):
            connection.connect()
        connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
        document = json.loads(connection.getresponse().read())
        connection.close()
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        found = self.ask("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]


def until(wanted: Callable[[], bool]) -> None:
    """Ask again until it is so: Prometheus scrapes when it likes, and tells nobody."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if wanted():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError("it did not come to be in time")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Prometheus]]:
    need_lab()
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: make test-prometheus installs it")
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    with Lab() as lab:
        lab.program(Model(policies=(POLICY,)))
        namespace = lab.namespace("node1")
        agent = [PROGRAM, "agent", "--socket", "off", "--metrics", f"127.0.0.1:{METRICS}", "--metrics-pods"]
        listen = f"--web.listen-address=127.0.0.1:{PORT}"
        server = [program, "--config.file=prometheus.yaml", "--storage.tsdb.path=data", listen]
        with process(namespace, folder, *agent), process(namespace, folder, *server):
            found = Prometheus(namespace)
            until(lambda: found.query("up") != [] and found.query("up")[0][1] == 1)
            yield lab, found


def test_what_was_sent_is_what_is_stored(node: tuple[Lab, Prometheus]) -> None:
    lab, prometheus = node
    allowed = 'calico_debug_policy_rule_packets_total{policy="only-tcp", rule="#0"}'
    denied = 'calico_debug_dropped_packets_total{reason="end-of-tier"}'
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
    of_ebpf = {"calico_debug_policy_rule_evaluations_total", "calico_debug_bpf_packets_total"}
    expected = {family.name: (family.type, family.help) for family in FAMILIES if family.name not in of_ebpf}
    assert {name: about for name, about in by_name.items() if name.startswith("calico_debug_")} == expected


def test_examples_and_alerts_are_understood_and_find_data(node: tuple[Lab, Prometheus]) -> None:
    """An alert's comparison taken away, it has something to compare, on a node of this dataplane."""
    _, prometheus = node
    text = re.findall(r"```promql\n(.*?)```", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.DOTALL)
    examples = [line for block in text for line in block.splitlines() if not line.startswith("#")]
    assert len(examples) >= 3
    values = [re.sub(r"(==|>) [0-9.]+\s*$", "", alert["expr"].strip()) for alert in ALERTS]
    for expression in (*examples, *values):
        # Denials of a policy: this node's policy has no rule that denies.
        if 'action="Deny", policy!=""' in expression:
            assert prometheus.query(expression) == []
            continue
        until(lambda expression=expression: prometheus.query(expression) != [])  # type: ignore[misc]
