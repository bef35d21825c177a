"""Watches one flow's packets meet the node's rules: a table of our own sets their trace bit, the kernel reports.

Nothing of anybody else is changed, and nothing stays: see `calico_debug.decode.nft_trace_table`.
"""

from __future__ import annotations

import errno
import os
import secrets
import select
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

from calico_debug.agent.clock import now
from calico_debug.agent.netlink import (
    HEADER,
    NETLINK_NETFILTER,
    NFNL_VERSION,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    READ_SIZE,
    SO_RCVBUFFORCE,
    SUBSYSTEM_NFTABLES,
    TIMEOUT,
)
from calico_debug.decode.nft_trace import NFNLGRP_NFTRACE, NFT_MSG_TRACE, decode_event
from calico_debug.decode.nft_trace_packets import Assembler
from calico_debug.decode.nft_trace_table import PREFIX, Limits, table_messages
from calico_debug.errors import EvidenceError
from calico_debug.model.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from calico_debug.model.observation import FlowTuple

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1
SO_SNDBUFFORCE = 32
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11
NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x4, 0x200, 0x400
"""include/uapi/linux/netlink.h, netfilter/nfnetlink.h."""

MAX_PACKETS = 200
"""Packets after which an observer has seen enough."""
BUFFER = 8 << 20
"""Bytes of events that the kernel may queue: a packet makes some 50 events of 200 bytes."""
SETTLE = 0.05
"""Seconds after which a packet that nothing more is heard of is gone: a node takes microseconds for one."""
DRAIN = 1.0
"""Seconds of reading at the end: others may trace packets without end."""
BATCH_BUFFER = 4 << 20
"""Bytes of the transaction that makes the table: a flow takes 4 rules of 600 bytes."""


class Observer:
    """A context manager: from its start the flow's packets are traced, and at its end they are no more."""

    def __init__(self, flows: Sequence[FlowTuple], limits: Limits | None = None, packets: int = MAX_PACKETS) -> None:
        """``flows`` are the flow before and behind translation, all of one IP version. Nothing is touched yet."""
        self._flows = tuple(flows)
        self._limits = limits or Limits()
        self._most = packets
        # Two observers of one process, or of two in different PID namespaces, must not meet in a name.
        self.table = f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self._assembler = Assembler(self.table)
        self._listener: socket.socket | None = None
        self._owner: socket.socket | None = None
        self._started = ""
        self._lost = False
        self._full = False

    def __enter__(self) -> Observer:
        """Listen, then make the table. Raises `EvidenceError`."""
        self._started = now()
        try:
            self._listener = _listener()
            self._owner = _make_table(self.table, self._flows, self._limits)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    def close(self) -> None:
        """Close both sockets; with the owner's the table goes."""
        for open_socket in (self._owner, self._listener):
            if open_socket is not None:
                open_socket.close()
        self._owner = self._listener = None

    @property
    def full(self) -> bool:
        """Whether as many packets were seen as are wanted."""
        return self._full

    def watch(self, seconds: float) -> None:
        """Take events for ``seconds``, or until the limit of packets. May be called again to go on."""
        assert self._listener is not None
        end = time.monotonic() + seconds
        while not self._full:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._listener], [], [], left)[0]:
                return
            self._take()

    def finish(self) -> Observation:
        """Take what the kernel has queued, and give everything seen.

        A packet that is on its way at the end is no lost one: of those without an end, only old ones count.
        """
        assert self._listener is not None
        end = time.monotonic() + DRAIN
        while not self._full and time.monotonic() < end and select.select([self._listener], [], [], SETTLE)[0]:
            self._take()
        packets = self._assembler.finish(time.monotonic() - SETTLE / 2)
        limited = self._full or len(packets) >= self._limits.burst
        return Observation(packets, self._started, now(), self._lost, limited)

    def _take(self) -> None:
        assert self._listener is not None
        try:
            data = self._listener.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise EvidenceError(f"trace events cannot be read: {error.strerror}; try again") from None
            self._lost = True
            return
        for payload in _payloads(data):
            try:
                event = decode_event(payload)
            except (ValueError, KeyError, IndexError):
                self._lost = True
                continue
            self._assembler.add(event, time.monotonic())
        if self._assembler.seen >= self._most:
            self._full = True


def _listener() -> socket.socket:
    try:
        listener = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, NETLINK_NETFILTER
        )
    except OSError as error:
        raise EvidenceError(f"no netlink socket to observe packets ({error}); run on the Linux node itself") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        listener.bind((0, 0))
        listener.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
    except OSError as error:
        listener.close()
        raise _refused(error.errno or 0) from None
    return listener


def _make_table(name: str, flows: Sequence[FlowTuple], limits: Limits) -> socket.socket:
    """Make the table, and give the socket that owns it."""
    owner = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    try:
        owner.bind((0, 0))
        owner.settimeout(TIMEOUT)
        for option in (SO_SNDBUFFORCE, SO_RCVBUFFORCE):
            owner.setsockopt(socket.SOL_SOCKET, option, BATCH_BUFFER)
        version = flows[0].source.version
        messages = list(table_messages(name, version, flows, limits))
        batch = [_message(NFNL_MSG_BATCH_BEGIN, 0, 0, 0, b"", SUBSYSTEM_NFTABLES)]
        for number, (kind, family, attributes) in enumerate(messages, 1):
            flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK
            batch.append(_message((SUBSYSTEM_NFTABLES << 8) | kind, flags, number, family, attributes))
        batch.append(_message(NFNL_MSG_BATCH_END, 0, len(messages) + 1, 0, b"", SUBSYSTEM_NFTABLES))
        owner.send(b"".join(batch))
        _acknowledged(owner, len(messages))
    except TimeoutError:
        owner.close()
        raise EvidenceError(f"the kernel did not answer about nf_tables within {TIMEOUT:g} s; try again") from None
    except OSError as error:
        owner.close()
        raise _refused(error.errno or 0) from None
    except BaseException:
        owner.close()
        raise
    return owner


def _message(kind: int, flags: int, sequence: int, family: int, attributes: bytes, resource: int = 0) -> bytes:
    body = struct.pack("!BBH", family, NFNL_VERSION, resource) + attributes
    return HEADER.pack(HEADER.size + len(body), kind, flags | NLM_F_REQUEST, sequence, 0) + body


def _acknowledged(owner: socket.socket, wanted: int) -> None:
    """Take an answer for each message. Raises `EvidenceError` for a refusal: then nothing of the batch happened."""
    answered = 0
    while answered < wanted:
        data = owner.recv(READ_SIZE)
        position = 0
        while position + HEADER.size <= len(data):
            length, kind, _, _, _ = HEADER.unpack_from(data, position)
            if length < HEADER.size:
                raise EvidenceError("the kernel's answer about nf_tables was cut off; try again")
            if kind == NLMSG_ERROR:
                start = position + HEADER.size
                code = -int.from_bytes(data[start : start + 4], sys.byteorder, signed=True)
                if code:
                    raise _refused(code)
                answered += 1
            position += (length + 3) & ~3


def _payloads(data: bytes) -> list[bytes]:
    found = []
    position = 0
    while position + HEADER.size <= len(data):
        length, kind, _, _, _ = HEADER.unpack_from(data, position)
        if length < HEADER.size or position + length > len(data):
            break
        if kind == (SUBSYSTEM_NFTABLES << 8) | NFT_MSG_TRACE:
            found.append(data[position + HEADER.size : position + length])
        position += (length + 3) & ~3
    return found


def _refused(code: int) -> EvidenceError:
    if code in (errno.EPERM, errno.EACCES):
        return EvidenceError("observing packets needs the capability CAP_NET_ADMIN; run as root on the node")
    if code in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOENT, errno.EPROTONOSUPPORT):
        return EvidenceError(
            f"this kernel cannot trace a flow in a table of its own ({os.strerror(code)}): it takes Linux 5.12 with "
            "nf_tables and its limit, quota and ct; leave out --observe, --probe and --watch do without"
        )
    return EvidenceError(f"the kernel refused the table that traces the flow ({os.strerror(code)}); try again")
