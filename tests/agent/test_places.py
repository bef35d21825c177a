"""Where the BPF file system and Calico's run-time files are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calico_debug.agent import places
from calico_debug.agent.places import BPFFS, bpf_file_system, run_directory


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A place with a space in its name that has Calico's maps."""
    found = tmp_path / "a place"
    (found / places.PINNED_MAPS).mkdir(parents=True)
    return found


def mounts(folder: Path, *mounted: Path) -> Path:
    table = folder / "mounts"
    lines = ["proc /proc proc rw 0 0", "broken", *(f"bpf {escaped(path)} bpf rw 0 0" for path in mounted)]
    table.write_text("\n".join(lines))
    return table


def escaped(path: Path) -> str:
    return str(path).replace(" ", "\\040")


def test_the_usual_place_is_taken_where_there_is_one(tmp_path: Path, elsewhere: Path) -> None:
    assert bpf_file_system({}, mounts(tmp_path, elsewhere, BPFFS)) == BPFFS
    assert bpf_file_system({}, mounts(tmp_path)) == BPFFS
    assert bpf_file_system({}, tmp_path / "nowhere") == BPFFS


def test_another_that_has_the_maps_is_found(tmp_path: Path, elsewhere: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert bpf_file_system({}, mounts(tmp_path, empty, elsewhere)) == elsewhere
    assert bpf_file_system({}, mounts(tmp_path, empty)) == BPFFS


def test_what_is_named_goes_first(tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bpf_file_system({"CALICO_DEBUG_BPFFS": "/host/bpf"}, mounts(tmp_path, BPFFS)) == Path("/host/bpf")
    monkeypatch.setattr(places, "RUN_DIRECTORIES", (tmp_path / "nowhere", elsewhere))
    assert run_directory({}) == elsewhere
    assert run_directory({"CALICO_DEBUG_CALICO_RUN": "/host/run"}) == Path("/host/run")
    monkeypatch.setattr(places, "RUN_DIRECTORIES", (tmp_path / "nowhere",))
    assert run_directory({}) == tmp_path / "nowhere"


@pytest.mark.kernel
def test_maps_of_another_place_are_listed_as_bundles_have_them(tmp_path: Path) -> None:
    """A process whose BPF file system is elsewhere: what it writes has the usual paths."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "bpf"
    place.mkdir()
    code = "from calico_debug.agent.bpf import LiveBpfNode; print(LiveBpfNode('n').read('bpf/pins.txt').decode())"
    made = f"mount -t bpf bpf {place} && mkdir -p {place}/tc/globals"
    script = f'umount -l {BPFFS}; {made} && exec {sys.executable} -c "{code}"'
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, timeout=60)
    if "permission denied" in done.stderr.lower():
        pytest.skip(f"no BPF file system can be mounted here: {done.stderr.strip()}")
    listed = done.stdout.split()
    assert listed[0] == "/sys/fs/bpf", done.stderr
    assert "/sys/fs/bpf/tc/globals" in listed
    assert all(path.startswith("/sys/fs/bpf") for path in listed)
