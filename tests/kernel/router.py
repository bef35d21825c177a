"""One router in a namespace, and peers that neither answer nor speak by themselves.

The peers' ends of the links are packet sockets in a namespace without addresses, and the router's own ports are
bound by sockets that discard what they get: a probe is exactly one packet, and whatever else moves a counter was
caused by it. Barriers (frames of an ethertype nobody uses) tell when the router is done with a probe, so that silence
is known without waiting: frames of one CPU's backlog are processed in order.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calico_debug.agent.netlink import NftablesSocket
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode
from tests.kernel.frames import (
    ETHERTYPES,
    ICMP,
    ICMPV6,
    TCP,
    UDP,
    Address,
    Datagram,
    packet,
    parse,
    parse_transport,
    transport,
)
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LINKS = {"eth-c": 1, "eth-s": 2, "alt0": 3}
"""The router's interfaces; number N has 10.N.0.1/24 and fd0N::1/64, and peers behind it."""
HOSTS = (2, 3, 20, 254)
"""Last bytes of the peers' addresses on every link."""
GATEWAYS = ("10.2.0.254", "fd02::fe")
PORTS = (53, 80, 443, 8080)
"""Where the router listens, in silence."""
WAIT = 2.0
"""Seconds after which a barrier is lost; it takes some ten microseconds."""

QUIET_AFTER = 0.3
"""Seconds after which the links have said what they say by themselves."""

BARRIER = 0x88B5
"""Local experimental ethertype (IEEE 802)."""
ROUTER = "router"

_SO_ATTACH_FILTER = 26
_IP_PKTINFO = 8
_ETH_P_ALL = 3
_NETLINK_NETFILTER = 12
_CTNETLINK_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_QUIET = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/all/mldv2_unsolicited_report_interval": "1",
    "net/ipv6/conf/default/mldv2_unsolicited_report_interval": "1",
    "net/ipv4/icmp_echo_ignore_all": "1",
    "net/ipv6/icmp/echo_ignore_all": "1",
    "net/ipv4/icmp_ratelimit": "0",
    "net/ipv6/icmp/ratelimit": "0",
}
_SYSCTLS = ("rp_filter", "accept_local", "src_valid_mark", "forwarding", "route_localnet")


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet that came out: at a link's peer (the link's name) or in a socket of the router itself (`ROUTER`)."""

    place: str
    datagram: Datagram


class Router:
    """The router, its peers, and the means to load rules and send probes."""

    def __init__(self) -> None:
        names = namespaces.create([ROUTER, "peers"])
        self.namespace, self._peers_namespace = names[ROUTER], names["peers"]
        self._affinity = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self._affinity)})
        self._sockets: list[socket.socket] = []
        self._settings: dict[str, str] = {}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for opened in self._sockets:
            opened.close()
        namespaces.delete([self.namespace, self._peers_namespace])
        os.sched_setaffinity(0, self._affinity)

    # ------------------------------------------------------------------------------------------------------- build

    def _build(self) -> None:
        router, peers = self.namespace, self._peers_namespace
        namespaces.sysctl(router, _QUIET)
        namespaces.sysctl(peers, {f"net/ipv6/conf/{which}/disable_ipv6": "1" for which in ("all", "default")})
        commands = ["link set lo up"]
        for link, number in LINKS.items():
            commands += [
                (
                    f"link add {link} address {_mac(0, number)} type veth "
                    f"peer name p{number} address {_mac(1, number)} netns {peers}"
                ),
                f"link set {link} addrgenmode none up",
                f"addr add 10.{number}.0.1/24 dev {link}",
                f"addr add fd0{number}::1/64 dev {link} nodad",
            ]
            for host in HOSTS:
                for address in (f"10.{number}.0.{host}", f"fd0{number}::{host:x}"):
                    commands.append(f"neigh add {address} lladdr {_mac(1, number)} dev {link} nud permanent")
        commands += ["addr add 10.2.0.100/24 dev eth-s"]
        commands += [f"route add default via {gateway}" for gateway in GATEWAYS]
        namespaces.ip(peers, ["link set lo up"])
        namespaces.ip(router, commands)
        namespaces.ip(peers, [f"link set p{number} up" for number in LINKS.values()])
        with namespaces.entered(peers):
            self._peers = {link: self._packet_socket(f"p{number}") for link, number in LINKS.items()}
        with namespaces.entered(router):
            self._taps = {link: self._packet_socket(link) for link in LINKS}
            self._raw = {(f, p): self._raw_socket(f, p) for f in (4, 6) for p in _protocols(f)}
            self._listen()
            self._nft = _libnftables()
            self.netlink = NftablesSocket()
            self._conntrack = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            self._sockets.append(self._conntrack)
        # Conntrack joins the hooks with the first rule that asks for it; this one stays, as on a node with kube-proxy.
        self.load("table inet keeper { chain c { ct state new accept; }; }")
        # Multicast listener reports come within milliseconds of the links, once each; nothing tells that none is left.
        quiet = time.monotonic() + QUIET_AFTER
        while time.monotonic() < quiet:
            self.settle()

    def _packet_socket(self, interface: str) -> socket.socket:
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        opened.bind((interface, _ETH_P_ALL))
        self._sockets.append(opened)
        return opened

    def _raw_socket(self, family: int, protocol: int) -> socket.socket:
        number = socket.AF_INET if family == 4 else socket.AF_INET6
        opened = socket.socket(number, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        if family == 6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        self._sockets.append(opened)
        return opened

    def _listen(self) -> None:
        """Bind `PORTS` with sockets whose filter discards every packet before it is answered."""
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # BPF: ret 0
        program = struct.pack("HP", 1, ctypes.addressof(nothing))
        for family in (socket.AF_INET, socket.AF_INET6):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                for port in PORTS:
                    opened = socket.socket(family, kind)
                    if family == socket.AF_INET6:
                        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
                    opened.bind(("", port))
                    if kind == socket.SOCK_STREAM:
                        opened.listen(1)
                    self._sockets.append(opened)

    # ------------------------------------------------------------------------------------------------------- rules

    def load(self, text: str) -> str:
        """Load nft text; what nft said when it was refused, else "" ."""
        with namespaces.entered(self.namespace):  # names of interfaces are resolved by libnftables
            status, _, error = self._nft.cmd(text)
        return str(error) if status else ""

    def clear(self, tables: Iterable[tuple[str, str]]) -> None:
        """Delete tables."""
        refused = self.load("\n".join(f"delete table {family} {name}" for family, name in tables))
        assert not refused, refused

    def listing(self) -> str:
        """``nft -j list ruleset``."""
        self._nft.set_json_output(True)
        try:
            with namespaces.entered(self.namespace):
                status, output, error = self._nft.cmd("list ruleset")
        finally:
            self._nft.set_json_output(False)
        assert status == 0, error
        return str(output)

    def forget(self) -> None:
        """Empty conntrack, so that no probe meets an earlier one's connection."""
        header = struct.pack("=IHHIIBBH", 20, _CTNETLINK_DELETE, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0, 0, 0, 0)
        self._conntrack.send(header)
        answer = self._conntrack.recv(4096)
        assert struct.unpack_from("=i", answer, 16)[0] == 0, "conntrack could not be emptied"

    # --------------------------------------------------------------------------------------------------- evidence

    def set(self, settings: Mapping[str, str]) -> None:
        """Write sysctls."""
        namespaces.sysctl(self.namespace, settings)

    def evidence(self) -> dict[str, str]:
        """What a bundle would hold of this node, without its rules."""
        commands = {
            "ip-addr.json": ["ip", "-j", "-d", "addr"],
            "ip-link.json": ["ip", "-j", "-d", "link"],
            "ip-route-all.json": ["ip", "-j", "route", "show", "table", "all"],
            "ip6-route-all.json": ["ip", "-6", "-j", "route", "show", "table", "all"],
            "ip-rule.json": ["ip", "-j", "rule"],
            "ip6-rule.json": ["ip", "-6", "-j", "rule"],
        }
        files = {name: namespaces.run(self.namespace, command) for name, command in commands.items()}
        files["sysctl.txt"] = self._sysctl()
        files["conntrack.txt"] = files["conntrack6.txt"] = ""
        return files

    def _sysctl(self) -> str:
        root = Path("/proc/sys")
        with namespaces.entered(self.namespace):
            keys = [f"net/ipv4/conf/{link}/{key}" for link in ("all", "lo", *LINKS) for key in _SYSCTLS]
            keys += ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"]
            return "".join(f"{key.replace('/', '.')} = {(root / key).read_text().strip()}\n" for key in keys)

    def recorded(self, files: Mapping[str, str], listing: str) -> NodeState:
        """The node as a bundle shows it."""
        return NodeState(MemoryNode({**files, "nft-ruleset.json": listing}, ROUTER))

    def live(self, files: Mapping[str, str]) -> NodeState:
        """The node with its rules read from the kernel."""
        node = MemoryNode({**files, "iptables-legacy-save.txt": "", "ip6tables-legacy-save.txt": ""}, ROUTER)
        node.nftables = self.netlink
        return NodeState(node)

    # ----------------------------------------------------------------------------------------------------- probes

    def inject(self, link: str, datagram: Datagram) -> list[Seen]:
        """A packet from the peers of ``link``; everything that came out because of it."""
        number = LINKS[link]
        frame = bytes.fromhex((_mac(0, number) + _mac(1, number)).replace(":", ""))
        frame += struct.pack("!H", ETHERTYPES[datagram.source.version]) + packet(datagram)
        self._peers[link].send(frame)
        return self.settle()

    def emit(self, datagram: Datagram, mark: int = 0) -> list[Seen]:
        """A packet of the router itself. A refusal by the output hooks is silence."""
        opened = self._raw[datagram.source.version, datagram.protocol]
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        if datagram.source.version == 4:
            level, kind, info = socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4s", 0, datagram.source.packed, b"")
        else:
            level, kind = socket.IPPROTO_IPV6, socket.IPV6_PKTINFO
            info = datagram.source.packed + struct.pack("=I", 0)
        with suppress(OSError):  # EPERM of a drop, or no route: told by what did not come out
            opened.sendmsg([transport(datagram)], [(level, kind, info)], 0, (str(datagram.destination), 0))
        return self.settle()

    def settle(self) -> list[Seen]:
        """Wait until the router is done, and collect what came out."""
        for link, number in LINKS.items():
            self._peers[link].send(_barrier(number, inward=True))
        for link in LINKS:
            self._await_barrier(self._taps[link], None)
        for link, number in LINKS.items():
            self._taps[link].send(_barrier(number, inward=False))
        seen: list[Seen] = []
        for link in LINKS:
            for frame in self._await_barrier(self._peers[link], _mac(1, LINKS[link])):
                datagram = parse(frame[14:]) if frame[12:14] in (b"\x08\x00", b"\x86\xdd") else None
                if datagram is not None:
                    seen.append(Seen(link, datagram))
        for (family, protocol), opened in self._raw.items():
            seen += [Seen(ROUTER, datagram) for datagram in _received(opened, family, protocol)]
        return seen

    def _await_barrier(self, tap: socket.socket, destination: str | None) -> list[bytes]:
        """Frames up to the barrier; with ``destination`` only those that are sent to that address."""
        found = []
        tap.settimeout(WAIT)
        wanted = bytes.fromhex(destination.replace(":", "")) if destination else None
        while True:
            frame, address = tap.recvfrom(4096)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            if frame[12:14] == struct.pack("!H", BARRIER):
                return found
            if wanted is None or frame[:6] == wanted:
                found.append(frame)


def _received(opened: socket.socket, family: int, protocol: int) -> list[Datagram]:
    found: list[Datagram | None] = []
    while True:
        try:
            data, ancillary, _, peer = opened.recvmsg(4096, 128)
        except BlockingIOError:
            return [datagram for datagram in found if datagram is not None]
        if family == 4:
            found.append(parse(data))
        else:
            destination = ip_address(ancillary[0][2][:16])
            found.append(parse_transport(ip_address(peer[0]), destination, protocol, data))


def _protocols(family: int) -> tuple[int, ...]:
    return (TCP, UDP, ICMP if family == 4 else ICMPV6)


def _mac(side: int, number: int) -> str:
    return f"02:00:00:00:0{side}:0{number}"


def _barrier(number: int, inward: bool) -> bytes:
    ends = _mac(0, number) + _mac(1, number) if inward else _mac(1, number) + _mac(0, number)
    return bytes.fromhex(ends.replace(":", "")) + struct.pack("!H", BARRIER) + bytes(46)


def _libnftables() -> Any:
    from nftables import Nftables  # type: ignore[import-not-found]  # Debian's python3-nftables

    nft = Nftables()
    nft.set_handle_output(True)
    return nft


def counters(listing: str) -> tuple[dict[tuple[str, str, str, int], int], dict[tuple[str, str, str], int]]:
    """Packets by rule and by counter object of a listing."""
    rules: dict[tuple[str, str, str, int], int] = {}
    objects: dict[tuple[str, str, str], int] = {}
    for entry in json.loads(listing)["nftables"]:
        if rule := entry.get("rule"):
            for statement in rule["expr"]:
                if isinstance(found := statement.get("counter"), dict):
                    rules[rule["family"], rule["table"], rule["chain"], rule["handle"]] = found["packets"]
        elif counter := entry.get("counter"):
            objects[counter["family"], counter["table"], counter["name"]] = counter["packets"]
    return rules, objects


def moved(before: Mapping[Any, int], after: Mapping[Any, int]) -> dict[Any, int]:
    """What counted in between."""
    return {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}


def addresses(links: Sequence[str], family: int) -> list[Address]:
    """The peers' addresses behind these links, gateways left out."""
    shape = "10.{}.0.{}" if family == 4 else "fd0{}::{:x}"
    return [ip_address(shape.format(LINKS[link], host)) for link in links for host in HOSTS[:-1]]
