from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent import run
from calico_debug.agent.certificate import OwnCertificate
from calico_debug.agent.collector import Collector
from calico_debug.agent.gate import Gate
from calico_debug.agent.reviews import REVIEWS, Reviewer
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
    from collections.abc import Iterator
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


@contextmanager
def metrics_behind_a_gate(folder: Path, reviews: Reviews) -> Iterator[tuple[str, Trust]]:
    """The URL of metrics that are checked, and whom to trust for it."""
    certificate = OwnCertificate(["127.0.0.1"])
    reviewer = Reviewer(lambda: reviews, wait=0)
    gate = Gate(certificate, reviewer, reviewer, "n1", lambda _: pytest.fail("metrics are not published"))
    listeners = Listeners()
    opened, ports = listeners.tcp, []

    def remember(*arguments: object) -> int:
        ports.append(opened(*arguments))  # type: ignore[arg-type]
        return ports[-1]

    listeners.tcp = remember  # type: ignore[method-assign, assignment]
    settings = Settings(str(folder / "a.sock"), None, Address("127.0.0.1", 0), metrics_auth=True)
    open_listeners(listeners, settings, recorded_work(), gate)
    thread = threading.Thread(target=listeners.run)
    thread.start()
    try:
        yield f"https://127.0.0.1:{ports[0]}", Trust(pem=certificate.pem())
    finally:
        listeners.stop()
        thread.join(SECONDS)


def test_metrics_behind_the_gate_leave_probes_open(tmp_path: Path) -> None:
    scraping = token("scraper")
    reviews = Reviews({scraping: "scraper"}, {("scraper", "get", "/metrics")})
    with metrics_behind_a_gate(tmp_path, reviews) as (place, trust):
        assert AgentClient(place, trust=trust, token=lambda: scraping).ask("/metrics").startswith(b"#")
        nobody = AgentClient(place, trust=trust)
        for path in PROBES:
            assert nobody.ask(path) == b"ok\n"
        with pytest.raises(EvidenceError, match="no token"):
            nobody.ask("/metrics")


def test_probes_are_answered_while_the_api_server_is_silent(tmp_path: Path) -> None:
    class Silent(Reviews):
        def send(self, *arguments: Any) -> Any:
            entered.release()
            assert go.wait(SECONDS)
            return super().send(*arguments)

    entered, go = threading.Semaphore(0), threading.Event()
    with metrics_behind_a_gate(tmp_path, Silent({}, set())) as (place, trust):

        def scrape(number: int) -> str:
            with pytest.raises(EvidenceError) as caught:
                AgentClient(place, trust=trust, token=lambda: token(f"x{number}")).ask("/metrics")
            return str(caught.value)

        with ThreadPoolExecutor(20) as pool:
            scrapes = [pool.submit(scrape, number) for number in range(20)]
            for _ in range(REVIEWS):
                assert entered.acquire(timeout=SECONDS)
            assert AgentClient(place, trust=trust).ask("/healthz") == b"ok\n"
            assert not go.is_set()
            go.set()
            said = [done.result(SECONDS) for done in scrapes]
    waiting = {line for line in said if "does not accept this token" not in line}
    assert waiting == {"other callers are being checked: try again in a second"}


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
