"""The directory of captures: documents, what is refused, and what an agent before has left."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from calico_debug.agent.captures.folder import DOCUMENT, IDS, Folder
from calico_debug.agent.captures.ring import OPEN
from calico_debug.errors import EvidenceError, MissingEvidence
from tests.agent.captures.test_ring import EVENT, PLACES, TOLD, ring


def capture(folder: Folder, *, state: str = "running", packets: int = 1) -> str:
    """One as a running agent leaves it."""
    name, path = folder.new()
    folder.write(name, {"id": name, "state": state})
    one = ring(path)
    for _ in range(packets):
        one.put(EVENT, PLACES, TOLD)
    return name


def test_made_when_needed_for_its_owner_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "captures")
    assert folder.ids() == []
    assert folder.size() == 0
    assert not folder.path.exists()
    name, path = folder.new()
    assert IDS.fullmatch(name)
    assert [stat.S_IMODE(one.stat().st_mode) for one in (folder.path, path)] == [0o700, 0o700]
    folder.write(name, {"id": name})
    assert stat.S_IMODE((path / DOCUMENT).stat().st_mode) == 0o600
    assert folder.ids() == [name]


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """It may be somebody's; each capture's folder is its owner's alone."""
    tmp_path.chmod(0o755)
    name, path = Folder(tmp_path).new()
    assert [stat.S_IMODE(one.stat().st_mode) for one in (tmp_path, path)] == [0o755, 0o700]
    assert name == path.name


def test_another_agent_waits_its_turn(tmp_path: Path) -> None:
    one, two = Folder(tmp_path), Folder(tmp_path)
    one.claim()
    one.claim()
    with pytest.raises(EvidenceError, match="another agent keeps its captures"):
        two.claim()
    one.release()
    two.claim()


def test_what_an_agent_before_has_left(tmp_path: Path) -> None:
    before = Folder(tmp_path)
    name, nothing, ended = capture(before), capture(before, packets=0), capture(before, state="ended")
    begun, path = before.new()
    before.release()
    after = Folder(tmp_path)
    after.claim()
    document = after.read(name)
    assert (document["state"], document["endedBy"]) == ("interrupted", "the end of the agent")
    assert [(file["name"], file["packets"]) for file in document["files"]] == [("00001.pcapng", 1)]
    assert after.read(nothing)["files"] == []
    assert after.read(ended)["state"] == "ended"
    assert not path.exists()
    assert begun not in after.ids()
    assert not list(tmp_path.rglob(f"*{OPEN}"))


def test_a_document_that_is_damaged(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    name = capture(folder)
    for content in (b"", b"[1]", b"{", b"[" * 100_000):
        (tmp_path / name / DOCUMENT).write_bytes(content)
        assert folder.read(name) == {"id": name, "files": []}


@pytest.mark.parametrize(
    "name", ["", "..", "../captures", "20261121-174704-8DB1", "20261121-174704-8db1", "a" * 10_000]
)
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "captures")
    folder.claim()
    for ask in (folder.read, folder.delete):
        with pytest.raises(MissingEvidence, match="there is no capture"):
            ask(name)


@pytest.mark.parametrize("file", ["", DOCUMENT, "../capture.json", "00001.pcapng.open", "/etc/passwd", "00002.pcapng"])
def test_files_that_are_none(tmp_path: Path, file: str) -> None:
    folder = Folder(tmp_path)
    name = capture(folder)
    with pytest.raises(MissingEvidence):
        folder.content(name, file)


def test_content(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    name = capture(folder)
    content = (tmp_path / name / f"00001.pcapng{OPEN}").read_bytes()
    assert b"".join(folder.content(name, "00001.pcapng", 100, ending=OPEN)) == content[:100]
    assert folder.size() == 0
    folder.release()
    Folder(tmp_path).claim()
    assert b"".join(folder.content(name, "00001.pcapng")) == content
    assert folder.size() == len(content)


def test_others_in_the_directory_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / DOCUMENT).write_text(json.dumps({"state": "running"}))
    folder = Folder(tmp_path)
    folder.claim()
    assert folder.ids() == []
    assert json.loads((tmp_path / "mine" / DOCUMENT).read_text()) == {"state": "running"}


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvidenceError, match="name another directory with --captures"):
        Folder(tmp_path / "file" / "captures").claim()


def test_a_capture_is_there_when_something_is_known_of_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    name, _ = folder.new()
    assert folder.ids() == []
    folder.write(name, {"id": name, "state": "running"})
    assert folder.ids() == [name]
    other, _ = folder.new()
    folder.delete(other)
    assert folder.ids() == [name]
