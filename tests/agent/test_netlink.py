from __future__ import annotations

import errno
import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import netlink
from calico_debug.agent.netlink import HEADER, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NftablesSocket
from calico_debug.decode.nft_netlink import decode_registered_hook, hook_request, rules_request, set_request
from calico_debug.decode.nft_netlink_constants import NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET, NLM_F_ACK
from calico_debug.errors import EvidenceError
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_NETLINK"), reason="netlink sockets need Linux")

MORE, LAST = 0x2A04, NLMSG_DONE


def message(kind: int, payload: bytes, flags: int = 0, sequence: int = 1) -> bytes:
    data = HEADER.pack(HEADER.size + len(payload), kind, flags, sequence, 0) + payload
    return data + b"\0" * (-len(data) % 4)


def error(code: int, sequence: int = 1) -> bytes:
    return message(NLMSG_ERROR, (-code).to_bytes(4, sys.byteorder, signed=True), sequence=sequence)


class Scripted(NftablesSocket):
    """A socket whose answers are given; the kernel is not asked."""

    def __init__(self, *datagrams: bytes) -> None:
        super().__init__()
        self.close()
        self._socket = ScriptedSocket(list(datagrams))  # type: ignore[assignment]


class ScriptedSocket:
    def __init__(self, datagrams: list[bytes]) -> None:
        self.datagrams = datagrams
        self.sent = 0

    def send(self, data: bytes) -> int:
        self.sent += 1
        return len(data)

    def recvmsg(self, size: int) -> tuple[bytes, list[object], int, object]:
        if not self.datagrams:
            raise TimeoutError
        data = self.datagrams.pop(0)
        return data[:size], [], socket.MSG_TRUNC if len(data) > size else 0, None

    def close(self) -> None:
        self.datagrams = []


def ask(*datagrams: bytes, flags: int = NLM_F_DUMP) -> list[bytes]:
    return list(Scripted(*datagrams)(NFT_MSG_GETCHAIN, flags, 0, b""))


def test_answers_of_several_datagrams() -> None:
    assert ask(message(MORE, b"1111") + message(MORE, b"22222"), message(LAST, bytes(4))) == [b"1111", b"22222"]


def test_answer_to_another_request_is_passed_over() -> None:
    assert ask(message(MORE, b"old!", sequence=7), message(MORE, b"mine") + message(LAST, bytes(4))) == [b"mine"]


def test_answer_and_acknowledgement() -> None:
    assert ask(message(MORE, b"1111"), error(0), flags=NLM_F_ACK) == [b"1111"]


def test_nothing_there_is_an_empty_answer() -> None:
    assert ask(error(errno.ENOENT), flags=NLM_F_ACK) == []


def test_interrupted_dump_is_begun_anew() -> None:
    broken = message(MORE, b"half", NLM_F_DUMP_INTR) + message(LAST, bytes(4))
    second = message(MORE, b"full", sequence=2) + message(LAST, bytes(4), sequence=2)
    assert ask(broken, second) == [b"full"]


def test_ruleset_that_never_rests() -> None:
    broken = [
        message(MORE, b"half", NLM_F_DUMP_INTR, sequence) + message(LAST, bytes(4), sequence=sequence)
        for sequence in range(1, netlink.ATTEMPTS + 1)
    ]
    with pytest.raises(EvidenceError, match="changed during each of 8 attempts"):
        ask(*broken)


@pytest.mark.parametrize(
    ("datagram", "said"),
    [
        (error(errno.EPERM), "CAP_NET_ADMIN"),
        (error(errno.EOPNOTSUPP), "is nf_tables loaded"),
        (error(errno.ENOMEM), "Cannot allocate memory"),
        (message(MORE, b"1111")[:-2], "cut off"),
        (HEADER.pack(3, MORE, 0, 1, 0), "cut off"),
        (message(MORE, bytes(netlink.READ_SIZE)), "larger than"),
    ],
)
def test_refusals(datagram: bytes, said: str) -> None:
    with pytest.raises(EvidenceError, match=said) as caught:
        ask(datagram)
    assert "\n" not in str(caught.value)


def test_silence() -> None:
    with pytest.raises(EvidenceError, match="did not answer"):
        ask()


@pytest.fixture(scope="module")
def live() -> Iterator[NftablesSocket]:
    reason = namespaces.supported()
    if reason:
        pytest.skip(reason)
    name = namespaces.create(["socket"])["socket"]
    try:
        chains = "\n".join(f"chain c{number} {{\n counter accept\n}}" for number in range(2000))
        namespaces.nft(name, f"table ip t {{ {chains} \n set s {{ type ipv4_addr; }}\n }}")
        with namespaces.entered(name), NftablesSocket() as opened:
            yield opened
    finally:
        namespaces.delete([name])


@pytest.mark.kernel
def test_dump_of_many_chains(live: NftablesSocket) -> None:
    assert len(list(live(NFT_MSG_GETCHAIN, NLM_F_DUMP, 0, b""))) == 2000


@pytest.mark.kernel
def test_dump_of_one_chain_only(live: NftablesSocket) -> None:
    assert len(list(live(NFT_MSG_GETRULE, NLM_F_DUMP, 2, rules_request("t", "c5")))) == 1


@pytest.mark.kernel
def test_what_does_not_exist_is_empty(live: NftablesSocket) -> None:
    assert list(live(NFT_MSG_GETSET, NLM_F_ACK, 2, set_request("t", "s")))
    assert list(live(NFT_MSG_GETSET, NLM_F_ACK, 2, set_request("t", "none"))) == []
    assert list(live(NFT_MSG_GETSET, NLM_F_ACK, 2, set_request("none", "s"))) == []
    assert list(live(NFT_MSG_GETRULE, NLM_F_DUMP, 2, rules_request("t", "none"))) == []


@pytest.mark.kernel
def test_hooks_are_listed_or_known_to_be_unknown(live: NftablesSocket) -> None:
    answers = live.hooks(2, hook_request(2))
    if answers is not None:
        assert [decode_registered_hook(answer).chain for answer in answers] == []


def test_kernel_that_cannot_list_hooks() -> None:
    assert Scripted(error(errno.EINVAL)).hooks(2, hook_request(2)) is None
    with pytest.raises(EvidenceError, match="CAP_NET_ADMIN"):
        Scripted(error(errno.EPERM)).hooks(2, hook_request(2))


@pytest.mark.kernel
def test_without_the_capability() -> None:
    if os.geteuid() != 0:
        pytest.skip("dropping a user's rights needs root")
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            list(NftablesSocket()(NFT_MSG_GETCHAIN, NLM_F_DUMP, 0, b""))
            os.write(write_end, b"allowed")
        except EvidenceError as refused:
            os.write(write_end, str(refused).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with os.fdopen(read_end) as answer:
        assert "CAP_NET_ADMIN" in answer.read()
