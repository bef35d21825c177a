"""A node with very many rules: the lab's node1 with its own policies, and a crowd of chains that nobody asks about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.lab import namespaces
from tests.lab.lab import Lab
from tests.lab.model import Model

PIECE = 1000
"""Lines of one transaction."""


@dataclass(frozen=True, slots=True)
class BigNode:
    """Where to run, and two pods of that node."""

    namespace: str
    client: str
    server: str


@contextmanager
def big_node(chains: int, rules: int) -> Iterator[BigNode]:
    """A wired and programmed node with ``chains`` more chains of ``rules`` rules, each rule with two anonymous sets."""
    with Lab() as lab:
        lab.program(Model())
        namespace = lab.namespace("node1")
        # A transaction of everything takes nft minutes.
        lines = crowd(chains, rules).splitlines()
        for start in range(0, len(lines), PIECE):
            namespaces.nft(namespace, "\n".join(lines[start : start + PIECE]) + "\n")
        yield BigNode(namespace, lab.topology.address("red/cli1", 4), lab.topology.address("red/web1", 4))


def crowd(chains: int, rules: int) -> str:
    """Policy chains as a large cluster has them, in Calico's table."""
    lines = ["add table ip calico"]
    for chain in range(chains):
        name = f"filter-cali-pi-gnp/crowd-{chain}"
        lines.append(f"add chain ip calico {name}")
        for rule in range(rules):
            hosts = ", ".join(f"10.{chain % 250}.{rule}.{host}" for host in (1, 2, 3))
            match = f"ip saddr {{ {hosts} }} tcp dport {{ {1000 + rule}, {2000 + rule}-{2010 + rule} }}"
            lines.append(f"add rule ip calico {name} {match} counter meta mark set mark or 0x10000")
    return "\n".join(lines) + "\n"
