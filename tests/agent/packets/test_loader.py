"""Loading and letting go."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from calico_debug.agent.packets import loader
from calico_debug.agent.packets.loader import MAPS, PROGRAMS, load
from calico_debug.agent.packets.program import program_object
from calico_debug.errors import EvidenceError, MissingEvidence
from tests.agent.packets.conftest import need_observer
from tests.kernel.bpf_kernel import program_id

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _possible() -> None:
    need_observer()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_loaded_programs_and_maps_are_held_by_descriptors_alone() -> None:
    before = descriptors()
    loaded = load(program_object())
    try:
        assert tuple(loaded.maps) == MAPS
        assert descriptors() == before + len(MAPS) + len(PROGRAMS)
        loaded.attach()
        assert descriptors() == before + len(MAPS) + 2 * len(PROGRAMS)
        assert loaded.misses() == 0
        assert all(program_id(one) > 0 for one in loaded._programs.values())
        loaded.detach()
        assert descriptors() == before + len(MAPS) + len(PROGRAMS)
    finally:
        loaded.close()
    assert descriptors() == before


def test_what_is_no_object_is_refused_and_nothing_stays_open() -> None:
    before = descriptors()
    with pytest.raises(EvidenceError, match="bpftool did not load the tracing program"):
        load(b"nothing")
    assert descriptors() == before


def test_without_bpftool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "program_path", lambda _: None)
    with pytest.raises(MissingEvidence, match="apt-get install bpftool"):
        load(b"")


@pytest.mark.parametrize(("number", "words"), [(errno.EPERM, "needs root on the node"), (errno.ENOSYS, "Linux 5.17")])
def test_a_kernel_that_refuses(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    class Refusing:
        def syscall(self, *_: object) -> int:
            ctypes.set_errno(number)
            return -1

    monkeypatch.setattr(loader.ctypes, "CDLL", lambda *_, **__: Refusing())
    with pytest.raises(EvidenceError, match=words):
        loader._bpf_file_system()
