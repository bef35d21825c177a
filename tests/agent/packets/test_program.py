"""The compiled tracing program."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from calico_debug.agent.packets import program
from calico_debug.errors import EvidenceError, MissingEvidence

ELF = b"\x7fELF"
BPF_MACHINE = (247).to_bytes(2, "little")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    program.compiled.cache_clear()


def test_compiled_in_memory(tmp_path: Path) -> None:
    if program.compiler() is None:
        pytest.skip("clang is not installed")
    code = program.program_object(tmp_path)
    assert code[:4] == ELF
    assert code[18:20] in (BPF_MACHINE, BPF_MACHINE[::-1])
    assert list(tmp_path.iterdir()) == []


def test_an_object_of_this_source_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COMPILERS", ())
    program.object_path(tmp_path).write_bytes(b"object")
    assert program.program_object(tmp_path) == b"object"


def copied(folder: Path) -> Path:
    """The sources, at another place."""
    for path in (program.SOURCE, *program.SOURCE.parent.glob(program.HEADERS)):
        shutil.copy(path, folder)
    return folder / program.SOURCE.name


@pytest.mark.parametrize("name", ["packets.bpf.c", "kernel.bpf.h", "records.bpf.h", "headers.bpf.h", "filter.bpf.h"])
def test_an_object_of_another_source_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(program, "COMPILERS", ())
    monkeypatch.setattr(program, "SOURCE", copied(tmp_path))
    program.object_path(tmp_path).write_bytes(b"object")
    assert program.program_object(tmp_path) == b"object"
    with (tmp_path / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(MissingEvidence, match="apt-get install clang"):
        program.program_object(tmp_path)


def test_an_object_does_not_tell_where_its_sources_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if program.compiler() is None:
        pytest.skip("clang is not installed")
    here = program.compiled()
    program.compiled.cache_clear()
    monkeypatch.setattr(program, "SOURCE", copied(tmp_path))
    assert program.compiled() == here
    assert str(program.SOURCE.parent).encode() not in here


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COMPILERS", ("false",))
    with pytest.raises(EvidenceError, match="did not compile the tracing program"):
        program.compiled()


def test_an_image_makes_its_object_beforehand(tmp_path: Path) -> None:
    if program.compiler() is None:
        pytest.skip("clang is not installed")
    source = copied(tmp_path)
    code = (
        "import sys; from pathlib import Path; from calico_debug.agent.packets import program; "
        "program.SOURCE = Path(sys.argv[1]); sys.exit(program.main())"
    )
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
    (made,) = tmp_path.glob("*.bpf.o")
    assert done.stdout == f"{made}\n"
    assert made.read_bytes()[:4] == ELF
