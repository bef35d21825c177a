"""One file of a capture: interfaces and names before what needs them, and losses at its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.capture import section as module
from calico_debug.capture.pcapng import whole_blocks
from calico_debug.capture.section import OTHERS, Section, losses_words
from calico_debug.model.packet_event import Losses
from tests.agent.captures.here import rows
from tests.explain.test_packet_story import DELIVERED, PLACES

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes.fromhex("4500001c000040004011 26b8 0af4010a 0af4010e 0035 1f90 0008 0000".replace(" ", ""))
EVENTS = [replace(event, data=DATA) for event in DELIVERED]


def test_a_file_as_tshark_reads_it(tmp_path: Path) -> None:
    section = Section("calico-debug test", "a -> b", 256)
    content = section.begin()
    for number, event in enumerate(EVENTS):
        content += section.names({"10.244.1.10": ["web.red.pod"]})
        content += section.packet(event, number, PLACES, f"comment {number}")
    assert (section.interfaces, section.packets) == (4, 4)
    content += section.end(Losses(matched=9, ring_full=1, limited=2, unreadable=3, missed=4))
    assert whole_blocks(content) == (len(content), 4)
    assert content.count(b"web.red.pod") == 1
    path = tmp_path / "one.pcapng"
    path.write_bytes(content)
    seen = rows(path)
    assert [row["frame.interface_name"] for row in seen] == [
        "eth0 in red/cli1",
        "calicli",
        "caliweb",
        "eth0 in red/web1",
    ]
    assert [row["frame.comment"] for row in seen] == [f"comment {number}" for number in range(4)]
    assert seen[0]["ip.src_host"] == "web.red.pod"
    told = (
        "lost on all interfaces until here: 3 events (1 for want of room, 2 over the limit of the rate); up to 4 "
        "packets passed over; 3 drops of what is no IP packet not shown"
    )
    assert content.count(told.encode()) == 1


def test_losses_of_nothing_are_told() -> None:
    assert losses_words(Losses()) == "0 events (0 for want of room, 0 over the limit of the rate)"


def test_names_come_once_each() -> None:
    section = Section("x", "", 64)
    assert b"b.c.svc" in section.names({"10.0.0.1": ["a.b.pod"], "10.0.0.2": ["b.c.svc"]})
    assert section.names({"10.0.0.1": ["a.b.pod"]}) == section.names({}) == b""
    again = section.names({"10.0.0.1": ["a.b.pod", "new.b.svc"]})
    assert (b"new.b.svc" in again, b"a.b.pod" in again) == (True, False)


def test_interfaces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_INTERFACES", 2)
    section = Section("x", "", 64)
    content = b"".join(
        section.packet(replace(EVENTS[0], interface_index=number, interface=f"cali{number}"), 1, PLACES, "")
        for number in range(9)
    )
    assert section.interfaces == 3
    assert content.count(OTHERS.encode()) == 2  # name and description
