"""What became of connections, told from the tables of now."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from calico_debug.explain.engine import Engine
from calico_debug.switch.connections import STATUSES, fates, linux_connections
from calico_debug.switch.model import RecordedConnection
from calico_debug.switch.record import describe
from tests.evidence.memory import MemorySource
from tests.explain.world import Node, World, objects
from tests.switch.ebpf_node import entry, linux, source

SERVER = ("10.244.2.1", 80)


def before(sport: int, node: str = "n1") -> RecordedConnection:
    return RecordedConnection(6, ("10.244.1.1", sport), SERVER, SERVER, (node,), "established")


def statuses(engine: Engine, *connections: RecordedConnection) -> list[str]:
    after = {node.name: node for node in describe(engine)}
    return [one.status for one in fates(connections, after, engine, None)]


def test_on_ebpf_nodes() -> None:
    text = linux(1001) + linux(1004).replace("tcp 6 100 ESTABLISHED", "udp 17 100")
    engine = Engine(source(text, entry(1000)))
    udp = replace(before(1004), protocol=17)
    found = statuses(engine, before(1000), before(1001), udp, before(1002), before(1003, "n9"))
    assert found == ["tracked", "linux-only", "asked-anew", "absent", "unknown"]
    assert set(found) == set(STATUSES)


def test_on_nodes_with_rules() -> None:
    world = World(Node(1, conntrack=linux(1000)), Node(2))
    assert statuses(world.engine, before(1000), before(1001)) == ["tracked", "absent"]


def test_tables_that_cannot_be_read() -> None:
    node = Node(1, files={"conntrack.txt": None})
    engine = Engine(MemorySource(objects([node]), {"n1": node.evidence()}))
    assert statuses(engine, before(1000)) == ["unknown"]


def test_linuxs_own_table_has_both_ends_of_a_translation() -> None:
    text = linux(1000).replace("dst=10.244.2.1 sport=1000 dport=80", "dst=10.96.0.9 sport=1000 dport=8080", 1)
    world = World(Node(1, conntrack=text))
    client = ("10.244.1.1", 1000)
    assert linux_connections(world.engine.states["n1"]) == {
        (6, client, ("10.96.0.9", 8080)),
        (6, client, SERVER),
    }
    assert Counter(linux_connections(World(Node(1)).engine.states["n1"])) == Counter()
