"""Files of a capture: rotation, what is whole, and what a killed agent leaves."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from calico_debug.agent.captures.ring import OPEN, FileInfo, Ring, kept, recover
from calico_debug.capture.pcapng import whole_blocks
from calico_debug.capture.section import Section
from calico_debug.capture.teller import Told
from calico_debug.errors import EvidenceError
from calico_debug.model.packet_event import Losses
from tests.explain.test_packet_story import DELIVERED, PLACES

EVENT = replace(DELIVERED[0], data=bytes(100))
TOLD = Told(1, "a comment", {"10.0.0.1": ["a.b.pod"]})


def ring(folder: Path, size: int = 2000, files: int = 2) -> Ring:
    return Ring(
        folder, size=size, files=files, section=lambda: Section("test", "", 100), losses=lambda: Losses(limited=7)
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(one: Ring, turns: int) -> int:
    """Write until so many files were begun behind the first."""
    number = 0
    while turns:
        turns -= one.put(EVENT, PLACES, TOLD)
        number += 1
    return number


def test_a_file_is_whole_at_every_moment(tmp_path: Path) -> None:
    one = ring(tmp_path)
    for number in range(5):
        content = (tmp_path / f"00001.pcapng{OPEN}").read_bytes()
        assert whole_blocks(content) == (len(content), number)
        assert one.files == (FileInfo("00001.pcapng", len(content), number, open=True),)
        one.put(EVENT, PLACES, TOLD)
    one.close()
    one.close()
    assert names(tmp_path) == ["00001.pcapng"]
    content = (tmp_path / "00001.pcapng").read_bytes()
    assert whole_blocks(content) == (len(content), 5)
    assert b"7 over the limit of the rate" in content
    assert one.files == kept(tmp_path, {}) == (FileInfo("00001.pcapng", len(content), 5),)
    assert stat.S_IMODE((tmp_path / "00001.pcapng").stat().st_mode) == 0o600


def test_the_oldest_makes_room(tmp_path: Path) -> None:
    one = ring(tmp_path)
    written = fill(one, 4)
    assert names(tmp_path) == ["00004.pcapng", f"00005.pcapng{OPEN}"]
    assert one.removed == 3
    one.close()
    files = kept(tmp_path, {})
    assert files == one.files
    assert sum(file.bytes for file in files) < 2000 + 2 * 400
    assert written > sum(file.packets for file in files) > 0
    for file in files:
        content = (tmp_path / file.name).read_bytes()
        assert (whole_blocks(content), content.count(b"a.b.pod")) == ((file.bytes, file.packets), 1)


def test_one_file_alone(tmp_path: Path) -> None:
    one = ring(tmp_path, files=1)
    fill(one, 3)
    assert names(tmp_path) == [f"00004.pcapng{OPEN}"]


def test_a_disk_that_is_full_keeps_the_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = ring(tmp_path)
    one.put(EVENT, PLACES, TOLD)
    before = (tmp_path / f"00001.pcapng{OPEN}").read_bytes()
    write = os.write
    room = [10]

    def little(descriptor: int, data: memoryview) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = write(descriptor, data[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", little)
        with pytest.raises(EvidenceError, match="No space left on device; make room there"):
            one.put(EVENT, PLACES, TOLD)
        assert (tmp_path / f"00001.pcapng{OPEN}").read_bytes() == before
        with pytest.raises(EvidenceError):
            one.close()
    recover(tmp_path)
    assert names(tmp_path) == ["00001.pcapng"]
    assert (tmp_path / "00001.pcapng").read_bytes() == before


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="cannot be written"):
        ring(tmp_path / "none")


@pytest.mark.parametrize("cut", [0, 1, 3, 4, 11, 200])
def test_what_was_open_is_cut_to_what_is_whole(tmp_path: Path, cut: int) -> None:
    one = ring(tmp_path, size=100_000)
    for _ in range(3):
        one.put(EVENT, PLACES, TOLD)
    path = tmp_path / f"00001.pcapng{OPEN}"
    os.truncate(path, path.stat().st_size - cut)
    recover(tmp_path)
    (file,) = kept(tmp_path, {})
    assert file.packets == {0: 3, 200: 1}.get(cut, 2)
    content = (tmp_path / file.name).read_bytes()
    assert whole_blocks(content) == (len(content), file.packets)


def test_packets_are_not_counted_again(tmp_path: Path) -> None:
    one = ring(tmp_path)
    one.close()
    (file,) = one.files
    assert kept(tmp_path, {(file.name, file.bytes): 77})[0].packets == 77
    assert kept(tmp_path, {(file.name, file.bytes + 1): 77})[0].packets == 0


def test_files_without_packets_go(tmp_path: Path) -> None:
    ring(tmp_path)
    (tmp_path / f"00002.pcapng{OPEN}").touch()
    (tmp_path / f"00003.pcapng{OPEN}").write_bytes(b"nonsense that is no pcapng")
    recover(tmp_path)
    assert names(tmp_path) == []
