"""Packets of a cluster as the kernel shows them: each way of dying, translation, tunnels, limits, losses."""

from __future__ import annotations

import os
import socket
import struct
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import bpf_library
from calico_debug.agent.packets.observer import MOST_ENDS, Limits, PacketObserver, reasons, symbols
from calico_debug.decode.packet_events import BURST_SECONDS, SECOND
from calico_debug.explain.packet_story import Places, Story
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.packet_event import DROPPED, Ends, PacketEvent, everything_of
from calico_debug.policy.marks import mark_words
from tests.agent.packets.conftest import end_unread
from tests.lab import namespaces
from tests.lab.topology import OUTSIDE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from calico_debug.model.explanation import Witness
    from tests.lab.lab import Lab
    from tests.lab.traffic import Flow, Outcome

pytestmark = pytest.mark.kernel

OTHER_TABLE = """
add table ip admin
add chain ip admin forward { type filter hook forward priority 10; }
add rule ip admin forward tcp dport 443 counter drop
"""
SERVICE = "10.96.9.9"
TRANSLATION = f"""
add table ip translation
add chain ip translation prerouting {{{{ type nat hook prerouting priority -101; }}}}
add rule ip translation prerouting ip daddr {SERVICE} dnat to {{backend}}
"""
MTU_DISCOVER, ALWAYS = 10, 2
"""IP_MTU_DISCOVER, IP_PMTUDISC_DO (include/uapi/linux/in.h)."""
SHORT = Limits(seconds=0.3)


@dataclass
class Seen:
    """What an observer told."""

    observer: PacketObserver
    places: Places
    events: list[PacketEvent]

    @property
    def story(self) -> Story:
        story = Story(self.places)
        for event in self.events:
            story.add(event)
        return story

    @property
    def witness(self) -> Witness:
        return self.story.witness("")

    @property
    def drops(self) -> list[tuple[str, str]]:
        return [(event.interface, event.reason) for event in self.events if event.kind == DROPPED]


@contextmanager
def observing(
    lab: Lab, node: str, ends: list[Ends] | None, limits: Limits = SHORT, data: int = 0
) -> Iterator[PacketObserver]:
    with namespaces.entered(lab.namespace(node)):
        observer = PacketObserver(ends, limits, data=data).__enter__()
    try:
        yield observer
    finally:
        observer.close()


def told(observer: PacketObserver) -> Seen:
    events = [*observer.events(), *observer.finish()]
    found = observer.namespaces
    assert found is not None
    pods = {inode: f"pod behind {name}" for name, inode in found.behind.items()}
    return Seen(observer, Places("node1", found.home, pods, found.behind), events)


def watch(lab: Lab, node: str, ends: list[Ends] | None, send: Callable[[], object], limits: Limits = SHORT) -> Seen:
    with observing(lab, node, ends, limits) as observer:
        send()
        return told(observer)


def ends(lab: Lab, flow: Flow) -> list[Ends]:
    source = flow.source_address or lab.topology.address(flow.source, flow.version)
    number = PROTOCOL_NUMBERS[flow.protocol]
    return [Ends(number, ip_address(source), ip_address(flow.destination), 0, flow.port or 0)]


def watch_flow(lab: Lab, flow: Flow, node: str = "node1") -> Seen:
    return watch(lab, node, ends(lab, flow), lambda: lab.send(flow))


def interface(lab: Lab, place: str) -> str:
    return next(pod.interface for pod in lab.topology.pods if pod.place == place)


@pytest.mark.parametrize("version", [4, 6])
def test_the_whole_way_of_a_packet_that_is_delivered(lab: Lab, version: int) -> None:
    seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "tcp", 80, version))
    source, target = interface(lab, "red/web1"), interface(lab, "blue/db1")
    home = seen.places.home
    first = [e for e in seen.events if e.packet == seen.events[0].packet]
    assert [(e.kind, e.interface, e.namespace == home) for e in first] == [
        ("sent", "eth0", False),
        ("received", source, True),
        ("sent", target, True),
        ("received", "eth0", False),
    ]
    assert first[0].flags == 0x02
    assert not first[0].reply
    assert all(one.time <= other.time for one, other in pairwise(first))
    answers = [e for e in seen.events if e.reply]
    assert answers[0].flags == 0x12
    assert seen.witness.verdict == "allowed"
    assert f"delivered to eth0 in pod behind {target}" in seen.witness.detail
    assert seen.observer.losses.matched == len(seen.events)
    assert seen.observer.losses.lost == 0


def test_echo_requests(lab: Lab) -> None:
    seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "icmp"))
    assert {event.icmp for event in seen.events if not event.reply} == {(8, 0)}
    assert {event.icmp for event in seen.events if event.reply} == {(0, 0)}
    assert seen.witness.verdict == "allowed"


def test_dropped_by_policy(lab: Lab) -> None:
    seen = watch_flow(lab, lab.flow("blue/db1", "red/web1", "udp", 53))
    assert seen.drops == [(interface(lab, "blue/db1"), "NETFILTER_DROP")]
    assert seen.witness.verdict == "denied"
    assert "a rule of nftables or iptables" in seen.witness.detail
    assert seen.events[-1].place.startswith("n")  # nft_do_chain or nf_hook_slow, as the compiler inlines


def test_refused_for_want_of_endpoints(lab: Lab) -> None:
    seen = watch_flow(lab, lab.flow("blue/db1", "10.96.1.3", "tcp", 80))
    assert seen.drops == [(interface(lab, "blue/db1"), "NETFILTER_DROP")]
    assert next(e.icmp for e in seen.events if e.about) == (3, 3)
    assert seen.witness.verdict == "rejected"


@pytest.fixture
def other_table(lab: Lab) -> Iterator[None]:
    namespaces.nft(lab.namespace("node1"), OTHER_TABLE)
    yield
    namespaces.nft(lab.namespace("node1"), "delete table ip admin")


@pytest.mark.usefixtures("other_table")
def test_dropped_by_another_table(lab: Lab) -> None:
    seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "tcp", 443))
    assert seen.drops == [(interface(lab, "red/web1"), "NETFILTER_DROP")]
    assert seen.witness.verdict == "denied"
    assert seen.events[-1].mark & 0x10000  # Calico had accepted it


@pytest.mark.parametrize("kind", ["unreachable", "blackhole"])
def test_no_route(lab: Lab, kind: str) -> None:
    """The kernel limits how often it says that there is no way, so what the sender got is what is to be seen."""
    node = lab.namespace("node1")
    namespaces.ip(node, [f"route add {kind} 198.51.100.0/24"])
    outcomes: list[Outcome] = []
    flow = lab.flow("red/web1", "198.51.100.9", "tcp", 80)
    try:
        seen = watch(lab, "node1", ends(lab, flow), lambda: outcomes.append(lab.send(flow)))
    finally:
        namespaces.ip(node, [f"route del {kind} 198.51.100.0/24"])
    assert [where for where, _ in seen.drops] == [interface(lab, "red/web1")]
    assert "no route there" in seen.witness.detail
    assert seen.witness.verdict == outcomes[0].verdict
    errors = [e.icmp for e in seen.events if e.about and e.kind == "sent"]
    assert errors == ([(3, 1)] if outcomes[0].verdict == "rejected" else [])


def test_calicos_own_reverse_path_check(lab: Lab) -> None:
    namespaces.ip(lab.namespace("red/cli1"), ["addr add 10.9.9.9/32 dev lo"])
    flow = replace(lab.flow("red/cli1", "red/web1", "tcp", 80), source_address="10.9.9.9")
    try:
        seen = watch_flow(lab, flow)
    finally:
        namespaces.ip(lab.namespace("red/cli1"), ["addr del 10.9.9.9/32 dev lo"])
    assert seen.drops == [(interface(lab, "red/cli1"), "NETFILTER_DROP")]
    assert seen.witness.verdict == "denied"


def test_the_kernels_reverse_path_filter(lab: Lab) -> None:
    spoofed = lab.topology.address("red/cli1", 4)
    namespaces.ip(lab.namespace(OUTSIDE), [f"addr add {spoofed}/32 dev lo"])
    namespaces.sysctl(lab.namespace("node1"), {"net/ipv4/conf/eth0/rp_filter": "1"})
    flow = replace(lab.flow(OUTSIDE, "red/web1", "tcp", 80), source_address=spoofed)
    try:
        seen = watch_flow(lab, flow)
    finally:
        namespaces.sysctl(lab.namespace("node1"), {"net/ipv4/conf/eth0/rp_filter": "0"})
        namespaces.ip(lab.namespace(OUTSIDE), [f"addr del {spoofed}/32 dev lo"])
    assert seen.drops == [("eth0", "IP_RPFILTER")]
    assert seen.witness.verdict == "denied"


def test_larger_than_the_mtu(lab: Lab) -> None:
    target = interface(lab, "blue/db1")
    own, other = (ip_address(lab.topology.address(place, 4)) for place in ("red/web1", "blue/db1"))

    def send() -> None:
        with namespaces.entered(lab.namespace("red/web1")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.IPPROTO_IP, MTU_DISCOVER, ALWAYS)
            client.sendto(bytes(1400), (str(other), 53))

    namespaces.ip(lab.namespace("node1"), [f"link set {target} mtu 1300"])
    try:
        seen = watch(lab, "node1", [Ends(17, own, other, 0, 53)], send)
    finally:
        namespaces.ip(lab.namespace("node1"), [f"link set {target} mtu 1500"])
    assert seen.drops == [(interface(lab, "red/web1"), "PKT_TOO_BIG")]
    assert (3, 4) in {e.icmp for e in seen.events if e.about}
    assert seen.witness.verdict == "rejected"


def test_nothing_listens(lab: Lab) -> None:
    seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "tcp", 4444))
    assert ("eth0", "NO_SOCKET") in seen.drops
    assert seen.witness.verdict == "allowed"
    assert "refused by 10.244.1.14: TCP reset" in seen.witness.detail


def test_nothing_is_seen_of_other_flows(lab: Lab) -> None:
    asked = lab.flow("red/web1", "blue/db1", "tcp", 80)
    other = lab.flow("red/web1", "blue/db1", "tcp", 8080)
    seen = watch(lab, "node1", ends(lab, asked), lambda: lab.send(other))
    assert seen.events == []
    assert (seen.witness.verdict, seen.witness.detail) == ("undetermined", "no packet of the flow was seen")


def test_a_source_port_narrows_the_flow(lab: Lab) -> None:
    flow = lab.flow("red/web1", "blue/db1", "tcp", 80)
    (one,) = ends(lab, flow)
    narrow = [replace(one, source_port=23456)]
    assert watch(lab, "node1", narrow, lambda: lab.send(flow)).events == []
    seen = watch(lab, "node1", narrow, lambda: lab.send(replace(flow, source_port=23456)))
    assert seen.witness.verdict == "allowed"
    assert {23456} == {e.ends.destination_port if e.reply else e.ends.source_port for e in seen.events}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("shape", ["full", "destination port", "source port", "any port", "all of one", "all of other"])
def test_every_shape_of_a_filter_finds_the_flow(lab: Lab, shape: str, protocol: str, version: int) -> None:
    """The program tells other flows by a table of bits first: what is looked for must always pass there."""
    flow = replace(lab.flow("red/web1", "blue/db1", protocol, 80, version), source_port=23456)
    (asked,) = ends(lab, flow)
    wanted = {
        "full": replace(asked, source_port=23456),
        "destination port": asked,
        "source port": replace(asked, source_port=23456, destination_port=0),
        "any port": replace(asked, destination_port=0),
        "all of one": everything_of(asked.source),
        "all of other": everything_of(asked.destination),
    }[shape]
    seen = watch(lab, "node1", [wanted], lambda: lab.send(flow))
    ours = [e for e in seen.events if 23456 in (e.ends.source_port, e.ends.destination_port)]
    assert [(e.kind, e.reply) for e in ours[:4]] == [(kind, False) for kind in ("sent", "received", "sent", "received")]
    assert protocol == "udp" or shape.startswith("all of") or any(e.reply for e in ours)


def test_a_flow_is_limited_in_the_kernel_and_counted(lab: Lab) -> None:
    flow = lab.flow("red/web1", "blue/db1", "udp", 80)
    target = flow.destination

    def send() -> None:
        with namespaces.entered(lab.namespace("red/web1")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            for _ in range(300):
                client.sendto(b"x", (target, 80))

    seen = watch(lab, "node1", ends(lab, flow), send, Limits(seconds=0.5, rate=10))
    losses = seen.observer.losses
    assert losses.limited > 0
    assert losses.matched == len(seen.events) + losses.lost
    whole = watch(lab, "node1", ends(lab, flow), send, Limits(seconds=0.5, rate=0, packets=10_000))
    assert whole.observer.losses.lost == 0
    assert len({e.packet for e in whole.events if not e.reply}) == 300


def test_the_limit_is_a_burst_and_then_a_rate(lab: Lab) -> None:
    """What may be told at once is used up in an instant, and time brings more."""
    flow = lab.flow("red/web1", "blue/db1", "udp", 80)
    rate, seconds = 100, 0.6
    with namespaces.entered(lab.namespace("red/web1")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def send() -> None:
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            client.sendto(b"x", (flow.destination, 80))

    with client:
        seen = watch(lab, "node1", ends(lab, flow), send, Limits(seconds=0.5, rate=rate, packets=100_000))
    sent = [event.time for event in seen.events if event.kind == "sent"]
    assert seen.observer.losses.matched == len(seen.events) + seen.observer.losses.limited
    passed = (max(sent) - min(sent)) / SECOND
    cpus = bpf_library.possible_cpus()
    assert passed > seconds / 2
    assert BURST_SECONDS * rate < len(sent) <= cpus * (rate * (BURST_SECONDS + passed) + 1)


@pytest.mark.parametrize("way", ["IPv4", "IPv6", "translated"])
@pytest.mark.parametrize("shape", ["destination port", "source port", "any port", "all of one"])
def test_what_is_only_counted_is_counted_as_exactly_as_what_is_told(lab: Lab, shape: str, way: str) -> None:
    """One observer tells all and another nearly nothing: of packets among others that differ in one thing only, also
    behind a translation that is not known beforehand, and when more is looked for later.
    """
    chance = Random(f"{shape} {way}")
    version = 6 if way == "IPv6" else 4
    server, other, *clients = (
        lab.topology.address(place, version) for place in ("blue/db1", "blue/web2", "red/web1", "red/cli1")
    )
    target = SERVICE if way == "translated" else server
    flow = Ends(17, ip_address(clients[0]), ip_address(target), 0, 53)
    wanted = {
        "destination port": flow,
        "source port": replace(flow, source_port=23456, destination_port=0),
        "any port": replace(flow, destination_port=0),
        "all of one": everything_of(flow.source),
    }[shape]
    later = Ends(17, ip_address(clients[1]), flow.destination, 0, 53)
    limits = Limits(seconds=0.2, rate=0, packets=100_000)
    with ExitStack() as stack:
        if way == "translated":
            stack.enter_context(translating(lab, "node1", server))
        senders = [
            stack.enter_context(sender(lab, place, address, port))
            for place, address in zip(("red/web1", "red/cli1"), clients, strict=True)
            for port in (23456, 23457)
        ]

        def send() -> None:
            for _ in range(300):
                port = chance.choice([53, 53, 53, 54, 23456])
                chance.choice(senders).sendto(b"x" * chance.choice([0, 1, 400]), (chance.choice([target, other]), port))

        teller = stack.enter_context(observing(lab, "node1", [wanted], limits))
        counter = stack.enter_context(observing(lab, "node1", [wanted], replace(limits, rate=1)))
        send()
        for observer in (teller, counter):
            observer.add([later])
        send()
        whole, some = told(teller), told(counter)
    assert whole.observer.losses.lost == 0
    assert {e.flow for e in whole.events} == ({None} if shape == "all of one" else {0, 1})
    assert any(e.followed for e in whole.events) == (way == "translated")
    assert some.observer.losses.matched == len(whole.events) > 300
    assert some.observer.losses.limited == len(whole.events) - len(some.events)
    assert len(some.events) < len(whole.events) / 4
    assert {event_facts(e) for e in some.events} <= {event_facts(e) for e in whole.events}


@contextmanager
def translating(lab: Lab, node: str, backend: str) -> Iterator[None]:
    name = lab.namespace(node)
    namespaces.nft(name, TRANSLATION.format(backend=backend))
    try:
        yield
    finally:
        namespaces.nft(name, "delete table ip translation")


def sender(lab: Lab, place: str, address: str, port: int) -> socket.socket:
    with namespaces.entered(lab.namespace(place)):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def event_facts(event: PacketEvent) -> PacketEvent:
    """An event without its time, at which two observers never look at once."""
    return replace(event, time=0)


def test_translation_that_is_not_known_beforehand_is_followed(lab: Lab) -> None:
    """Only the ends of the pod's side are looked for: behind the service's translation the packet is still the same."""
    flow = lab.flow("red/cli1", "10.96.1.1", "tcp", 80)
    seen = watch_flow(lab, flow)
    leaving = next(
        e for e in seen.events if e.kind == "sent" and e.interface == "eth0" and e.namespace == seen.places.home
    )
    assert (str(leaving.ends.destination), leaving.followed) == ("10.244.2.13", True)
    assert {e.packet for e in seen.events if not e.reply and not e.followed} >= {leaving.packet}


def test_inside_of_a_tunnel(tunnelled: Lab) -> None:
    flow = tunnelled.flow("red/cli1", "blue/web2", "tcp", 80)
    seen = watch_flow(tunnelled, flow)
    first = [e for e in seen.events if e.packet == seen.events[0].packet]
    assert [(e.kind, e.interface, e.tunnelled) for e in first][-2:] == [
        ("sent", "vxlan.calico", False),
        ("sent", "eth0", True),
    ]
    assert "left node1 by eth0" in seen.witness.detail
    there = watch_flow(tunnelled, flow, "node2")
    assert (there.events[0].kind, there.events[0].interface, there.events[0].tunnelled) == ("received", "eth0", True)
    assert "delivered to" in there.witness.detail


def test_the_limit_of_packets(lab: Lab) -> None:
    seen = watch(
        lab,
        "node1",
        ends(lab, lab.flow("red/web1", "blue/db1", "icmp")),
        lambda: [lab.send(lab.flow("red/web1", "blue/db1", "icmp")) for _ in range(4)],
        Limits(seconds=5, packets=3),
    )
    assert seen.story.packets == 3
    assert seen.observer.limited_by == "packets"


def test_the_limit_of_bytes(lab: Lab) -> None:
    flow = lab.flow("red/web1", "blue/db1", "icmp")
    seen = watch(lab, "node1", ends(lab, flow), lambda: lab.send(flow), Limits(seconds=5, bytes=60))
    assert seen.observer.limited_by == "bytes"


def test_all_drops_are_limited_in_the_kernel_and_counted(lab: Lab) -> None:
    """Every packet sent is either shown or counted as over the limit."""
    number = 400
    other = lab.topology.address("red/web1", 4)

    def send() -> None:
        with namespaces.entered(lab.namespace("blue/db1")):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            for _ in range(number):
                client.sendto(b"x", (other, 53))

    seen = watch(lab, "node1", None, send, Limits(seconds=0.5, rate=10))
    losses = seen.observer.losses
    shown = [e for e in seen.events if e.interface == interface(lab, "blue/db1")]
    assert {e.reason for e in shown} == {"NETFILTER_DROP"}
    assert losses.limited > 0
    assert losses.matched == len(seen.events) + losses.lost
    assert number <= losses.matched
    assert losses.ring_full == 0


@pytest.mark.parametrize("watched", ["all drops", "drops of a pod", "a pod"])
def test_what_a_closed_socket_had_not_read_is_no_drop(lab: Lab, watched: str) -> None:
    """Where only drops are wanted; else it tells that a packet arrived, here the end of a connection."""
    address = lab.topology.address("blue/db1")
    flows = None if watched == "all drops" else [everything_of(ip_address(address))]
    with ExitStack() as stack:
        with namespaces.entered(lab.namespace("blue/db1")):
            server = stack.enter_context(socket.create_server((address, 8079)))
        with namespaces.entered(lab.namespace("node1")):
            observer = PacketObserver(flows, SHORT, drops=watched == "drops of a pod")
            stack.enter_context(observer)
        end_unread(lab, "red/web1", server)
        seen = told(observer)
    assert ("QUEUE_PURGE" in {reason for _, reason in seen.drops}) == (watched == "a pod")


def test_first_bytes_of_packets(lab: Lab) -> None:
    flow = lab.flow("red/web1", "blue/db1", "udp", 53)
    with observing(lab, "node1", ends(lab, flow), data=256) as observer:
        lab.send(flow)
        seen = told(observer)
    first = seen.events[0]
    assert first.data[0] == 0x45
    assert first.data[12:16] == first.ends.source.packed
    assert b"probe" in first.data
    assert len(first.data) == int.from_bytes(first.data[2:4], "big")


def test_two_observers_do_not_disturb_each_other(lab: Lab) -> None:
    one, two = (lab.flow("red/web1", "blue/db1", "tcp", port) for port in (80, 8080))
    with observing(lab, "node1", ends(lab, one)) as first, observing(lab, "node1", ends(lab, two)) as second:
        lab.send_all([one, two])
        seen = [told(first), told(second)]
    for port, each in zip((80, 8080), seen, strict=True):
        assert {e.ends.source_port if e.reply else e.ends.destination_port for e in each.events} == {port}
        assert each.witness.verdict == "allowed"


def test_everything_of_a_pod(lab: Lab) -> None:
    """Both ways, every protocol, and errors about its packets; nothing of anybody else."""
    web, other = (ip_address(lab.topology.address(place, 4)) for place in ("red/web1", "blue/db1"))
    flows = [
        lab.flow("red/web1", "blue/db1", "tcp", 80),
        lab.flow("blue/db1", "red/web1", "udp", 53),
        lab.flow("red/cli1", "blue/db1", "icmp"),
        lab.flow("red/web1", "10.96.1.3", "tcp", 80),
    ]
    with observing(lab, "node1", [everything_of(web)], Limits(seconds=3)) as observer:
        for flow in flows:
            lab.send(flow)
        observer.stop()
        seen = told(observer)
    assert all(web in (event.ends.source, event.ends.destination) for event in seen.events)
    assert {event.ends.protocol for event in seen.events} >= {1, 6, 17}
    assert {event.flow for event in seen.events} == {None}
    assert [e.icmp for e in seen.events if e.icmp and e.icmp[0] == 3]
    assert any(event.ends.source == other and event.kind == DROPPED for event in seen.events)


def test_drops_of_a_pod_alone(lab: Lab) -> None:
    web = ip_address(lab.topology.address("red/web1", 4))
    with namespaces.entered(lab.namespace("node1")):
        observer = PacketObserver([everything_of(web)], SHORT, drops=True).__enter__()
    try:
        lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80))
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        lab.send(lab.flow("blue/db1", "red/cli1", "udp", 53))
        seen = told(observer)
    finally:
        observer.close()
    assert (interface(lab, "blue/db1"), "NETFILTER_DROP") in seen.drops
    assert {event.kind for event in seen.events} == {DROPPED}
    assert all(web in (event.ends.source, event.ends.destination) for event in seen.events)


def test_more_to_look_for_while_watching(lab: Lab) -> None:
    web, other = (ip_address(lab.topology.address(place, 4)) for place in ("red/web1", "blue/db1"))
    flow = lab.flow("red/web1", "blue/db1", "icmp")
    with observing(lab, "node1", [], Limits(seconds=3)) as observer:
        lab.send(flow)
        assert observer.losses_so_far().matched == 0
        assert observer.add([everything_of(web), everything_of(other)]) == 0
        assert observer.add([everything_of(other)]) == 0
        lab.send(flow)
        matched = observer.losses_so_far().matched
        assert matched >= 8
        many = [everything_of(web + number) for number in range(1, MOST_ENDS + 10)]
        assert observer.add(many) == len(many) + 2 - MOST_ENDS - sum(one == everything_of(other) for one in many)
        observer.stop()
        assert len(told(observer).events) == matched
    assert observer.add([everything_of(web)]) == 0


def test_the_kernels_words() -> None:
    assert reasons()
    assert "SKB_DROP_REASON_NETFILTER_DROP" in reasons().values()
    assert symbols().name(0) == ""


SHOT = 2
"""TC_ACT_SHOT (include/uapi/linux/pkt_cls.h), which Calico's programs end with for a packet that they deny."""
SEEN_MARK = 0x01000000


REDIRECT_PEER = 155
"""bpf_redirect_peer (include/uapi/linux/bpf.h)."""


def assembled(*instructions: tuple[int, int, int, int]) -> bytes:
    """Instructions as code, registers, offset, value; and an exit."""
    return b"".join(struct.pack("=BBhi", *instruction) for instruction in (*instructions, (0x95, 0, 0, 0)))


@contextmanager
def attached(lab: Lab, place: str, hook: int, code: bytes) -> Iterator[str]:
    """A program at the host's end of a pod's interface, whose name is given."""
    where = interface(lab, place)
    library = bpf_library.library()
    program = library.bpf_prog_load(3, b"cali_tc_main", b"GPL", code, len(code) // 8, None)
    assert program >= 0
    with namespaces.entered(lab.namespace("node1")):
        link = library.bpf_link_create(program, socket.if_nametoindex(where), hook, None)
    if link < 0:
        os.close(program)
        pytest.skip("this kernel attaches nothing with tcx")
    try:
        yield where
    finally:
        os.close(link)
        os.close(program)


@pytest.mark.parametrize(("hook", "reason", "place"), [(46, "TC_INGRESS", "red/web1"), (47, "TC_EGRESS", "blue/db1")])
def test_dropped_by_an_ebpf_program(lab: Lab, hook: int, reason: str, place: str) -> None:
    """As on nodes of the eBPF dataplane: the program decides at the pod's interface, before any rule or behind them."""
    # r2 = mark, skb->mark = r2, r0 = SHOT
    code = assembled((0xB7, 2, 0, SEEN_MARK), (0x63, 0x21, 8, 0), (0xB7, 0, 0, SHOT))
    with attached(lab, place, hook, code) as where:
        seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "udp", 53))
    assert seen.drops == [(where, reason)]
    assert mark_words(seen.events[-1].mark, "ebpf", {}) == ("seen",)
    assert seen.witness.verdict == "denied"
    assert "an eBPF program at the interface" in seen.witness.detail


def test_redirected_to_the_pods_end_of_the_interface(lab: Lab) -> None:
    """No tracepoint sees such a packet arrive: that is said, and its answer is seen."""
    with namespaces.entered(lab.namespace("node1")):
        index = socket.if_nametoindex(interface(lab, "blue/db1"))
    # r0 = bpf_redirect_peer(index, 0)
    code = assembled((0xB7, 1, 0, index), (0xB7, 2, 0, 0), (0x85, 0, 0, REDIRECT_PEER))
    with attached(lab, "red/web1", 46, code) as where:
        seen = watch_flow(lab, lab.flow("red/web1", "blue/db1", "udp", 53))
    assert [(e.kind, e.interface) for e in seen.events if not e.reply] == [("sent", "eth0"), ("received", where)]
    assert seen.witness.detail.startswith(f"packet received by {where}, and then not seen any more")
    assert next(e.kind for e in seen.events if e.reply) == "sent"
