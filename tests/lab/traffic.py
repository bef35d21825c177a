"""Real packets: a flow is sent from a place of the cluster, and what its sender got back is the outcome.

One process drives every end. Sockets are created inside the namespaces and served from one loop, so a probe costs a
few system calls, and the receiving end's view (who answered, which source address it saw) is known as well.
"""

from __future__ import annotations

import errno
import itertools
import os
import selectors
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from tests.lab import namespaces
from tests.lab.topology import OUTSIDE, OUTSIDE_V4, OUTSIDE_V6, Topology

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

SILENCE = 0.1
"""Seconds without an answer that count as silence. Every link is a veth pair: an answer takes about 1 ms."""

TURN = 0.01
MOST_TURNS = 2000
"""Silence is counted in idle turns of the loop, not on the clock: a busy machine that stops this process for longer
than `SILENCE` must not turn an answer into silence."""

SERVER_PORTS: Mapping[str, tuple[int, ...]] = {"tcp": (22, 80, 443, 8080, 9001), "udp": (53, 8053)}
"""What every pod, node and the outside client listens on, both families."""

SOURCE_PORTS = range(20_000, 30_000)
"""Below both the node ports and the kernel's ephemeral ports; each probe takes the next, so none meets an old entry."""

Verdict = Literal["allowed", "denied", "rejected", "unroutable"]

_IP_RECVERR, _IP_PKTINFO, _IPV6_RECVERR = 11, 8, 25  # include/uapi/linux/in.h, in6.h
_MSG_ERRQUEUE = 0x2000
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_ORIGINS = {1: "local", 2: "icmp", 3: "icmpv6"}  # include/uapi/linux/errqueue.h
_ECHO = {"icmp": (8, 0), "icmpv6": (128, 129)}  # type of request and reply
_NO_ROUTE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.EACCES, errno.EADDRNOTAVAIL}


@dataclass(frozen=True, slots=True)
class Flow:
    """``source`` is a place ("ns/name", a node, "external"), ``destination`` an address; no ``port`` with ICMP.

    ``source_port`` (for ICMP: the identifier) is chosen when not given. ``source_address`` picks one of several.
    """

    source: str
    destination: str
    protocol: Literal["tcp", "udp", "icmp", "icmpv6"] = "tcp"
    port: int | None = None
    source_port: int | None = None
    source_address: str | None = None

    @property
    def version(self) -> int:
        return 6 if ":" in self.destination else 4

    def __str__(self) -> str:
        port = f" port {self.port}" if self.port is not None else ""
        return f"{self.protocol} {self.source} -> {self.destination}{port}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """``denied`` is silence, ``rejected`` an active refusal (``detail``: RST or the ICMP type and code).

    ``answered_by`` is the place whose server answered, ``seen_source`` the sender as that server saw it (TCP and UDP).
    A port that nobody listens on refuses too: flows go to `SERVER_PORTS`, so that a refusal is the network's.
    """

    verdict: Verdict
    detail: str = ""
    answered_by: str | None = None
    seen_source: tuple[str, int] | None = None
    source_port: int = 0


@dataclass(slots=True)
class _Probe:
    flow: Flow
    token: bytes
    source_port: int
    socket: socket.socket | None = None
    connected: bool = False
    outcome: Outcome | None = None
    refused: bool = False

    def settle(
        self, verdict: Verdict, detail: str = "", by: str | None = None, seen: tuple[str, int] | None = None
    ) -> None:
        if self.outcome is None:
            self.outcome = Outcome(verdict, detail, by, seen, self.source_port)


@dataclass
class Traffic:
    """Servers in every place and the means to send flows. ``names`` maps places to namespaces."""

    topology: Topology
    names: Mapping[str, str]
    ports: Mapping[str, Sequence[int]] = field(default_factory=lambda: SERVER_PORTS)

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._tokens = itertools.count(1)
        self._accepted: list[socket.socket] = []
        self._source_ports = itertools.cycle(SOURCE_PORTS)
        for place in self.topology.places:
            with namespaces.entered(self.names[place]):
                self._serve(place)

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def send(self, flow: Flow, silence: float = SILENCE) -> Outcome:
        """Send one flow and wait for its outcome."""
        return self.send_all([flow], silence)[0]

    def send_all(self, flows: Iterable[Flow], silence: float = SILENCE) -> list[Outcome]:
        """Send flows at the same time; much faster than one by one when many meet silence."""
        probes = [self._start(flow) for flow in flows]
        idle = 0
        for _ in range(MOST_TURNS):
            if idle * TURN >= silence or all(probe.outcome is not None for probe in probes):
                break
            idle = 0 if self._turn(TURN) else idle + 1
        for probe in probes:
            self._finish(probe)
        self._turn(0)
        self._hang_up()
        return [probe.outcome or Outcome("denied", "silence", None, None, probe.source_port) for probe in probes]

    # ------------------------------------------------------------------------------------------------- servers

    def _serve(self, place: str) -> None:
        families = [socket.AF_INET] + ([socket.AF_INET6] if self.topology.ipv6 else [])
        for family in families:
            for port in self.ports.get("tcp", ()):
                server = self._bound(family, socket.SOCK_STREAM, port)
                server.listen(64)
                self._watch(server, partial(self._accept, place))
            for port in self.ports.get("udp", ()):
                server = self._bound(family, socket.SOCK_DGRAM, port)
                if family == socket.AF_INET:
                    server.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                else:
                    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
                self._watch(server, partial(self._echo, place))

    @staticmethod
    def _bound(family: socket.AddressFamily, kind: socket.SocketKind, port: int) -> socket.socket:
        server = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104
        return server

    def _accept(self, place: str, server: socket.socket) -> None:
        with suppress(OSError):
            connection, peer = server.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._accepted.append(connection)
            connection.send(f"{place} {peer[0]} {peer[1]}".encode())

    def _hang_up(self) -> None:
        """Reset what servers accepted: a closing handshake would be retransmitted into the next flow's counters."""
        for connection in self._accepted:
            connection.close()
        self._accepted.clear()

    def _echo(self, place: str, server: socket.socket) -> None:
        """Answer from the address that was asked: the server's place may have several."""
        with suppress(OSError):
            data, ancillary, _, peer = server.recvmsg(2048, 256)
            answer_from = [(level, kind, _answering(level, blob)) for level, kind, blob in ancillary]
            server.sendmsg([data, f" {place} {peer[0]} {peer[1]}".encode()], answer_from, 0, peer)

    # -------------------------------------------------------------------------------------------------- probes

    def _start(self, flow: Flow) -> _Probe:
        port = flow.source_port if flow.source_port is not None else next(self._source_ports)
        probe = _Probe(flow, f"probe{os.getpid()}.{next(self._tokens)}".encode(), port)
        family = socket.AF_INET6 if flow.version == 6 else socket.AF_INET
        with namespaces.entered(self.names[flow.source]):
            if flow.protocol in _ECHO:
                number = socket.IPPROTO_ICMP if flow.version == 4 else socket.IPPROTO_ICMPV6
                client = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, number)
            else:
                kind = socket.SOCK_STREAM if flow.protocol == "tcp" else socket.SOCK_DGRAM
                client = socket.socket(family, kind | socket.SOCK_NONBLOCK)
        probe.socket = client
        if flow.version == 4:
            client.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        else:
            client.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
        try:
            self._launch(probe, client)
        except OSError as error:
            if error.errno == errno.EPERM:  # dropped on the way out; a refusal's ICMP may follow
                probe.refused = True
            elif error.errno == errno.ECONNREFUSED:
                self._refused(probe, client, error.errno)
            elif error.errno in _NO_ROUTE:
                probe.settle("unroutable", error.strerror or "")
            else:
                client.close()
                raise
        self._watch(client, partial(self._listen, probe))
        return probe

    def _launch(self, probe: _Probe, client: socket.socket) -> None:
        flow = probe.flow
        own = flow.source_address or self._default_source(flow)
        if flow.protocol in _ECHO:
            if own:
                client.bind((own, 0))
            client.sendto(_echo_request(flow, probe), (flow.destination, 0))
            return
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((own, probe.source_port))
        if flow.protocol == "tcp":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            with suppress(BlockingIOError):
                client.connect((flow.destination, flow.port))
        else:
            client.connect((flow.destination, flow.port))
            client.send(probe.token)

    @staticmethod
    def _default_source(flow: Flow) -> str:
        if flow.source == OUTSIDE:
            return OUTSIDE_V4 if flow.version == 4 else OUTSIDE_V6
        return ""

    def _listen(self, probe: _Probe, client: socket.socket) -> None:
        self._heard(probe, client)
        if probe.outcome is not None:  # a closed connection stays readable: it would keep the loop from idling
            self._selector.unregister(client)

    def _heard(self, probe: _Probe, client: socket.socket) -> None:
        number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if probe.flow.protocol in _ECHO or number:
            self._refused(probe, client, number)
            if probe.outcome is not None:
                return
        try:
            data = client.recv(2048)
        except BlockingIOError:
            return
        except OSError as error:
            self._refused(probe, client, error.errno or 0)
            return
        self._answered(probe, data)

    def _refused(self, probe: _Probe, client: socket.socket, number: int) -> None:
        """An error on the socket: an ICMP message that the error queue tells about, else a RST."""
        with suppress(OSError):
            _, ancillary, _, _ = client.recvmsg(512, 512, _MSG_ERRQUEUE)
            for _level, _kind, blob in ancillary:
                _error, origin, kind, code = struct.unpack_from("IBBB", blob)
                if origin in (2, 3):
                    probe.settle("rejected", f"{_ORIGINS[origin]} type {kind} code {code}")
                    return
        if number == errno.ECONNREFUSED and probe.flow.protocol == "tcp":
            probe.settle("rejected", "RST")
        elif number == errno.ECONNRESET:
            probe.settle("rejected", "RST after the connection was made")
        elif number in _NO_ROUTE:
            probe.settle("unroutable", os.strerror(number))

    def _answered(self, probe: _Probe, data: bytes) -> None:
        if probe.flow.protocol in _ECHO:
            if probe.flow.version == 4:
                data = data[(data[0] & 15) * 4 :]
            kind, _code, _sum, identifier = struct.unpack_from("!BBHH", data)
            if kind == _ECHO[probe.flow.protocol][1] and identifier == probe.source_port:
                probe.settle("allowed", "echo reply")
            return
        words = data.decode(errors="replace").split()
        if probe.flow.protocol == "udp":
            words = words[1:]
        if len(words) == 3:
            probe.settle("allowed", "answered", words[0], (words[1].removeprefix("::ffff:"), int(words[2])))

    def _finish(self, probe: _Probe) -> None:
        if probe.socket is None:
            return
        if probe.outcome is None:
            self._heard(probe, probe.socket)
        with suppress(KeyError):
            self._selector.unregister(probe.socket)
        probe.socket.close()

    # ---------------------------------------------------------------------------------------------------- loop

    def _watch(self, client: socket.socket, handler: Callable[[socket.socket], None]) -> None:
        self._selector.register(client, selectors.EVENT_READ, handler)

    def _turn(self, timeout: float) -> bool:
        """Serve what is ready; whether there was anything."""
        ready = self._selector.select(timeout)
        for key, _ in ready:
            key.data(key.fileobj)
        return bool(ready)


def _answering(level: int, blob: bytes) -> bytes:
    """The packet information of an answer: the address that was asked becomes the source, the interface is open."""
    if level == socket.IPPROTO_IP:
        _index, local, destination = struct.unpack("=I4s4s", blob)
        return struct.pack("=I4s4s", 0, local, destination)
    return blob[:16] + struct.pack("=I", 0)


def _echo_request(flow: Flow, probe: _Probe) -> bytes:
    kind = _ECHO[flow.protocol][0]
    message = struct.pack("!BBHHH", kind, 0, 0, probe.source_port, 1) + probe.token
    if flow.version == 6:
        return message  # the kernel fills in the checksum of raw ICMPv6
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) // 2 * 2]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
