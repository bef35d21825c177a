"""The observer's own ends: limits, losses, refusals. What it sees is tested in test_gather."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import observe as module
from calico_debug.agent.observe import Observer
from calico_debug.decode.nft_trace_table import Limits
from calico_debug.errors import EvidenceError
from calico_debug.explain.observed import MOST_TUPLES
from calico_debug.model.observation import FlowTuple
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOP = ip_address("127.0.0.1")
FLOW = FlowTuple(17, LOOP, LOOP, None, 9)


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = namespaces.create(["observe"])["observe"]
    try:
        namespaces.ip(name, ["link set lo up"])
        yield name
    finally:
        namespaces.delete([name])


def send(packets: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for _ in range(packets):
            client.sendto(b"x" * 100, ("127.0.0.1", 9))


@pytest.mark.kernel
def test_a_flow_within_the_limits(namespace: str) -> None:
    with namespaces.entered(namespace), Observer([FLOW]) as observer:
        send(5)
        seen = observer.finish()
    assert (seen.lost, seen.full) == (False, False)
    # On the loopback a packet goes out, and comes in again.
    assert sorted(packet.ending for packet in seen.packets if not packet.reply) == ["delivered"] * 5 + ["sent"] * 5


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("limits", "most"), [(Limits(rate=1, burst=3), 3), (Limits(bytes=400), 4), (Limits(rate=1, burst=1), 1)]
)
def test_the_kernel_keeps_the_limits(namespace: str, limits: Limits, most: int) -> None:
    with namespaces.entered(namespace), Observer([FLOW], limits) as observer:
        send(50)
        seen = observer.finish()
    sent = [packet for packet in seen.packets if packet.ending == "sent" and not packet.reply]
    # Two rules can mark a packet, each with limits of its own.
    assert 1 <= len(sent) <= 2 * most
    assert seen.full == (len(seen.packets) >= limits.burst)


@pytest.mark.kernel
def test_it_ends_when_it_has_seen_enough(namespace: str) -> None:
    with namespaces.entered(namespace), Observer([FLOW], packets=4) as observer:
        send(20)
        observer.watch(60)
        seen = observer.finish()
    assert seen.full
    assert 4 <= len(seen.packets) <= 8


@pytest.mark.kernel
def test_as_many_flows_as_a_service_may_have(namespace: str) -> None:
    flows = [FlowTuple(17, LOOP, ip_address(f"127.0.0.{number + 2}"), None, 9) for number in range(MOST_TUPLES - 1)]
    with namespaces.entered(namespace), Observer([FLOW, *flows]) as observer:
        send(1)
        seen = observer.finish()
    assert [packet.ending for packet in seen.packets if not packet.reply] == ["sent", "delivered"]


@pytest.mark.kernel
def test_losses_are_told(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUFFER", 1)
    with namespaces.entered(namespace), Observer([FLOW]) as observer:
        send(90)
        seen = observer.finish()
    assert seen.lost


@pytest.mark.kernel
def test_a_message_that_is_not_understood_counts_as_lost(namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> None:
        raise ValueError

    monkeypatch.setattr(module, "decode_event", broken)
    with namespaces.entered(namespace), Observer([FLOW]) as observer:
        send(1)
        seen = observer.finish()
    assert (seen.lost, seen.packets) == (True, ())


@pytest.mark.kernel
def test_a_table_of_that_name_is_left_alone(namespace: str) -> None:
    with namespaces.entered(namespace):
        observer = Observer([FLOW])
        namespaces.nft(namespace, f"add table ip {observer.table}")
        with pytest.raises(EvidenceError, match="refused the table"):
            observer.__enter__()
        assert observer.table in namespaces.run(namespace, ["nft", "list", "tables"])
        namespaces.nft(namespace, f"delete table ip {observer.table}")


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EPERM, "CAP_NET_ADMIN"), (errno.EOPNOTSUPP, "Linux 5.12"), (errno.EBUSY, "refused the table")],
)
def test_refusals_say_what_to_do(code: int, said: str) -> None:
    assert said in str(module._refused(code))


def test_a_datagram_that_is_cut_off() -> None:
    header = struct.pack("=IHHII", 40, (10 << 8) | 17, 0, 0, 0)
    assert module._payloads(header + b"\0" * 24) == [b"\0" * 24]
    assert module._payloads(header + b"\0" * 20) == []
    assert module._payloads(b"\0" * 16) == []
