"""Scrapes and traces for a long time while rules change: nothing grows, nothing is wrong, nothing hangs."""

from __future__ import annotations

import http.client
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.endurance.agent_process import AgentProcess
from tests.endurance.churn import Churn, chain_of
from tests.lab.conftest import need_lab
from tests.lab.lab import Lab
from tests.lab.model import Model, Policy, Rule, Selector

pytestmark = [pytest.mark.endurance, pytest.mark.kernel]

SECONDS = float(os.environ.get("CALICO_DEBUG_ENDURANCE_SECONDS", "120"))
WARM_UP = 0.25
"""The share of the time after which nothing may grow any more."""
MIB = 1 << 20
GROWTH = 6 * MIB
PAUSE = 0.25
NODE = "node1"

STEADY = Policy(
    "NetworkPolicy", "steady", namespace="red", selector=Selector("app", ("web",)), ingress=(Rule("Allow", "tcp"),)
)
CHANGING = "changing"
CHANGING_CHAIN = "filter-cali-pi-np/red/changing"


def model(action: str) -> Model:
    """One policy that stays as it is, and one that allows and denies in turn."""
    rules = (Rule(action, "tcp"),)  # type: ignore[arg-type]
    selector = Selector("app", ("client",))
    return Model(
        policies=(STEADY, Policy("NetworkPolicy", CHANGING, namespace="red", selector=selector, ingress=rules))
    )


@dataclass
class Findings:
    """What the threads met; ``wrong`` has to stay empty."""

    wrong: list[str] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)


@contextmanager
def repeated(*works: Callable[[], None]) -> Iterator[Findings]:
    """Each work in a thread of its own, again and again until the end."""
    end, findings = Event(), Findings()

    def run(work: Callable[[], None]) -> None:
        while not end.is_set():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                findings.wrong.append(f"{work.__name__}: {error!r}")
                end.wait(1)

    threads = [Thread(target=run, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield findings
    finally:
        end.set()
        for thread in threads:
            thread.join()


class Scraper:
    """Reads the page, and compares it with the one before."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent = agent
        self._last: dict[tuple[str, ...], float] = {}
        self.scrapes = 0

    def scrape(self) -> None:
        status, body = self._agent.ask("/metrics")
        assert status == http.client.OK, body
        found: dict[tuple[str, ...], float] = {}
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
                found[key] = sample.value
                if family.type == "counter":
                    assert sample.value >= self._last.get(key, 0), f"{key} went back from {self._last[key]}"
        assert found["calico_debug_source_up", "source=rules"] == 1, self._agent.log()
        self._last = found
        self.scrapes += 1

    def value(self, name: str, **labels: str) -> float:
        wanted = {f"{key}={value}" for key, value in labels.items()}
        return sum(value for key, value in self._last.items() if key[0] == name and wanted <= set(key))


class Asker:
    """Traces flows in turn, and judges the answers."""

    def __init__(self, agent: AgentProcess, questions: list[tuple[object, set[str]]], met: Counter[str]) -> None:
        self._agent, self._questions, self._met = agent, questions, met
        self.traces = 0

    def ask(self) -> None:
        question, expected = self._questions[self.traces % len(self._questions)]
        status, document = self._agent.trace(question)
        if status == http.client.SERVICE_UNAVAILABLE:
            self._met["busy"] += 1
            return
        self.traces += 1
        assert status == http.client.OK, document
        decision = document["decision"]
        if document["verdict"] == "undetermined":
            assert "the rules changed while they were read" in decision["detail"], document
            self._met["undetermined"] += 1
            return
        assert document["verdict"] in expected, document
        policy = decision.get("policy")
        if policy is not None and policy["name"] == CHANGING:
            # The rule that is named says what the verdict is: they are of one moment.
            assert {"allowed": "Allow", "denied": "Deny"}[document["verdict"]] == decision["rule"]["action"], document
            self._met[f"{CHANGING} {document['verdict']}"] += 1
        elif "rules-changed" in {finding["code"] for finding in document["findings"]}:
            self._met["agreed"] += 1


def settled(agent: AgentProcess) -> tuple[int, int]:
    """Descriptors and threads once nobody asks any more."""
    end = time.monotonic() + 10
    while (agent.descriptors(), agent.children()) != (least := (agent.descriptors(), [])) and time.monotonic() < end:
        time.sleep(0.1)
    assert agent.children() == []
    return least[0], agent.threads()


@pytest.fixture
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab() as built:
        built.program(model("Allow"))
        yield built


def test_an_agent_under_load_while_rules_change(lab: Lab, tmp_path: Path) -> None:
    replacements = [chain_of(lab, model(action), NODE, CHANGING_CHAIN) for action in ("Deny", "Allow")]
    flows = {
        "steady": lab.flow("red/cli1", "red/web1", "tcp", 80),
        "refused": lab.flow("red/cli1", "red/web1", "udp", 53),
        "changing": lab.flow("red/web1", "red/cli1", "tcp", 80),
    }
    expected = {"steady": {"allowed"}, "refused": {"denied"}, "changing": {"allowed", "denied"}}
    questions: list[tuple[object, set[str]]] = [(lab.question(flow), expected[name]) for name, flow in flows.items()]
    met: Counter[str] = Counter()
    with AgentProcess(lab.namespace(NODE), tmp_path, node=NODE) as agent:
        scrapers = [Scraper(agent), Scraper(agent)]
        askers = [Asker(agent, questions, met) for _ in range(2)]
        scrapers[0].scrape()
        of_policy = {"policy": "steady", "rule": "#0"}
        before = scrapers[0].value("calico_debug_policy_rule_packets_total", **of_policy)
        works = [*(one.scrape for one in scrapers), *(one.ask for one in askers)]
        sent, started, warm = 0, time.monotonic(), 0
        with Churn(lab.namespace(NODE), replacements, PAUSE) as churn, repeated(*works) as findings:
            while time.monotonic() < started + SECONDS and not findings.wrong:
                assert lab.send(flows["steady"]).verdict == "allowed"
                assert lab.send(flows["refused"]).verdict == "denied"
                sent += 1
                if not warm and time.monotonic() > started + SECONDS * WARM_UP:
                    warm, few = agent.resident(), (agent.descriptors(), agent.threads())
        assert findings.wrong == [], agent.log()
        assert churn.failure is None
        scrapers[0].scrape()
        assert scrapers[0].value("calico_debug_policy_rule_packets_total", **of_policy) - before == sent
        grown = agent.resident() - warm
        print(  # noqa: T201
            f"{sum(one.scrapes for one in scrapers)} scrapes, {sum(one.traces for one in askers)} traces, "
            f"{churn.rounds} changes of rules, {sent} flows sent; memory {warm / MIB:.1f} MiB, {grown / MIB:+.1f} MiB, "
            f"CPU {agent.cpu():.0f} s; traces of note: {dict(met)}"
        )
        assert grown < GROWTH
        descriptors, threads = settled(agent)
        assert threads == few[1]
        assert descriptors <= few[0]
        assert met[f"{CHANGING} allowed"]
        assert met[f"{CHANGING} denied"]
        status, seconds = agent.terminate()
        assert (status, agent.path.exists()) == (0, False)
        assert seconds < 5
