"""A real Prometheus that scrapes the agent of a lab's node and the metrics of a recorded eBPF node, in a namespace."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from calico_debug.agent.collector import Collector
from calico_debug.agent.routing import TEXT
from calico_debug.evidence.bundle import open_bundle
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector
from tests.recordings import DATA

PROGRAM = Path(sys.executable).with_name("calico-debug")
PORT, METRICS, RECORDED = 9090, 9097, 9098
SECONDS = 30.0
WEB = Selector("app", ("web",))
RULES = (Rule("Allow", "tcp"), Rule("Deny", "udp", destination=Entity(ports=(5353,))))
POLICY = Policy("NetworkPolicy", "only-tcp", namespace="red", selector=WEB, ingress=RULES)
TARGETS = [f"127.0.0.1:{METRICS}", f"127.0.0.1:{RECORDED}"]
CONFIGURATION = {
    "global": {"scrape_interval": "1s"},
    "scrape_configs": [{"job_name": "calico-debug", "static_configs": [{"targets": TARGETS}]}],
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


@contextmanager
def recorded_node(namespace: str) -> Iterator[None]:
    """The metrics of a recorded eBPF node, served in a namespace: its counters stand still."""
    collector = Collector(open_bundle(str(DATA / "v3.32.1-bpf.tar.xz")), pods=True)

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = collector.page()
            self.send_response(200)
            self.send_header("content-type", TEXT)
            self.send_header("content-length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Nothing on the terminal."""

    with namespaces.entered(namespace):
        server = ThreadingHTTPServer(("127.0.0.1", RECORDED), Page)
    serving = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    serving.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        serving.join(SECONDS)


def until(wanted: Callable[[], bool]) -> None:
    """Ask again until it is so: Prometheus scrapes when it likes, and tells nobody."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if wanted():
                return
        except (OSError, ValueError):  # not there yet, or not ready
            pass
        time.sleep(0.2)
    raise AssertionError("it did not come to be in time")


@contextmanager
def scraped_node(folder: Path) -> Iterator[tuple[Lab, Prometheus]]:
    """A lab with policy, an agent on its first node, and Prometheus beside it, which has scraped both targets."""
    need_lab()
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: make test-prometheus installs it")
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(CONFIGURATION))
    with Lab() as lab:
        lab.program(Model(policies=(POLICY,)))
        namespace = lab.namespace("node1")
        agent = [PROGRAM, "agent", "--socket", "off", "--metrics", f"127.0.0.1:{METRICS}", "--metrics-pods"]
        listen = f"--web.listen-address=127.0.0.1:{PORT}"
        server = [program, "--config.file=prometheus.yaml", "--storage.tsdb.path=data", listen]
        with process(namespace, folder, *agent), recorded_node(namespace), process(namespace, folder, *server):
            found = Prometheus(namespace)
            until(lambda: [value for _, value in found.query("up")] == [1] * len(TARGETS))
            yield lab, found
