"""Probes in network namespaces: what is sent, from where, and what is made of the answers."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import namespace_files
from calico_debug.agent.gather import Post
from calico_debug.agent.instruments import KernelInstruments
from calico_debug.agent.probe import namespace_behind, probe
from calico_debug.agent.probe_packets import MARK_ID, PAYLOAD
from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.phrases import AT_CONNECT
from calico_debug.model.explanation import BackendOutcome, Decision, NewConnection, Step
from calico_debug.model.observation import FlowTuple, ProbeReport, Wanted
from calico_debug.walk.bpf_services import CONNECT_FAILS
from tests.explain.observations import DENIED
from tests.lab import namespaces
from tests.lab.demo import RECORDING
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.model import Pod

kernel = pytest.mark.kernel
PORT = 5353


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as built:  # without rules: everything is let through
        yield built


def pod(lab: Lab, name: str) -> Pod:
    return next(pod for pod in lab.topology.pods if pod.name == name)


def flow(lab: Lab, protocol: int, port: int | None, version: int = 4) -> FlowTuple:
    ends = [ip_address(pod(lab, name).address(version)) for name in ("cli1", "web1")]
    return FlowTuple(protocol, ends[0], ends[1], None, port)


@contextmanager
def udp_server(lab: Lab) -> Iterator[list[bytes]]:
    """Answers datagrams to PORT of web1; the packets with their IP headers."""
    seen: list[bytes] = []
    with namespaces.entered(lab.namespace("red/web1")):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
    server.bind(("0.0.0.0", PORT))  # noqa: S104
    for each in (server, raw):
        each.settimeout(10)

    def serve() -> None:
        data, peer = server.recvfrom(2048)
        seen.append(raw.recv(2048))
        server.sendto(data, peer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        thread.join()
        server.close()
        raw.close()


@kernel
def test_a_udp_answer_and_the_marks_of_a_probe(lab: Lab) -> None:
    with udp_server(lab) as seen, namespaces.entered(lab.namespace("node1")):
        report = probe(flow(lab, 17, PORT), pod(lab, "cli1").interface, "cli1")
    assert (report.sent, report.answers, report.error) == (1, ("udp answer",), "")
    assert report.answered_by == lab.topology.address("red/web1")
    (packet,) = seen
    assert int.from_bytes(packet[4:6]) == MARK_ID
    assert int.from_bytes(packet[20:22]) == report.ends.source_port
    assert packet[28:].startswith(PAYLOAD)


@kernel
@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_that_opens_is_reset(lab: Lab, version: int) -> None:
    with namespaces.entered(lab.namespace("red/web1")):
        server = socket.create_server(
            ("::" if version == 6 else "", PORT), family=socket.AF_INET6 if version == 6 else socket.AF_INET
        )
    with server:
        server.settimeout(5)
        with namespaces.entered(lab.namespace("node1")):
            report = probe(flow(lab, 6, PORT, version), pod(lab, "cli1").interface, "cli1")
        assert (report.sent, report.answers) == (1, ("syn-ack",))
        # Never established: the reset came instead of the third step of the handshake.
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()
        with namespaces.entered(lab.namespace("red/web1")):
            assert "SYN-RECV" not in namespaces.run(lab.namespace("red/web1"), ["ss", "-tan"])


@kernel
def test_nothing_listens(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        tcp = probe(flow(lab, 6, 1), pod(lab, "cli1").interface, "cli1")
        udp = probe(flow(lab, 17, 1, 6), pod(lab, "cli1").interface, "cli1")
    assert tcp.answers == ("reset",)
    assert udp.answers == ("icmp type 1 code 4",)


@kernel
def test_a_source_port_that_is_given_and_one_that_is_taken(lab: Lab) -> None:
    wanted = replace(flow(lab, 6, 1), source_port=33333)
    interface = pod(lab, "cli1").interface
    with namespaces.entered(lab.namespace("node1")):
        assert probe(wanted, interface, "cli1").ends.source_port == 33333
        with namespaces.entered(lab.namespace("red/cli1")):
            holder = socket.create_server(("", 33333))
        with holder:
            refused = probe(wanted, interface, "cli1")
    assert (refused.sent, refused.error) == (0, "Address already in use (cli1)")


@kernel
def test_an_address_that_is_not_the_pod_s(lab: Lab) -> None:
    wrong = replace(flow(lab, 6, 1), source=ip_address("10.1.1.1"))
    with namespaces.entered(lab.namespace("node1")):
        report = probe(wrong, pod(lab, "cli1").interface, "cli1")
    assert (report.sent, report.error) == (0, "Cannot assign requested address (cli1)")


@kernel
def test_the_namespace_behind_an_interface(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        for name in ("cli1", "web1"):
            descriptor = namespace_behind(pod(lab, name).interface)
            try:
                expected = (namespaces.NETNS_DIRECTORY / lab.namespace(f"red/{name}")).stat()
                assert os.fstat(descriptor).st_ino == expected.st_ino
            finally:
                os.close(descriptor)
        for wrong in ("lo", "cali-none"):
            with pytest.raises(EvidenceError):
                namespace_behind(wrong)


@kernel
def test_names_without_a_namespace_are_passed_over(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What is left of a namespace that was deleted while its directory was read: a plain file."""
    (tmp_path / "gone").touch()
    monkeypatch.setattr(namespace_files, "NAMED", (tmp_path, namespaces.NETNS_DIRECTORY))
    monkeypatch.setattr(namespace_files, "PROCESSES", tmp_path)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    with namespaces.entered(lab.namespace("node1")):
        os.close(namespace_behind(pod(lab, "cli1").interface))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


@kernel
def test_a_namespace_that_nobody_shows(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(namespace_files, "NAMED", (tmp_path,))
    monkeypatch.setattr(namespace_files, "PROCESSES", tmp_path)
    with namespaces.entered(lab.namespace("node1")):
        report = probe(flow(lab, 6, 1), pod(lab, "cli1").interface, "cli1")
    assert "hostPID: true" in report.error


@pytest.mark.parametrize(("protocol", "port", "said"), [(132, 80, "only TCP, UDP"), (6, None, "has no port")])
def test_what_no_probe_can_be_made_of(protocol: int, port: int | None, said: str) -> None:
    ends = FlowTuple(protocol, ip_address("10.0.0.1"), ip_address("10.0.0.2"), None, port)
    report = probe(ends, "", "node1")
    assert (report.sent, said in report.error) == (0, True)


def test_a_probe_goes_where_a_process_connects_to() -> None:
    sent: list[FlowTuple] = []

    class Noting(KernelInstruments):
        def probe(self, flow: FlowTuple, interface: str, words: str) -> ProbeReport:
            assert interface
            sent.append(flow)
            return ProbeReport(1, words, flow)

    node = open_bundle(str(RECORDING)).node("node1")
    step = Step("node1", "service", "translated", f"svc 10.96.0.9:80 -> 10.244.2.9:8080, {AT_CONNECT}")
    source = replace(DENIED.source, node="node1", interface="cali1")
    one = replace(DENIED, source=source, steps=(step,), backends=(BackendOutcome("10.244.2.9", 8080, "allowed"),))
    two = replace(one, backends=(*one.backends, BackendOutcome("10.244.2.10", 8080, "allowed")))
    by_packet = replace(one, steps=(replace(step, detail="svc 10.96.0.9:80 -> 10.244.2.9:8080"),))
    reports = [
        Post(node, explanation, Wanted(probe=True), lambda *_: "", Noting()).probe()
        for explanation in (one, two, by_packet)
    ]
    asked = (str(DENIED.destination.ip), DENIED.destination.port)
    assert [(str(flow.destination), flow.destination_port) for flow in sent] == [("10.244.2.9", 8080), asked]
    assert [report.sent for report in reports] == [1, 0, 1]
    assert "may be any: ask for one by its address" in reports[1].error


def test_who_is_refused_as_it_connects_sends_nothing() -> None:
    node = open_bundle(str(RECORDING)).node("node1")
    refused = Decision("node1", "ebpf", "no-endpoints", detail=f"no endpoints: {CONNECT_FAILS} (not permitted)")
    here = replace(DENIED, decision=refused, source=replace(DENIED.source, node="node1"))
    report = Post(node, here, Wanted(probe=True), lambda *_: "", KernelInstruments()).probe()
    assert (report.sent, "refused as it connects" in report.error) == (0, True)


def test_connections_that_exist_are_not_probed() -> None:
    node = open_bundle(str(RECORDING)).node("node1")
    existing = replace(DENIED, new_connection=NewConnection("denied", None))
    here = replace(existing, source=replace(existing.source, node="node1"))
    report = Post(node, here, Wanted(probe=True), lambda *_: "", KernelInstruments()).probe()
    assert (report.sent, "would break it" in report.error) == (0, True)
