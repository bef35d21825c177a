"""nf_tables of this machine over a netlink socket, with nothing but the standard library.

Source: include/uapi/linux/netlink.h, nfnetlink.h. Only requests that read are sent.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

from calico_debug.agent.capabilities import REMEDY
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

NETLINK_NETFILTER = 12
SUBSYSTEM_NFTABLES = 10
SUBSYSTEM_HOOK = 12
"""NFNL_SUBSYS_… numbers."""

NLM_F_REQUEST = 0x1
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

NFNL_VERSION = 0

SO_RCVBUFFORCE = 33

HEADER = struct.Struct("=IHHII")
"""struct nlmsghdr: length, type, flags, sequence number, port."""

RECEIVE_BUFFER = 4 << 20
"""Bytes of answers that the kernel may queue."""
READ_SIZE = 1 << 18
"""Bytes taken at once; the kernel builds dumps in messages of up to 32 KiB, a page at least."""
TIMEOUT = 10.0
"""Seconds to wait for the kernel, which answers in microseconds."""
ATTEMPTS = 8
"""Dumps begun anew because the ruleset changed while it was read."""


class _InterruptedDumpError(Exception):
    """The ruleset changed during a dump, so its answers do not belong together."""


class _UnsupportedError(EvidenceError):
    """The kernel does not know the request."""


class NftablesSocket:
    """Implements `calico_debug.evidence.source.NetlinkDump`; a context manager."""

    def __init__(self) -> None:
        """Open the socket in this thread's network namespace. Raises `EvidenceError` where there is no netlink."""
        self._sequence = 0
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
            self._socket.bind((0, 0))
        except (OSError, AttributeError) as error:
            raise EvidenceError(
                f"no netlink socket to read nf_tables ({error}); run on the Linux node itself"
            ) from None
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except OSError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def __enter__(self) -> NftablesSocket:
        """Nothing to do."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the socket."""
        self.close()

    def close(self) -> None:
        """Close the socket; it cannot be used any more."""
        self._socket.close()

    def __call__(self, message_type: int, flags: int, family: int, attributes: bytes) -> Iterable[bytes]:
        """See `NetlinkDump`. A dump that the ruleset changed under is begun anew, a few times."""
        return self._ask((SUBSYSTEM_NFTABLES << 8) | message_type, flags, family, attributes)

    def hooks(self, family: int, attributes: bytes) -> Iterable[bytes] | None:
        """The functions at one hook in the order the kernel calls them, None where it cannot tell.

        ``attributes`` name the hook (see `calico_debug.decode.nft_netlink.hook_request`). The kernel tells when built
        with CONFIG_NETFILTER_NETLINK_HOOK, since Linux 5.14; without, it does not know the request.
        """
        try:
            return self._ask(SUBSYSTEM_HOOK << 8, NLM_F_DUMP, family, attributes)
        except _UnsupportedError:
            return None

    def _ask(self, message_type: int, flags: int, family: int, attributes: bytes) -> list[bytes]:
        for _ in range(ATTEMPTS):
            try:
                return self._exchange(message_type, flags, family, attributes)
            except _InterruptedDumpError:
                continue
        raise EvidenceError(f"the ruleset changed during each of {ATTEMPTS} attempts to read it; try again")

    def _exchange(self, message_type: int, flags: int, family: int, attributes: bytes) -> list[bytes]:
        self._sequence += 1
        body = struct.pack("=BBH", family, NFNL_VERSION, 0) + attributes
        header = HEADER.pack(HEADER.size + len(body), message_type, flags | NLM_F_REQUEST, self._sequence, 0)
        answers: list[bytes] = []
        interrupted = False
        try:
            self._socket.send(header + body)
            while True:
                finished, interrupted_here = self._receive(answers, is_dump=flags & NLM_F_DUMP == NLM_F_DUMP)
                interrupted |= interrupted_here
                if finished:
                    break
        except TimeoutError:
            raise EvidenceError(f"the kernel did not answer about nf_tables within {TIMEOUT:g} s; try again") from None
        except OSError as error:
            raise _refusal(error.errno or 0) from None
        if interrupted:
            raise _InterruptedDumpError
        return answers

    def _receive(self, answers: list[bytes], *, is_dump: bool) -> tuple[bool, bool]:
        """Take one datagram; whether the answer is complete, and whether the ruleset changed under it."""
        data, _, flags, _ = self._socket.recvmsg(READ_SIZE)
        if flags & socket.MSG_TRUNC:
            raise EvidenceError(f"an nf_tables message is larger than {READ_SIZE} bytes; report it with the ruleset")
        position, interrupted = 0, False
        while position + HEADER.size <= len(data):
            length, kind, message_flags, sequence, _ = HEADER.unpack_from(data, position)
            if length < HEADER.size or position + length > len(data):
                raise EvidenceError("the kernel's answer about nf_tables was cut off; try again")
            payload = data[position + HEADER.size : position + length]
            position += (length + 3) & ~3
            if sequence != self._sequence or kind == NLMSG_NOOP:
                # The rest of an exchange that was given up.
                continue
            interrupted |= bool(message_flags & NLM_F_DUMP_INTR)
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                code = -int.from_bytes(payload[:4], sys.byteorder, signed=True) if len(payload) >= 4 else 0
                if code == errno.ENOENT:
                    answers.clear()
                elif code == errno.EINTR and is_dump:
                    interrupted = True
                elif code:
                    raise _refusal(code)
                return True, interrupted
            answers.append(payload)
        return False, interrupted


def _refusal(code: int) -> EvidenceError:
    """What an error of the kernel means to the user."""
    if code in (errno.EPERM, errno.EACCES):
        return EvidenceError(f"reading nf_tables needs the capability CAP_NET_ADMIN: {REMEDY}")
    if code in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL):
        return _UnsupportedError(f"this kernel refuses to show nf_tables ({os.strerror(code)}); is nf_tables loaded?")
    if code == errno.ENOBUFS:
        return EvidenceError("the kernel's answer about nf_tables overran the socket's buffer; try again")
    return EvidenceError(f"the kernel refused to show nf_tables ({os.strerror(code)}); try: nft list ruleset")
