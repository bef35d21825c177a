"""Open connections, each once."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.explain.live_connections import LiveConnection, Tally, merged, open_connections
from tests.explain.world import Node, World
from tests.recordings import recordings

A, B, SERVICE, NODE = (ip_address(text) for text in ("10.244.1.1", "10.244.2.1", "10.96.0.9", "172.30.0.1"))


def line(state: str = "ESTABLISHED", replied: bool = True, source: str = "10.244.1.1", protocol: str = "tcp 6") -> str:
    mark = "[ASSURED]" if replied else ""
    unreplied = "" if replied else "[UNREPLIED] "
    return (
        f"{protocol} 100 {state} src={source} dst=10.244.2.1 sport=40000 dport=80 packets=3 bytes=300 {unreplied}"
        f"src=10.244.2.1 dst={source} sport=80 dport=40000 packets=2 bytes=200 {mark} delta-time=50 use=1\n"
    )


def of(conntrack: str, *names: str) -> tuple[list[LiveConnection], Tally]:
    world = World(Node(1, conntrack=conntrack), Node(2))
    tally = Tally()
    states = [world.engine.states[name] for name in names or ("n1",)]
    return list(open_connections(states, world.engine.cluster, tally)), tally


def test_an_open_connection() -> None:
    (one,), tally = of(line())
    assert one == LiveConnection(
        ("n1",), 6, (A, 40000), (B, 80), (B, 80), (A, 40000), "established", ("client side",), 5, 500, 50
    )
    assert tally == Tally(looked_at=1)


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        (line("SYN_SENT", replied=False), False),
        (line("SYN_SENT"), False),
        (line("SYN_RECV"), True),
        (line("FIN_WAIT"), True),
        (line("CLOSE_WAIT"), True),
        (line("LAST_ACK"), False),
        (line("TIME_WAIT"), False),
        (line("CLOSE"), False),
        (line("", protocol="udp 17"), True),
        (line("", replied=False, protocol="udp 17"), False),
    ],
)
def test_what_is_open(text: str, is_open: bool) -> None:
    found, tally = of(text)
    assert (len(found), tally.not_open) == ((1, 0) if is_open else (0, 1))


@pytest.mark.parametrize(("kind", "expected"), [(8, 1), (13, 0)])
def test_only_echo_requests_open_icmp(kind: int, expected: int) -> None:
    text = (
        f"icmp 1 29 src=10.244.1.1 dst=10.244.2.1 type={kind} code=0 id=7 "
        f"src=10.244.2.1 dst=10.244.1.1 type={kind - 8 if kind == 8 else 14} code=0 id=7 use=1\n"
    )
    assert len(of(text)[0]) == expected


def test_connections_of_no_pod_here() -> None:
    found, tally = of(line(source="172.30.0.1").replace("10.244.2.1", "172.30.0.9"))
    assert (found, tally.elsewhere) == ([], 1)


def test_a_node_without_calico() -> None:
    """It is said, and no obstacle to the others."""
    world = World(Node(1, conntrack=line()), Node(2, calico=False))
    tally = Tally()
    assert len(open_connections(list(world.engine.states.values()), world.engine.cluster, tally)) == 1
    assert tally.unread == {"n2": "n2 runs no dataplane of Calico; name a node that runs Calico"}
    with pytest.raises(EvidenceError, match="n2 runs no dataplane"):
        open_connections([world.engine.states["n2"]], world.engine.cluster, Tally())


def connection(
    node: str, client: object, asked: object, server: object, seen_as: object, **more: object
) -> LiveConnection:
    ends = [(one, 80) for one in (client, asked, server, seen_as)]
    return LiveConnection((node,), 6, *ends, **more)  # type: ignore[arg-type]


def test_two_nodes_one_connection() -> None:
    one = connection("n1", A, B, B, A, packets=3, bytes=1, approved_by=("client side",), age=4)
    other = connection("n2", A, B, B, A, packets=5, bytes=2, approved_by=("server side",), age=3)
    (both,) = merged([one, other])
    assert (both.nodes, both.packets, both.bytes, both.age) == (("n1", "n2"), 5, 2, 4)
    assert both.approved_by == ("client side", "server side")


def test_a_node_in_the_clients_place() -> None:
    """n1 translates the service and the client; n2 sees a connection of n1's."""
    first = connection("n1", A, SERVICE, B, NODE)
    (both,) = merged([connection("n2", NODE, B, B, NODE), first])
    assert (both.client, both.asked, both.server, both.nodes) == ((A, 80), (SERVICE, 80), (B, 80), ("n1", "n2"))


def test_connections_that_only_look_alike() -> None:
    """On one node they are two: a client that asks a service, and another process that asks the server."""
    assert len(merged([connection("n1", A, SERVICE, B, NODE), connection("n1", NODE, B, B, NODE)])) == 2
    assert len(merged([connection("n1", A, B, B, A), connection("n1", A, SERVICE, B, A)])) == 2


def test_recorded_maps() -> None:
    """Every open one was approved at one end at least, and none is between neighbours on a link."""
    for recording in recordings("-bpf"):
        from calico_debug.explain.engine import Engine

        engine = Engine(recording.source)
        tally = Tally()
        found = open_connections(list(engine.states.values()), engine.cluster, tally)
        assert found
        assert all(one.approved_by and one.idle is not None and one.packets for one in found)
        assert not any(one.client[0].is_link_local for one in found)
        assert tally.looked_at >= len(found) + tally.not_open + tally.elsewhere


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.explain.live_connections.MOST", 1)
    found, tally = of(line() + line(source="10.244.1.2"))
    assert (len(found), tally.left_out) == (1, 1)
