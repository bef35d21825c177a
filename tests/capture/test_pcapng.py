"""The file that captures are: read by scapy, and by tshark where it is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from calico_debug.capture import pcapng

if TYPE_CHECKING:
    from pathlib import Path

TIME = 1_795_274_845_474_073_460
V4 = bytes.fromhex("4500001c000040004011 26b8 0af4010a 0af4010e 0035 1f90 0008 0000".replace(" ", ""))
V6 = (
    bytes.fromhex("60000000 0008 11 40".replace(" ", ""))
    + b"\xfd"
    + bytes(14)
    + b"\1"
    + b"\xfd"
    + bytes(14)
    + b"\2"
    + V4[20:]
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.pcapng"
    path.write_bytes(
        pcapng.section("calico-debug test")
        + pcapng.names({"10.244.1.10": ["web.red.pod"], "fd00::1": ["web.red.pod", "shop.red.svc"]})
        + pcapng.interface("cali12345", "cali12345 of node1", 256)
        + pcapng.packet(0, TIME, V4, len(V4), comment="request received by cali12345", sent=False, number=1)
        + pcapng.interface("eth0 in red/web", "", 256)
        + pcapng.packet(1, TIME + 1, V6, len(V6), comment="DROPPED", sent=None, number=2)
        + pcapng.packet(0, TIME + 2, V4[:21], 28, comment="täglich", sent=True, number=1)
    )
    return path


def test_scapy_reads_it(file: Path) -> None:
    reader = pytest.importorskip("scapy.utils").RawPcapNgReader(str(file))
    packets = list(reader)
    assert [data for data, _ in packets] == [V4, V6, V4[:21]]
    assert [(meta.ifname, meta.wirelen, meta.linktype) for _, meta in packets] == [
        (b"cali12345", 28, pcapng.LINKTYPE_RAW),
        (b"eth0 in red/web", 48, pcapng.LINKTYPE_RAW),
        (b"cali12345", 28, pcapng.LINKTYPE_RAW),
    ]
    times = [(meta.tshigh << 32 | meta.tslow, meta.tsresol) for _, meta in packets]
    assert times == [(TIME + number, 10**9) for number in range(3)]


def test_tshark_reads_it(file: Path) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    fields = ("frame.interface_name", "frame.comment", "frame.len", "frame.cap_len", "ip.src_host", "ipv6.src_host")
    done = subprocess.run(
        ["tshark", "-r", file, "-N", "n", "-T", "json", *(word for field in fields for word in ("-e", field))],
        capture_output=True,
        check=True,
    )
    rows = [{key: value[0] for key, value in one["_source"]["layers"].items()} for one in json.loads(done.stdout)]
    assert [row["frame.interface_name"] for row in rows] == ["cali12345", "eth0 in red/web", "cali12345"]
    assert [row["frame.comment"] for row in rows] == ["request received by cali12345", "DROPPED", "täglich"]
    assert [(row["frame.len"], row["frame.cap_len"]) for row in rows] == [("28", "28"), ("48", "48"), ("28", "21")]
    assert rows[0]["ip.src_host"] == "web.red.pod"
    assert rows[1]["ipv6.src_host"] in ("web.red.pod", "shop.red.svc")
    assert not [line for line in done.stderr.decode().splitlines() if "Running as" not in line]


def test_blocks_are_whole_words() -> None:
    for comment in ("", "a", "ab", "abc", "abcd"):
        block = pcapng.packet(0, TIME, b"x" * 5, 5, comment=comment, sent=None, number=1)
        assert len(block) % 4 == 0
        assert block[4:8] == block[-4:] == len(block).to_bytes(4, "little")


def test_what_is_whole_of_a_file_that_ends_early(file: Path) -> None:
    data = file.read_bytes() + pcapng.statistics(0, TIME, received=2, comment="nothing was lost")
    assert pcapng.whole_blocks(data) == (len(data), 3)
    ends = {pcapng.whole_blocks(data[:length])[0] for length in range(len(data) + 1)}
    assert ends >= {0, len(data)}
    for end in ends:
        assert pcapng.whole_blocks(data[:end])[0] == end
    assert len(ends) == 1 + 8
    assert pcapng.whole_blocks(b"") == (0, 0)
    assert pcapng.whole_blocks(b"\1" + data[1:]) == (0, 0)
    assert pcapng.whole_blocks(data + bytes(40)) == (len(data), 3)


def test_lengths_of_packets() -> None:
    assert pcapng.ip_length(V4, 99) == 28
    assert pcapng.ip_length(V6, 99) == 48
    assert pcapng.ip_length(V4[:2], 99) == 99
    assert pcapng.ip_length(b"", 99) == 99
    assert pcapng.ip_length(bytes([0x45, 0, 0, 0]), 99) == 99
