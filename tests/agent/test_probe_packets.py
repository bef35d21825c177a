"""Which packets answer a probe, and which only look like it. Real answers are tested in test_probe and test_gather."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from calico_debug.agent.probe_packets import MARK_ID, MARK_LABEL, Prober

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="probes are sent from raw sockets, which need root"),
]

PORT = 80
ELSEWHERE = {4: "192.0.2.9", 6: "2001:db8::9"}
LOOP = {4: "127.0.0.1", 6: "::1"}


def request(protocol: int, version: int) -> dict[str, Any]:
    ends = {"source": LOOP[version], "destination": LOOP[version], "source_port": None, "destination_port": PORT}
    return {"version": version, "protocol": protocol, "seconds": 0.1, "probes": 1, **ends}


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def scapy() -> SimpleNamespace:
    from scapy.layers import inet, inet6

    return SimpleNamespace(IP=inet.IP, IPv6=inet6.IPv6, TCP=inet.TCP, UDP=inet.UDP, ICMP=inet.ICMP)


def header(scapy: Any, version: int, source: str = "", destination: str = "") -> Any:
    kind = scapy.IP if version == 4 else scapy.IPv6
    return kind(src=source or LOOP[version], dst=destination or LOOP[version])


def parsed(packet: Any) -> Any:
    return type(packet)(bytes(packet))


def test_tcp(scapy: Any, version: int) -> None:
    prober = Prober(request(6, version))
    own, wanted = prober._own_port, (prober._sequence + 1) % 2**32

    def answer(**fields: object) -> tuple[str, str] | None:
        segment = scapy.TCP(**{"sport": PORT, "dport": own, "ack": wanted, "flags": "SA", **fields})
        return prober._answer(parsed(header(scapy, version) / segment))

    here = LOOP[version]
    assert answer() == ("syn-ack", here)
    assert answer(flags="RA") == ("reset", here)
    assert answer(flags="R") == ("reset", here)
    assert answer(flags="A") is None
    assert answer(flags="S") is None
    assert answer(ack=wanted + 1) is None
    assert answer(sport=81) is None
    assert answer(dport=own ^ 1) is None
    other = header(scapy, version, source=ELSEWHERE[version]) / scapy.TCP(sport=PORT, dport=own, flags="R")
    assert prober._answer(parsed(other)) is None


def test_udp_and_errors(scapy: Any, version: int) -> None:
    from scapy.layers.inet6 import ICMPv6DestUnreach

    prober = Prober(request(17, version))
    own = prober._own_port
    reply = header(scapy, version) / scapy.UDP(sport=PORT, dport=own) / b"x"
    assert prober._answer(parsed(reply)) == ("udp answer", LOOP[version])
    assert prober._answer(parsed(header(scapy, version) / scapy.UDP(sport=PORT, dport=own ^ 1))) is None

    def error(quoted: Any) -> tuple[str, str] | None:
        kind = scapy.ICMP(type=3, code=13) if version == 4 else ICMPv6DestUnreach(code=1)
        return prober._answer(parsed(header(scapy, version, source=ELSEWHERE[version]) / kind / quoted))

    text = "icmp type 3 code 13" if version == 4 else "icmp type 1 code 1"
    assert error(header(scapy, version) / scapy.UDP(sport=own, dport=PORT)) == (text, ELSEWHERE[version])
    assert error(header(scapy, version) / scapy.UDP(sport=own ^ 1, dport=PORT)) is None
    away = header(scapy, version, destination=ELSEWHERE[version])
    assert error(away / scapy.UDP(sport=own, dport=PORT)) is None


def test_echo(scapy: Any, version: int) -> None:
    from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest

    prober = Prober(request(1 if version == 4 else 58, version))

    def answer(number: int, kind: int = 0) -> tuple[str, str] | None:
        if version == 4:
            return prober._answer(parsed(header(scapy, 4) / scapy.ICMP(type=kind, id=number)))
        layer = ICMPv6EchoRequest if kind else ICMPv6EchoReply
        return prober._answer(parsed(header(scapy, 6) / layer(id=number)))

    assert answer(prober._own_port) == ("echo reply", LOOP[version])
    assert answer(prober._own_port ^ 1) is None
    assert answer(prober._own_port, kind=8) is None


def test_marks(version: int) -> None:
    packet = Prober(request(6, version))._packet("S", 1)
    assert (packet.id == MARK_ID) if version == 4 else (packet.fl == MARK_LABEL)


def helper(text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "calico_debug.agent.probe_packets"]
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)


def test_without_its_parent_nothing_is_sent() -> None:
    done = helper(json.dumps({"parent": 1, "namespace": None, **request(6, 4)}))
    assert (done.returncode, done.stdout) == (0, "")


def test_a_namespace_that_is_none() -> None:
    done = helper(json.dumps({"parent": os.getpid(), "namespace": 0, **request(6, 4)}))
    assert "its network namespace" in json.loads(done.stdout)["error"]
