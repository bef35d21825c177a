from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from calico_debug.agent.guard import Guard, GuardedSource, OutOfTime, RequestEnded, is_live
from calico_debug.evidence.bpf import LiveMaps
from calico_debug.evidence.source import PointLookups
from calico_debug.model.bpf_objects import MapInfo
from calico_debug.model.conntrack import Tuple
from tests.cli.test_agent_source import LiveNode
from tests.evidence.memory import MemoryNode, MemorySource

INFO = MapInfo(7, "cali_x", "hash", 4, 8)


class Stop(Exception):  # noqa: N818
    pass


def test_every_way_of_reading_asks_first() -> None:
    stopped = False

    def check() -> None:
        if stopped:
            raise Stop

    live = LiveNode()
    source = GuardedSource(MemorySource({"pods.json": "{}"}, {"n1": live}), check)
    node = source.node("n1")
    assert is_live(node)
    assert isinstance(node, PointLookups)
    assert isinstance(node, LiveMaps)
    dump = node.nftables
    assert dump is not None
    wanted = Tuple(6, IPv4Address(1), IPv4Address(2))
    maps = node.kernel_maps
    entries = maps.batches(INFO)
    readings = [
        source.nodes,
        lambda: source.node("n1"),
        source.cluster_files,
        lambda: source.read_cluster("pods.json"),
        node.files,
        lambda: node.read("bpf/map-show.json"),
        lambda: node.nftables,
        lambda: dump(7, 0x300, 2, b""),
        lambda: node.find_connection(wanted),
        lambda: node.read_sysctl("x"),
        lambda: maps.lookup(INFO, bytes(4)),
        lambda: next(entries),
    ]
    for read in readings:
        read()
    stopped = True
    for read in readings:
        with pytest.raises(Stop):
            read()


def test_a_node_of_files_stays_one() -> None:
    node = GuardedSource(MemorySource({}, {"n1": MemoryNode({"a": "b"})}), lambda: None).node("n1")
    assert not is_live(node)
    assert (node.name, node.nftables, node.read("a")) == ("n1", None, b"b")
    assert node.origin == "memory, nodes/n1"


def test_the_end_of_time_and_of_the_client() -> None:
    gone = False
    check = Guard(lambda: gone, 60)
    check()
    gone = True
    with pytest.raises(RequestEnded):
        check()
    with pytest.raises(OutOfTime, match="no answer within 0 s"):
        Guard(lambda: False, 0)()
