"""Live eBPF evidence where it is refused or missing; what works is in tests/kernel/test_bpf_maps.py."""

from __future__ import annotations

import ctypes
import errno
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from calico_debug.agent import bpf, bpf_library
from calico_debug.agent.bpf import LiveBpfNode, LiveMaps, pinned_paths
from calico_debug.agent.bpf_library import attached, library, possible_cpus
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bpf import LiveMaps as LiveMapsProtocol
from calico_debug.model.bpf_objects import MapInfo

INFO = MapInfo(7, "cali_v4_ct4", "lru_hash", 16, 88, 512000)


class Refusing:
    """A library whose every call fails with one errno."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __getattr__(self, name: str) -> Any:
        def call(*_arguments: object) -> int:
            ctypes.set_errno(self._number)
            return -1

        return call


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(number: int) -> None:
        monkeypatch.setattr(bpf_library, "library", lambda: Refusing(number))
        monkeypatch.setattr(bpf, "library", lambda: Refusing(number))

    return install


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EPERM, "not allowed to open map cali_v4_ct4 .id 7.: CAP_SYS_ADMIN .* is missing; run as root"),
        (errno.ENOENT, "cannot open map cali_v4_ct4 .id 7.: it is gone; try again"),
        (errno.ENOSYS, "this kernel has no bpf.2., or a sandbox forbids it"),
        (errno.ENOMEM, "Cannot allocate memory; try again"),
    ],
)
def test_a_map_that_cannot_be_opened(number: int, message: str, refuse: Any) -> None:
    refuse(number)
    with pytest.raises(EvidenceError, match=message):
        LiveMaps().lookup(INFO, bytes(16))


def test_hooks_that_may_not_be_queried(refuse: Any) -> None:
    refuse(errno.EPERM)
    with pytest.raises(EvidenceError, match="programs of interface 3: CAP_NET_ADMIN and CAP_BPF is missing"):
        attached(3, 46)
    for number in (errno.EINVAL, errno.ENODEV):
        refuse(number)
        assert attached(3, 46) is None


def test_without_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    library.cache_clear()
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(MissingEvidence, match="apt-get install python3-bpfcc"):
        LiveMaps().lookup(INFO, bytes(16))
    library.cache_clear()


def test_a_key_of_another_size() -> None:
    with pytest.raises(EvidenceError, match="a key of 3 bytes does not fit map cali_v4_ct4"):
        LiveMaps().lookup(INFO, b"abc")


def test_event_buffers_are_the_owners() -> None:
    with pytest.raises(EvidenceError, match="only its owner can read"):
        list(LiveMaps().batches(MapInfo(7, "cali_perf_evnt", "perf_event_array", 4, 4, 512)))


@pytest.mark.parametrize(("text", "count"), [("0", 1), ("0-127", 128), ("0-1,4-7", 6), ("0,2\n", 2)])
def test_possible_cpus(text: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "possible"
    path.write_text(text)
    assert possible_cpus(path) == count


@pytest.mark.parametrize("text", ["", "x-y"])
def test_possible_cpus_that_cannot_be_told(text: str, tmp_path: Path) -> None:
    path = tmp_path / "possible"
    with pytest.raises(EvidenceError, match="possible CPUs"):
        possible_cpus(path)
    path.write_text(text)
    with pytest.raises(EvidenceError, match="possible CPUs"):
        possible_cpus(path)


def test_no_bpffs(tmp_path: Path) -> None:
    with pytest.raises(MissingEvidence, match=r"no BPF file system is mounted at .*: in a container, mount the host's"):
        list(pinned_paths(tmp_path))


def test_paths_of_a_bpffs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tc" / "globals").mkdir(parents=True)
    (tmp_path / "tc" / "globals" / "cali_v4_ct4").touch()
    monkeypatch.setattr(bpf, "_is_bpffs", lambda _root: True)
    assert list(pinned_paths(tmp_path)) == [
        str(tmp_path / part) if part else str(tmp_path) for part in ("", "tc", "tc/globals", "tc/globals/cali_v4_ct4")
    ]


def test_files_of_a_live_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "POLICY_DEBUG", tmp_path)
    (tmp_path / "cali1_ingress_v4.json").write_text("{}")
    asked: list[tuple[str, ...]] = []

    def run(arguments: tuple[str, ...]) -> bytes:
        asked.append(arguments)
        return b""

    monkeypatch.setattr(bpf, "output_of", run)
    monkeypatch.setattr(bpf, "CALICO_CGROUP", tmp_path)
    node = LiveBpfNode("n1")
    assert isinstance(node, LiveMapsProtocol)
    policy = "var-run-calico-bpf/policy/cali1_ingress_v4.json"
    assert {"bpf/prog-show.json", "bpf/pins.txt", policy} <= set(node.files())
    assert node.read(policy) == b"{}"
    assert node.read("bpf/cgroup-tree.json") == b"[]"
    node.read("bpf/xlated-12-p4I_cali1.json")
    assert asked == [
        ("bpftool", "-j", "cgroup", "tree", str(tmp_path)),
        ("bpftool", "-j", "prog", "dump", "xlated", "id", "12", "opcodes"),
    ]
    for file in ("var-run-calico-bpf/policy/none.json", "var-run-calico-bpf/policy/../x.json", "nonsense"):
        with pytest.raises(MissingEvidence):
            node.read(file)


def test_a_map_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(bpf_lookup_batch=lambda *_a: 0)
    monkeypatch.setattr(bpf, "library", lambda: fake)
    monkeypatch.setattr(bpf, "open_map", lambda *_a: 3)
    with pytest.raises(EvidenceError, match="changes faster than it can be read"):
        list(LiveMaps().batches(MapInfo(7, "x", "hash", 4, 4, 100)))
