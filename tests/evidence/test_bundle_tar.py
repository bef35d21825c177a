"""Bundles in tar archives: every compression, every trick, every kind of damage."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.errors import EvidenceError
from calico_debug.evidence.bundle import Limits, open_bundle

FILES = {"nodes/n1/ip-addr.json": b"[1]", "nodes/n2/sysctl.txt": b"", "cluster/pods.json": b"{}"}


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            add(archive, name, content)
    return path


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **fields: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("prefix", ["", "./", "case-1/", "./case-1/"])
@pytest.mark.parametrize("in_memory", [1 << 20, 100])
def test_reads_every_compression(tmp_path: Path, mode: str, prefix: str, in_memory: int) -> None:
    path = write_tar(tmp_path / "b.tar", {prefix + name: content for name, content in FILES.items()}, mode)
    source = open_bundle(path, Limits(in_memory=in_memory))
    assert source.nodes() == ["n1", "n2"]
    assert source.cluster_files() == ["pods.json"]
    # Backwards too, which a large compressed archive has to be decompressed again for.
    assert source.node("n2").read("sysctl.txt") == b""
    assert source.node("n1").read("ip-addr.json") == b"[1]"
    assert source.read_cluster("pods.json") == b"{}"


def test_a_large_file_is_read_whole(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    path = write_tar(tmp_path / "b.tar.gz", {**FILES, "nodes/n1/conntrack.txt": content}, "w:gz")
    assert open_bundle(path, Limits(in_memory=1000)).node("n1").read("conntrack.txt") == content


def test_directories_and_other_files_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "b.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "nodes", type=tarfile.DIRTYPE)
        add(archive, "nodes/n1", type=tarfile.DIRTYPE)
        add(archive, "nodes/n1/ip-addr.json", b"[]")
        add(archive, "README", b"hello")
    assert open_bundle(path).node("n1").files() == ["ip-addr.json"]


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("/etc/passwd", {}, "absolute name"),
        ("nodes/../../etc/passwd", {}, r'".." in its name'),
        ("..", {"type": tarfile.DIRTYPE}, r'".." in its name'),
        ("nodes/n1/x", {"type": tarfile.SYMTYPE, "linkname": "/etc/shadow"}, "is a link to '/etc/shadow'"),
        ("nodes/n1/x", {"type": tarfile.LNKTYPE, "linkname": "cluster/pods.json"}, "is a link"),
        ("nodes/n1/x", {"type": tarfile.CHRTYPE}, "not a regular file"),
        ("nodes/n1/x", {"type": tarfile.BLKTYPE}, "not a regular file"),
        ("nodes/n1/x", {"type": tarfile.FIFOTYPE}, "not a regular file"),
        ("nodes/n1/ip-addr.json", {}, "is in it twice"),
        ("./nodes//n1/ip-addr.json", {}, "is in it twice"),
        (".", {}, "makes no sense"),
    ],
)
def test_unsafe_members_are_refused(tmp_path: Path, name: str, fields: dict[str, object], message: str) -> None:
    path = write_tar(tmp_path / "b.tar", FILES)
    with tarfile.open(path, "a") as archive:
        add(archive, name, **fields)
    with pytest.raises(EvidenceError, match=message) as caught:
        open_bundle(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_bomb_costs_nothing(tmp_path: Path) -> None:
    bomb = {"nodes/n1/a": bytes(3 << 20), "nodes/n1/b": bytes(3 << 20), "nodes/n1/c": bytes(3 << 20)}
    path = write_tar(tmp_path / "b.tar.gz", bomb, "w:gz")
    assert path.stat().st_size < 100_000
    with pytest.raises(EvidenceError, match="unpacks to more than 4 MiB"):
        open_bundle(path, Limits(total=4 << 20, in_memory=1000))
    with pytest.raises(EvidenceError, match="is larger than 1 MiB"):
        open_bundle(path, Limits(file=1 << 20))
    with pytest.raises(EvidenceError, match="more than 2 members"):
        open_bundle(path, Limits(members=2))


def test_a_size_without_content(tmp_path: Path) -> None:
    member = tarfile.TarInfo("nodes/n1/a")
    member.size = 1 << 40
    (tmp_path / "b.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(EvidenceError, match="is larger than"):
        open_bundle(tmp_path / "b.tar")


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_name_of_gigabytes(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, 1 << 33
    (tmp_path / "b.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(EvidenceError, match="a header claims"):
        open_bundle(tmp_path / "b.tar")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete tar archive"),
        (b"hello", "is not a complete tar archive"),
        (b"x" * 5000, "is not a complete tar archive"),
        (bytes(10240), "is not a bundle"),
        (b"\x1f\x8b\x08\x00garbage", "is not a complete tar archive"),
        (b"BZh91AYgarbage", "is not a complete tar archive"),
        (b"\xfd7zXZ\x00garbage-garbage", "is not a complete tar archive"),
        (b"\x28\xb5\x2f\xfd....", "is zstd"),
        (b"PK\x03\x04....", "is a zip archive"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(EvidenceError, match=message):
        open_bundle(tmp_path / "b")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_truncation_is_noticed(tmp_path: Path, mode: str) -> None:
    whole = write_tar(tmp_path / "whole", {**FILES, "nodes/n1/conntrack.txt": bytes(range(256)) * 400}, mode)
    (tmp_path / "cut").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(EvidenceError, match="is not a complete tar archive"):
        open_bundle(tmp_path / "cut")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_one_clear_error(tmp_path: Path, data: st.DataObject) -> None:
    path = write_tar(tmp_path / "b", FILES, data.draw(st.sampled_from(["w", "w:gz", "w:xz"])))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 3000) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    assert "\n" not in message_of_reading(path)


def message_of_reading(path: Path) -> str:
    """The error that reading everything ends with, "" when there is none. Any other exception fails the test."""
    try:
        source = open_bundle(path)
        for node in source.nodes():
            for file in source.node(node).files():
                source.node(node).read(file)
    except EvidenceError as error:
        return str(error)
    return ""
