"""An agent's captures as text, whatever the agent says."""

from __future__ import annotations

from calico_debug.cli.render.captures import listing, one

DOCUMENT = {
    "id": "20261121-174704-8db1",
    "state": "ended",
    "startedAt": "2026-11-21T17:47:02Z",
    "endedBy": "packets",
    "subject": "pod client/client (10.244.1.30)",
    "events": 45,
    "packets": 13,
    "decided": 9,
    "losses": {"noRoom": 1, "rateLimited": 2, "passedOver": 3, "notIp": 0},
    "files": [{"name": "00002.pcapng", "bytes": 100}, {"name": "00003.pcapng", "bytes": 50, "open": True}],
    "filesRemoved": 1,
}


def test_a_listing() -> None:
    heading, line = listing([DOCUMENT]).splitlines()
    assert heading.split() == ["ID", "STATE", "STARTED", "PACKETS", "FILES", "BYTES", "LOST", "SUBJECT"]
    assert line.split(maxsplit=7) == [
        *("20261121-174704-8db1", "ended", "2026-11-21T17:47:02Z", "13", "2", "150", "3"),
        "pod client/client (10.244.1.30)",
    ]
    assert listing([]) == "no captures\n"


def test_a_capture() -> None:
    assert one(DOCUMENT).splitlines() == [
        "20261121-174704-8db1  ended  pod client/client (10.244.1.30)  (ended by packets)",
        "captured  45 events of 13 packets; 9 events of flows that the policy decides",
        "files     2 with 150 bytes; 1 older ones made room",
        "lost      3 events (1 for want of room, 2 over the limit of the rate); up to 3 packets passed over",
    ]
    assert "problem   the disk is full" in one({**DOCUMENT, "problem": "the disk is full"})


def test_nonsense_is_harmless() -> None:
    for document in (
        {},
        {"id": "\x1b[2J", "files": "x", "losses": [1]},
        {"files": [1, {"bytes": "x"}], "losses": {"noRoom": "y"}},
    ):
        assert "\x1b" not in one(document) + listing([document])
