"""Running programs: bounded, quoted, never a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from calico_debug.agent import commands
from calico_debug.agent.commands import failed, output_of, run
from calico_debug.errors import EvidenceError, MissingEvidence


def test_output() -> None:
    done = run(["sh", "-c", "echo out; echo err >&2; exit 4"])
    assert (done.status, done.stdout, done.stderr) == (4, b"out\n", "err")
    assert output_of(["sh", "-c", "printf '%s' $LC_ALL"]) == b"C"


def test_a_program_that_hangs_is_ended() -> None:
    with pytest.raises(EvidenceError, match=r"`sleep 60` did not finish within 0.05 s"):
        run(["sleep", "60"], seconds=0.05)


def test_programs_that_cannot_run(tmp_path: Path) -> None:
    with pytest.raises(MissingEvidence, match="no-such-program is not installed"):
        run(["no-such-program"])
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    with pytest.raises(EvidenceError, match="Exec format error; check the installation"):
        run([str(broken)])


def test_programs_of_administrators_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho found\n")
    tool.chmod(0o755)
    monkeypatch.setattr(commands, "ADMINISTRATION", str(tmp_path))
    assert output_of(["tool"]) == b"found\n"


def test_rights_are_asked_for_only_of_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(["sh", "-c", "echo Operation not permitted >&2; exit 1"])
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert str(failed(["x"], done)) == "`x` failed: Operation not permitted; run as root on the node"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(failed(["x"], done)).endswith("run it by hand on the node to see more")
    assert "exit status 1" in str(failed(["x"], run(["false"])))
