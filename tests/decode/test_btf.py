"""Enumerations of BTF, made by hand and the running kernel's."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from calico_debug.decode.btf import HEADER, MAGIC, MEMBER, TYPE, enumeration

KERNEL = Path("/sys/kernel/btf/vmlinux")
KIND_INT, KIND_ENUM = 1, 6


def made(*enumerations: tuple[str, dict[str, int]], before: bytes = b"") -> bytes:
    """BTF with an integer type in front, whose encoding may look like anything."""
    strings = bytearray(b"\0")
    types = bytearray(before)

    def text(word: str) -> int:
        strings.extend(word.encode() + b"\0")
        return len(strings) - len(word) - 1

    for name, values in enumerations:
        at = text(name)
        types += TYPE.pack(at, KIND_ENUM << 24 | len(values), 4)
        for word, value in values.items():
            types += MEMBER.pack(text(word), value)
    header = HEADER.pack(MAGIC, 1, 0, HEADER.size, 0, len(types), len(types), len(strings))
    return header + bytes(types) + bytes(strings)


def test_values_and_names() -> None:
    btf = made(("other", {"ONE": 1}), ("skb_drop_reason", {"NOT_DROPPED": 0, "NETFILTER_DROP": 8, "ALL": -1}))
    assert enumeration(btf, "skb_drop_reason") == {0: "NOT_DROPPED", 8: "NETFILTER_DROP", 0xFFFFFFFF: "ALL"}
    assert enumeration(btf, "other") == {1: "ONE"}
    assert enumeration(btf, "drop_reason") == {}


def test_the_same_bytes_elsewhere_are_no_type() -> None:
    """The name's number also stands where an integer has its encoding."""
    btf = made(("wanted", {"ONE": 1}), before=TYPE.pack(0, KIND_INT << 24, 4) + struct.pack("=I", 1))
    assert enumeration(btf, "wanted") == {1: "ONE"}


@pytest.mark.parametrize("length", range(0, 80, 7))
def test_cut_off(length: int) -> None:
    btf = made(("wanted", {"ONE": 1}))[:length]
    if length < HEADER.size:
        with pytest.raises(ValueError, match="cut off"):
            enumeration(btf, "wanted")
    else:
        assert enumeration(btf, "wanted") in ({}, {1: "ONE"})


def test_something_else() -> None:
    with pytest.raises(ValueError, match="no BTF"):
        enumeration(bytes(64), "wanted")


@pytest.mark.kernel
def test_the_running_kernel() -> None:
    if not KERNEL.is_file():
        pytest.skip(f"this kernel has no {KERNEL}")
    found = enumeration(KERNEL.read_bytes(), "skb_drop_reason")
    assert len(found) > 50
    assert {"SKB_DROP_REASON_NETFILTER_DROP", "SKB_DROP_REASON_IP_RPFILTER"} <= set(found.values())
    bpftool = shutil.which("bpftool", path="/usr/sbin:/sbin:/usr/bin:/bin")
    if bpftool is None:
        pytest.skip("bpftool is not installed, whose reading would be compared")
    done = subprocess.run([bpftool, "-j", "btf", "dump", "file", str(KERNEL)], capture_output=True, check=True)
    enum = next(t for t in json.loads(done.stdout)["types"] if t["kind"] == "ENUM" and t["name"] == "skb_drop_reason")
    expected: dict[int, str] = {}
    for one in enum["values"]:
        expected.setdefault(one["val"] & 0xFFFFFFFF, one["name"])
    assert found == expected
