from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import run
from calico_debug.agent.certificate import OwnCertificate
from calico_debug.agent.collector import Collector
from calico_debug.agent.gate import Gate
from calico_debug.agent.reviews import Reviewer
from calico_debug.agent.routing import Request
from calico_debug.agent.run import METRICS_PATHS, PROBES, Readiness, open_listeners, work_on
from calico_debug.agent.server import Listeners
from calico_debug.agent.settings import Address, Settings
from calico_debug.cli.agent_client import AgentClient, Trust
from calico_debug.errors import EvidenceError
from tests.agent.reviewing import Reviews, token
from tests.agent.serving import SECONDS, Agent
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import recordings

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.agent.routes import Work
    from calico_debug.evidence.source import EvidenceSource


def recorded_work() -> Work:
    source = recordings("1-nft")[0].source
    return work_on(lambda: source, Collector(source))


def test_metrics_are_apart_from_evidence(tmp_path: Path) -> None:
    listeners = Listeners()
    ports: list[int] = []
    opened = listeners.tcp

    def remember(address: Address, *rest: object) -> int:
        ports.append(opened(address, *rest))  # type: ignore[arg-type]
        return ports[-1]

    listeners.tcp = remember  # type: ignore[method-assign]
    anywhere = Address("127.0.0.1", 0)
    settings = Settings(str(tmp_path / "a.sock"), anywhere, anywhere, insecure_loopback=True)
    open_listeners(listeners, settings, recorded_work())
    thread = threading.Thread(target=listeners.run)
    thread.start()
    try:
        everything, metrics = (Agent(port, "", listeners) for port in ports)
        assert everything.ask("/v1/nodes")[0] == 200
        assert metrics.ask("/v1/nodes")[0] == 404
        for path in METRICS_PATHS:
            assert metrics.ask(path)[0] == everything.ask(path)[0] == 200
    finally:
        listeners.stop()
        thread.join(SECONDS)


def test_metrics_behind_the_gate_leave_probes_open(tmp_path: Path) -> None:
    scraping = token("scraper")
    reviews = Reviews({scraping: "scraper"}, {("scraper", "get", "/metrics")})
    certificate = OwnCertificate(["127.0.0.1"])
    gate = Gate(certificate, Reviewer(lambda: reviews), "n1", lambda _: pytest.fail("metrics are not published"))
    listeners = Listeners()
    opened, ports = listeners.tcp, []

    def remember(*arguments: object) -> int:
        ports.append(opened(*arguments))  # type: ignore[arg-type]
        return ports[-1]

    listeners.tcp = remember  # type: ignore[method-assign, assignment]
    settings = Settings(str(tmp_path / "a.sock"), None, Address("127.0.0.1", 0), metrics_auth=True)
    open_listeners(listeners, settings, recorded_work(), gate)
    thread = threading.Thread(target=listeners.run)
    thread.start()
    try:
        place, trust = f"https://127.0.0.1:{ports[0]}", Trust(pem=certificate.pem())
        scraper = AgentClient(place, trust=trust, token=lambda: scraping)
        assert scraper.ask("/metrics").startswith(b"#")
        nobody = AgentClient(place, trust=trust)
        for path in PROBES:
            assert nobody.ask(path) == b"ok\n"
        with pytest.raises(EvidenceError, match="no token"):
            nobody.ask("/metrics")
    finally:
        listeners.stop()
        thread.join(SECONDS)


def test_readiness_is_asked_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    sources: list[EvidenceSource] = [MemorySource({}, {"n1": MemoryNode({})})]
    ready = Readiness(lambda: sources[-1])
    assert "nft-ruleset.json" in ready()
    sources.append(recordings("1-nft")[0].source)
    assert ready() != ""
    monkeypatch.setattr(run, "READY_SECONDS", -1.0)
    assert ready() == ""


def test_a_source_that_cannot_be_opened_is_not_ready() -> None:
    def refuse() -> EvidenceSource:
        raise EvidenceError("no node here")

    assert Readiness(refuse)() == "no node here"


def test_what_a_request_opened_is_closed_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    class Opened(run.LiveSource):
        def close(self) -> None:
            closed.append(self.origin)

    source = recordings("1-nft")[0].source
    work = work_on(lambda: Opened("n1"), Collector(source))
    with ExitStack() as stack:
        assert work.source(Request({}, {}, lambda: None, stack)).nodes() == ("n1",)
        assert closed == []
    assert closed == ["this node"]


def test_a_signal_before_the_loop_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(run, "open_listeners", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    run.serve(Settings(str(tmp_path / "a.sock")), "n1")
    assert signal.getsignal(signal.SIGTERM) is before
