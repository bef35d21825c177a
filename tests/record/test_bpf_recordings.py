"""A node that is asked map by map, and the bundle written of it, explain the same: nothing that is needed is left out.

The recorded cluster plays the live nodes: its dumps answer as maps, and are not listed as files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import pytest

from calico_debug.cli.render.json import render_line
from calico_debug.errors import MissingEvidence
from calico_debug.evidence.bpf import KernelMaps, LiveMaps
from calico_debug.evidence.bundle import Bundle
from calico_debug.evidence.source import NetlinkDump, NodeEvidence
from calico_debug.explain.engine import Engine
from calico_debug.explain.listing.node import NodeListings
from calico_debug.record.manifest import timestamp
from calico_debug.record.recorder import Recorder
from calico_debug.state.bpf_recorded import RecordedMaps
from calico_debug.state.resolve import Resolver
from tests.record.worlds import NOW, MemorySink, every_listing, quiet_world
from tests.recordings import DATA, Recording, recordings
from tests.redact.worlds import MemoryFiles

DUMPED = re.compile(r"bpf/(map-(?!show)|rodata-|xlated-).*")
XLATED = re.compile(r"bpf/xlated-(\d+)\.json")
DEBUG_FILES = re.compile(r"var-run-calico-bpf/.*")
RECORDINGS = recordings("-bpf")
FLOWS = 60


class AskedNode:
    """A recorded node as a live one offers itself."""

    nftables: NetlinkDump | None = None

    def __init__(self, recorded: NodeEvidence, hidden: str) -> None:
        self._recorded = recorded
        self._hidden = re.compile(hidden)
        self.name, self.taken_at = recorded.name, timestamp(NOW)

    @property
    def origin(self) -> str:
        return f"here, nodes/{self.name}"

    @cached_property
    def kernel_maps(self) -> KernelMaps:
        return RecordedMaps(self._recorded)

    def files(self) -> Sequence[str]:
        return [file for file in self._recorded.files() if not DUMPED.match(file) and not self._hidden.match(file)]

    def read(self, file: str) -> bytes:
        if match := XLATED.fullmatch(file):
            found = [name for name in self._recorded.files() if name.startswith(f"bpf/xlated-{match[1]}-")]
            if not found:
                raise MissingEvidence(f"program {match[1]} is not there")
            return self._recorded.read(found[0])
        if DUMPED.match(file) or self._hidden.match(file):
            raise MissingEvidence(f"{file} is not there")
        return self._recorded.read(file)


class AskedCluster:
    origin = "here"

    def __init__(self, recording: Recording, hidden: str) -> None:
        self._source = recording.source
        self._nodes = {name: AskedNode(self._source.node(name), hidden) for name in self._source.nodes()}

    def nodes(self) -> Sequence[str]:
        return tuple(self._nodes)

    def node(self, name: str) -> NodeEvidence:
        return self._nodes[name]

    def cluster_files(self) -> Sequence[str]:
        return self._source.cluster_files()

    def read_cluster(self, file: str) -> bytes:
        return self._source.read_cluster(file)


def written(source: AskedCluster) -> Bundle:
    sink = MemorySink()
    Recorder(source, sink, quiet_world(), "calico-debug test").record(source.nodes())
    return Bundle("here", MemoryFiles(sink.files))


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
@pytest.mark.parametrize("hidden", ["nothing", DEBUG_FILES.pattern], ids=["with debug files", "without"])
def test_the_same_is_explained(recording: Recording, hidden: str) -> None:
    live = AskedCluster(recording, hidden)
    assert all(isinstance(live.node(name), LiveMaps) for name in live.nodes())
    engines = Engine(live), Engine(written(live))
    resolvers = [Resolver(engine.cluster, engine.states) for engine in engines]
    asked = list(
        dict.fromkeys(
            (probe["src_ip"], str(probe["dst_ip"]), probe["dport"], probe["proto"])
            for probe in recording.json("probes.json")
        )
    )[:FLOWS]
    assert asked
    for source, destination, port, protocol in asked:
        target = f"[{destination}]:{port}" if ":" in destination and port else destination
        target = f"{destination}:{port}" if ":" not in destination and port else target
        kind = "icmpv6" if ":" in destination and protocol == "icmp" else protocol
        first, second = (
            render_line(engine.explain(resolver.resolve(source, target, protocol=kind)))
            for engine, resolver in zip(engines, resolvers, strict=True)
        )
        assert second == first


@pytest.mark.parametrize("recording", [r for r in RECORDINGS if r.path.parent == DATA], ids=lambda r: r.name)
def test_the_same_is_listed(recording: Recording) -> None:
    live = AskedCluster(recording, "nothing")
    bundle = written(live)
    for name in live.nodes():
        before, after = (every_listing(NodeListings(source, name)) for source in (live, bundle))
        assert before["conntrack"]
        assert after == before
