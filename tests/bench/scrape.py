"""A node with very many rules of policies, scraped again and again: seconds of CPU that one scrape takes."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from calico_debug.agent import collector as collector_module
from calico_debug.agent.collector import Collector
from calico_debug.agent.evidence import LiveSource
from tests.lab import namespaces

RULES_A_CHAIN = 10
KERNEL_RULES = 2
"""A rule of the API is one that matches and sets the mark, and one that acts on it."""
SCRAPES = 7


def policies(rules: int) -> str:
    """Chains of policies as Felix v3.30 and later write them, ``rules`` kernel rules in all, asked by one pod."""
    chains = rules // (RULES_A_CHAIN * KERNEL_RULES)
    lines = ["add table ip calico"]
    names = [f"filter-cali-pi-np/crowd-{number % 40}/policy-{number}" for number in range(chains)]
    for number, name in enumerate(names):
        lines.append(f"add chain ip calico {name}")
        for rule in range(RULES_A_CHAIN):
            said = f"; NetworkPolicy crowd-{number % 40}/policy-{number} ingress" if rule == 0 else ""
            matching = f"ip saddr 10.{number % 250}.{rule}.0/24 tcp dport {1000 + rule} counter"
            acting = "meta mark and 0x10000 == 0x10000 counter return"
            main, second = f"cali:a{number:07}{rule:08}{said}", f"cali:b{number:07}{rule:08}"
            lines.append(f'add rule ip calico {name} {matching} meta mark set mark or 0x10000 comment "{main}"')
            lines.append(f'add rule ip calico {name} {acting} comment "{second}"')
    pod = "filter-cali-tw-cali12345678901"
    lines.append(f"add chain ip calico {pod}")
    lines.append(f'add rule ip calico {pod} counter comment "cali:c000000000000000; Start of tier default"')
    for name in names:
        lines.append(f"add rule ip calico {pod} meta mark and 0x20000 == 0 counter jump {name}")
        lines.append(
            f"add rule ip calico {pod} meta mark and 0x10000 == 0x10000 counter return "
            'comment "cali:d000000000000000; Return if policy accepted"'
        )
    return "\n".join(lines) + "\n"


@contextmanager
def policed_node(rules: int) -> Iterator[str]:
    """A namespace whose kernel holds them; gives its name."""
    made = namespaces.create(["policed"])
    try:
        # A transaction of everything takes nft minutes.
        lines = policies(rules).splitlines()
        for start in range(0, len(lines), 2000):
            namespaces.nft(made["policed"], "\n".join(lines[start : start + 2000]) + "\n")
        yield made["policed"]
    finally:
        namespaces.delete(made.values())


def cpu() -> float:
    """Seconds of CPU of this process and of those that it waited for."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in spent)


def scrapes(namespace: str) -> tuple[float, float, int]:
    """CPU of the first page, which learns what the rules mean, the median of later ones, and the series of a page."""
    collector_module.CACHED_SECONDS = -1.0
    with namespaces.entered(namespace):
        collector = Collector(LiveSource("bench"))
        taken: list[float] = []
        for _ in range(SCRAPES):
            started = cpu()
            page = collector.page()
            taken.append(cpu() - started)
    series = sum(1 for line in page.splitlines() if not line.startswith(b"#"))
    return taken[0], median(taken[1:]), series


def command_cpu(namespace: str, command: Sequence[str]) -> float:
    """CPU of a command, the median of three runs."""
    taken = []
    for _ in range(3):
        started = cpu()
        namespaces.run(namespace, command)
        taken.append(cpu() - started)
    return median(taken)
