"""Files of network namespaces: each namespace once, and nothing that is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.agent import namespace_files as module
from calico_debug.agent.namespace_files import namespace_files


def test_each_namespace_once_names_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    named, processes = tmp_path / "netns", tmp_path / "proc"
    (processes / "12/ns").mkdir(parents=True)
    (processes / "13/ns").mkdir(parents=True)
    (processes / "14").mkdir()
    (processes / "self/ns").mkdir(parents=True)
    named.mkdir()
    (named / "pod").touch()
    (processes / "12/ns/net").hardlink_to(named / "pod")
    (processes / "13/ns/net").touch()
    monkeypatch.setattr(module, "NAMED", (named, tmp_path / "none"))
    monkeypatch.setattr(module, "PROCESSES", processes)
    assert list(namespace_files()) == [named / "pod", processes / "13/ns/net"]


def test_no_more_than_so_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"pod{number}").touch()
    monkeypatch.setattr(module, "NAMED", (tmp_path,))
    monkeypatch.setattr(module, "MOST", 3)
    assert len(list(namespace_files())) == 3
