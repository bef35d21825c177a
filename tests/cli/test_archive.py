"""A bundle appears whole or not at all, private, and never over something else."""

from __future__ import annotations

import os
import signal
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from calico_debug.cli.archive import SUFFIXES, PlaceError, new_bundle
from calico_debug.record.recorder import LimitError

ALL = [f"b{suffix}" for suffix in SUFFIXES] + ["directory"]


def modes(root: Path) -> set[int]:
    return {stat.S_IMODE(path.lstat().st_mode) for path in (root, *root.rglob("*"))}


def write_two(target: Path, second: Iterator[bytes]) -> None:
    with new_bundle(target) as sink:
        sink.add("a", [b"first"], 10)
        sink.add("b", second, 10)


def taken(target: Path) -> Iterator[bytes]:
    """Content during which somebody else takes the place."""
    target.write_text("mine")
    yield b"x"


@pytest.mark.parametrize("name", ALL)
def test_whole_and_private(tmp_path: Path, name: str) -> None:
    before = os.umask(0)
    try:
        with new_bundle(tmp_path / name) as sink:
            written = sink.add("nodes/n/a", iter([b"x", b"yz"]), 10)
            assert not (tmp_path / name).exists()
            sink.add("manifest.json", [b"{}"], 10)
    finally:
        os.umask(before)
    assert written.size == 3
    assert list(tmp_path.iterdir()) == [tmp_path / name]
    assert modes(tmp_path / name) == ({0o600, 0o700} if name == "directory" else {0o600})
    if name == "directory":
        assert (tmp_path / name / "nodes/n/a").read_bytes() == b"xyz"
    else:
        with tarfile.open(tmp_path / name) as archive:
            folder = name.partition(".")[0]
            assert archive.getnames() == [folder, f"{folder}/nodes/n/a", f"{folder}/manifest.json"]
            assert {member.mode for member in archive.getmembers()} == {0o700, 0o600}
            assert {member.uid for member in archive.getmembers()} == {0}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_nothing_is_left_of_an_interrupted_one(tmp_path: Path, name: str, number: int) -> None:
    def content() -> Iterator[bytes]:
        yield b"x"
        os.kill(os.getpid(), number)
        yield b"y"

    handler = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        write_two(tmp_path / name, content())
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("name", ALL)
def test_a_file_that_is_too_large_is_not_kept(tmp_path: Path, name: str) -> None:
    with new_bundle(tmp_path / name) as sink:
        with pytest.raises(LimitError):
            sink.add("large", iter([b"x", b"y"]), 1)
        sink.add("small", [b"x"], 1)
    if name == "directory":
        assert [path.name for path in (tmp_path / name).iterdir()] == ["small"]
    else:
        with tarfile.open(tmp_path / name) as archive:
            assert len(archive.getnames()) == 2


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(PlaceError, match="exists already"), new_bundle(tmp_path / name):
        pytest.fail("it was begun")
    (tmp_path / name).unlink()
    with pytest.raises(PlaceError, match="exists already"):
        write_two(tmp_path / name, taken(tmp_path / name))
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="No such file or directory"), new_bundle(tmp_path / "no/b.tar"):
        pytest.fail("it was begun")
