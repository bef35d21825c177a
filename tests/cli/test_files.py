"""Files that commands make."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from calico_debug.cli.files import new_file
from calico_debug.errors import CalicoDebugError, UsageError


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "new"
    with new_file(str(path), "-f") as stream:
        stream.write(b"x")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"x", 0o600)
    with pytest.raises(UsageError, match="is there already: name another file with -f"):
        new_file(str(path), "-f")


@pytest.mark.parametrize("name", ["no/where", "nul\0"])
def test_places_that_are_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(CalicoDebugError, match=r"cannot be made: .*; name another file with --write"):
        new_file(str(tmp_path / name), "--write")
