"""The recorded eBPF cluster with files of it changed or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import Recording, recordings

Change = Callable[[dict[str, bytes]], None]
"""What to do with the files of a node."""

CUSTOMER, CUSTOMER_DEVICE = "10.244.1.10", "calif26a6ef2543"
SUMMARY, DATABASE = "10.244.1.11", "10.244.2.12"
POLICY = "var-run-calico-bpf/policy/"


@cache
def recorded() -> Recording:
    return recordings("-bpf")[0]


@cache
def files(node: str) -> Mapping[str, bytes]:
    evidence = recorded().source.node(node)
    return {file: evidence.read(file) for file in evidence.files()}


class RecordedCluster:
    """``node1`` and ``node2`` with the files as ``change`` leaves them."""

    def __init__(self, change: Change = lambda _files: None) -> None:
        nodes = {}
        for name in recorded().source.nodes():
            changed = dict(files(name))
            change(changed)
            nodes[name] = MemoryNode(changed, name)
        source = recorded().source
        self.engine = Engine(MemorySource({file: source.read_cluster(file) for file in source.cluster_files()}, nodes))
        self.resolver = Resolver(self.engine.cluster, self.engine.states)
        self.walkers = self.engine._walkers
