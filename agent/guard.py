"""Evidence for one request, which ends with the request: when its client went away, or its time is up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from calico_debug.evidence.bpf import KernelMaps, LiveMaps
from calico_debug.evidence.source import EvidenceSource, NetlinkDump, NodeEvidence, PointLookups
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.model.conntrack import Tuple


class RequestEnded(Exception):  # noqa: N818 - nothing failed, and nothing on the way may take it for missing evidence
    """Nobody waits for the answer any more."""


class OutOfTime(Exception):  # noqa: N818 - as above
    """The request has used up its time."""


class Guard:
    """Says whether to go on; called wherever evidence is read, which a long answer does all the time."""

    def __init__(self, gone: Callable[[], bool], seconds: float) -> None:
        """``gone`` tells that the client closed its connection; ``seconds`` are counted from now."""
        self._gone = gone
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def __call__(self) -> None:
        """Raises `RequestEnded` or `OutOfTime`."""
        if self._gone():
            raise RequestEnded
        if time.monotonic() > self._end:
            raise OutOfTime(f"no answer within {self._seconds:g} s: ask for less, or when the node is idle")


class GuardedSource:
    """Implements `EvidenceSource` over another one."""

    def __init__(self, source: EvidenceSource, check: Callable[[], None]) -> None:
        """``check`` is called before every reading."""
        self._source = source
        self._check = check

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return self._source.origin

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        self._check()
        return self._source.nodes()

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        self._check()
        node = self._source.node(name)
        return GuardedLiveNode(node, self._check) if is_live(node) else GuardedNode(node, self._check)

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        self._check()
        return self._source.cluster_files()

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        self._check()
        return self._source.read_cluster(file)


def is_live(node: NodeEvidence) -> bool:
    """Whether single questions can be put to a node's kernel, beside reading files."""
    return isinstance(node, PointLookups) and isinstance(node, LiveMaps)


class GuardedNode:
    """Implements `NodeEvidence` over another one."""

    def __init__(self, node: NodeEvidence, check: Callable[[], None]) -> None:
        """``check`` is called before every reading."""
        self._node = node
        self._check = check

    @property
    def name(self) -> str:
        """See `NodeEvidence`."""
        return self._node.name

    @property
    def origin(self) -> str:
        """See `NodeEvidence`."""
        return self._node.origin

    @property
    def taken_at(self) -> str:
        """See `NodeEvidence`."""
        return self._node.taken_at

    @property
    def nftables(self) -> NetlinkDump | None:
        """See `NodeEvidence`."""
        self._check()
        dump = self._node.nftables
        return None if dump is None else self._guarded(dump)

    def _guarded(self, dump: NetlinkDump) -> NetlinkDump:
        def ask(message_type: int, flags: int, family: int, attributes: bytes) -> Iterable[bytes]:
            self._check()
            return dump(message_type, flags, family, attributes)

        return ask

    def files(self) -> Sequence[str]:
        """See `NodeEvidence`."""
        self._check()
        return self._node.files()

    def read(self, file: str) -> bytes:
        """See `NodeEvidence`."""
        self._check()
        return self._node.read(file)


class GuardedLiveNode(GuardedNode):
    """Implements `PointLookups` and `LiveMaps` too."""

    def find_connection(self, wanted: Tuple) -> bytes:
        """See `PointLookups`."""
        self._check()
        assert isinstance(self._node, PointLookups)
        return self._node.find_connection(wanted)

    def read_sysctl(self, key: str) -> str | None:
        """See `PointLookups`."""
        self._check()
        assert isinstance(self._node, PointLookups)
        return self._node.read_sysctl(key)

    @property
    def kernel_maps(self) -> KernelMaps:
        """See `LiveMaps`."""
        assert isinstance(self._node, LiveMaps)
        return GuardedMaps(self._node.kernel_maps, self._check)


class GuardedMaps:
    """Implements `KernelMaps` over another one."""

    def __init__(self, maps: KernelMaps, check: Callable[[], None]) -> None:
        """``check`` is called before every lookup and every batch."""
        self._maps = maps
        self._check = check

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        """See `KernelMaps`."""
        self._check()
        return self._maps.lookup(info, key)

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        """See `KernelMaps`."""
        for batch in self._maps.batches(info):
            self._check()
            yield batch

    def close(self) -> None:
        """See `KernelMaps`."""
        self._maps.close()
