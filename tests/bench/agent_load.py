"""What an agent's process takes: memory and CPU under scrapes of a node with very many rules, and under traces."""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.bench.big_node import big_node
from tests.bench.scrape import policed_node
from tests.endurance.agent_process import AgentProcess
from tests.lab import namespaces

MIB = 1 << 20
CLIENTS = 4
"""Traces at once; as many as an agent works on at once."""


@dataclass(frozen=True, slots=True)
class Load:
    """What was asked, seconds of CPU for each, and the most memory the process had by then, in MiB."""

    name: str
    cpu: float
    memory: float


def scrape_load(rules: int, scrapes: int, folder: Path) -> Sequence[Load]:
    """An agent that does nothing yet, the first scrape, and those that follow."""
    with policed_node(rules) as namespace, AgentProcess(namespace, folder, node="big") as agent:

        def scrape() -> None:
            assert agent.ask("/metrics")[0] == http.client.OK

        idle = Load("an agent that was asked nothing", 0.0, agent.peak() / MIB)
        first = measured("the first scrape", agent, scrape, 1)
        return [idle, first, measured("a scrape", agent, scrape, scrapes)]


def trace_load(chains: int, traces: int, folder: Path) -> Sequence[Load]:
    """Traces one after the other, then `CLIENTS` at once."""
    with big_node(chains, 10) as node, AgentProcess(node.namespace, folder, node="big") as agent:

        def trace() -> None:
            status, document = agent.trace({"from": node.client, "to": f"{node.server}:80"})
            assert status == http.client.OK, document

        def together() -> None:
            with ThreadPoolExecutor(CLIENTS) as pool:
                for done in [pool.submit(trace) for _ in range(CLIENTS)]:
                    done.result()

        trace()
        alone = measured("a trace", agent, trace, traces)
        crowd = measured(f"a trace, {CLIENTS} at once", agent, together, max(1, traces // CLIENTS))
        return [alone, Load(crowd.name, crowd.cpu / CLIENTS, crowd.memory)]


def listing_memory(rules: int) -> float:
    """The most memory, in MiB, of ``nft -j list ruleset``, the largest program that an agent runs."""
    with policed_node(rules) as namespace, namespaces.entered(namespace):
        running = subprocess.Popen(["nft", "-j", "list", "ruleset"], stdout=subprocess.DEVNULL)
        _, _, usage = os.wait4(running.pid, 0)
        return usage.ru_maxrss * 1024 / MIB


def measured(name: str, agent: AgentProcess, ask: Callable[[], None], times: int) -> Load:
    """Ask so many times."""
    before = agent.cpu()
    for _ in range(times):
        ask()
    return Load(name, (agent.cpu() - before) / times, agent.peak() / MIB)
