"""Sends probe packets and waits for what answers them: a short-lived process of its own, started by `agent.probe`.

It enters the network namespace that it inherits, where a whole process can. scapy, which makes and reads the packets
here, is imported nowhere else. The request is one JSON object on the standard input, the answer one on the output.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from typing import Any

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1
"""include/uapi/linux/sched.h, prctl.h."""

MARK_ID = 0xCDB6
"""IPv4 identification of probes, by which a capture tells them apart."""
MARK_LABEL = 0xCDB60
"""IPv6 flow label of probes."""
PAYLOAD = b"calico-debug probe "

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
_UNROUTABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES)
_MOST_READ = 10_000
"""Packets that are looked at while waiting."""


def main() -> int:
    """Answer the request on the standard input; always 0, an error is part of the answer."""
    # Whoever asked may be killed: then nobody is there to wait for an answer.
    _libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    request = json.loads(sys.stdin.read())
    if os.getppid() != request["parent"]:
        return 0
    try:
        if request["namespace"] is not None and _libc().setns(request["namespace"], CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"its network namespace: {os.strerror(ctypes.get_errno())}")
        answer = Prober(request).run()
    except OSError as error:
        answer = {"error": error.strerror or str(error)}
    except ImportError as error:
        answer = {"error": f"{error.name or error} is not installed: install calico-debug[agent]"}
    json.dump(answer, sys.stdout)
    return 0


class Prober:
    """One flow's probes."""

    def __init__(self, request: dict[str, Any]) -> None:
        """Reserve the source port, so that no connection of anybody has it; raises OSError, ImportError."""
        # Here because scapy looks at the namespace's interfaces when it is imported.
        from scapy.layers import inet, inet6

        self._inet, self._inet6 = inet, inet6
        self._six = request["version"] == 6
        self._protocol: int = request["protocol"]
        self._source, self._destination = request["source"], request["destination"]
        self._port: int = request["destination_port"] or 0
        self._wait: float = request["seconds"]
        self._most: int = request["probes"]
        family = socket.AF_INET6 if self._six else socket.AF_INET
        self._reserved = socket.socket(family, socket.SOCK_STREAM if self._protocol == TCP else socket.SOCK_DGRAM)
        self._reserved.bind((self._source, request["source_port"] or 0))
        self._own_port: int = self._reserved.getsockname()[1]
        self._sequence = secrets.randbits(32)
        self._token = PAYLOAD + secrets.token_hex(8).encode()
        self._sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        # Sockets of the IP layer get what comes through the rules, with translated addresses put back.
        protocols = dict.fromkeys((self._protocol, ICMPV6 if self._six else ICMP))
        self._receivers = [socket.socket(family, socket.SOCK_RAW, protocol) for protocol in protocols]
        for receiver in self._receivers:
            receiver.setblocking(False)

    def run(self) -> dict[str, Any]:
        """Send, wait, send again where nothing answers, and tell."""
        answers: list[tuple[str, str]] = []
        sent = 0
        for _ in range(self._most):
            try:
                self._send(self._packet("S", self._sequence))
            except OSError as error:
                if error.errno in _UNROUTABLE:
                    answers.append((f"not sent: {error.strerror}", self._source))
                    break
                if error.errno != errno.EPERM:  # which is what a rule at the source's own output answers
                    raise
            sent += 1
            answers.extend(self._listen(self._wait / self._most))
            if answers:
                break
        return {
            "sent": sent,
            "source_port": self._own_port if self._protocol in (TCP, UDP) else None,
            "answers": [text for text, _ in answers],
            "answered_by": answers[0][1] if answers else "",
        }

    # ------------------------------------------------------------------------------------------------------ sending

    def _packet(self, flags: str, sequence: int) -> Any:
        inet, inet6 = self._inet, self._inet6
        if self._six:
            head = inet6.IPv6(src=self._source, dst=self._destination, fl=MARK_LABEL)
        else:
            head = inet.IP(src=self._source, dst=self._destination, id=MARK_ID)
        if self._protocol == TCP:
            return head / inet.TCP(sport=self._own_port, dport=self._port, flags=flags, seq=sequence, window=1024)
        if self._protocol == UDP:
            return head / inet.UDP(sport=self._own_port, dport=self._port) / self._token
        if self._six:
            return head / inet6.ICMPv6EchoRequest(id=self._own_port, seq=1, data=self._token)
        return head / inet.ICMP(type=8, id=self._own_port, seq=1) / self._token

    def _send(self, packet: Any) -> None:
        self._sender.sendto(bytes(packet), (self._destination, 0))

    # ---------------------------------------------------------------------------------------------------- listening

    def _listen(self, seconds: float) -> list[tuple[str, str]]:
        end = time.monotonic() + seconds
        for _ in range(_MOST_READ):
            ready = select.select(self._receivers, [], [], max(0.0, end - time.monotonic()))[0]
            if not ready:
                break
            data, address = ready[0].recvfrom(65535)
            if (answer := self._answer(self._whole(data, address[0], ready[0].proto))) is not None:
                return [answer]
        return []

    def _whole(self, data: bytes, sender: str, protocol: int) -> Any:
        """The packet with its header, which the kernel leaves out for IPv6."""
        if not self._six:
            return self._inet.IP(data)
        head = self._inet6.IPv6(src=sender, dst=self._source, nh=protocol, plen=len(data))
        return self._inet6.IPv6(bytes(head) + data)

    def _answer(self, packet: Any) -> tuple[str, str] | None:
        """What a packet answers to the probe, and who; None for any other."""
        inet, inet6 = self._inet, self._inet6
        error = self._error(packet)
        if error is not None:
            return error, packet.src
        if packet.src != self._destination or packet.dst != self._source:
            return None
        if self._protocol == TCP and inet.TCP in packet:
            return self._tcp_answer(packet)
        if self._protocol == UDP and inet.UDP in packet:
            ours = (packet[inet.UDP].sport, packet[inet.UDP].dport) == (self._port, self._own_port)
            return ("udp answer", packet.src) if ours else None
        reply = inet6.ICMPv6EchoReply if self._six else inet.ICMP
        if self._protocol in (ICMP, ICMPV6) and reply in packet:
            echoed = packet[reply].id == self._own_port and (self._six or packet[reply].type == 0)
            return ("echo reply", packet.src) if echoed else None
        return None

    def _tcp_answer(self, packet: Any) -> tuple[str, str] | None:
        segment = packet[self._inet.TCP]
        if (segment.sport, segment.dport) != (self._port, self._own_port):
            return None
        if "R" in segment.flags:
            return "reset", packet.src
        if "S" in segment.flags and "A" in segment.flags and segment.ack == (self._sequence + 1) % 2**32:
            with suppress(OSError):
                # The kernel resets a connection that no socket has; where it is kept from that, this does.
                self._send(self._packet("R", segment.ack))
            return "syn-ack", packet.src
        return None

    def _error(self, packet: Any) -> str | None:
        """An ICMP error about the probe, None for any other packet."""
        inet, inet6 = self._inet, self._inet6
        errors = (inet6.ICMPv6DestUnreach, inet6.ICMPv6PacketTooBig, inet6.ICMPv6TimeExceeded)
        if self._six:
            layer, quoted = next((kind for kind in errors if kind in packet), None), inet6.IPerror6
        else:
            layer, quoted = (inet.ICMP if inet.ICMP in packet else None), inet.IPerror
        if layer is None or quoted not in packet:
            return None
        inner = packet[quoted]
        if (inner.src, inner.dst) != (self._source, self._destination):
            return None
        port = next((inner[kind].sport for kind in (inet.TCPerror, inet.UDPerror) if kind in inner), None)
        if port is not None and port != self._own_port:
            return None
        return f"icmp type {packet[layer].type} code {getattr(packet[layer], 'code', 0)}"


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


if __name__ == "__main__":
    sys.exit(main())
