"""Evidence over HTTP is that of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.evidence.wire import unpack_messages
from tests.agent.serving import Agent, serving
from tests.agent.test_routes import agent, recorded
from tests.evidence.memory import MemoryNode, MemorySource

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.evidence.source import EvidenceSource


__all__ = ["agent", "recorded"]


def test_nodes_and_files_are_those_of_the_source(agent: Agent, recorded: EvidenceSource) -> None:
    assert agent.json("/v1/nodes") == {"nodes": list(recorded.nodes())}
    name = recorded.nodes()[0]
    assert agent.json(f"/v1/nodes/{name}/files") == {"files": list(recorded.node(name).files())}
    for file in ("ip-addr.json", "sysctl.txt"):
        status, headers, content = agent.ask(f"/v1/nodes/{name}/files/{file}")
        assert (status, content) == (200, recorded.node(name).read(file))
        assert headers["Content-Type"] == "application/octet-stream"
    assert agent.json("/v1/cluster") == {"files": list(recorded.cluster_files())}
    assert agent.ask("/v1/cluster/pods.json")[2] == recorded.read_cluster("pods.json")


def test_a_node_in_short(agent: Agent) -> None:
    told = agent.json("/v1/nodes/node1")
    assert (told["name"], told["dataplane"], told["live"], told["problem"]) == ("node1", "nftables", False, "")


class Netlink:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int, int, bytes]] = []

    def __call__(self, message_type: int, flags: int, family: int, attributes: bytes) -> list[bytes]:
        self.asked.append((message_type, flags, family, attributes))
        return [b"one", b"", b"three"]


def test_netlink_passes_questions_that_read_and_no_other(tmp_path: Path) -> None:
    node = MemoryNode({})
    dump = node.nftables = Netlink()
    with serving(tmp_path, MemorySource({}, {"n1": node})) as agent:
        asked = {"type": 7, "flags": 0x300, "family": 2, "attributes": "0102"}
        status, _, content = agent.ask("/v1/nodes/n1/netlink", asked)
        assert (status, unpack_messages(content)) == (200, [b"one", b"", b"three"])
        assert dump.asked == [(7, 0x300, 2, b"\x01\x02")]
        for change in ({"type": 6}, {"type": 8}, {"type": 2}, {"flags": 0x400}, {"flags": 0x200 | 0x800}):
            assert agent.ask("/v1/nodes/n1/netlink", asked | change)[0] == 400
        for change in ({"attributes": "0g"}, {"attributes": "012"}, {"family": -1}, {"type": True}, {"flags": 1.5}):
            assert agent.ask("/v1/nodes/n1/netlink", asked | change)[0] == 400
        assert len(dump.asked) == 1
