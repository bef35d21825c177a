"""The compiled tracing program."""

from __future__ import annotations

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


def test_an_object_of_another_source_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COMPILERS", ())
    program.object_path(tmp_path).write_bytes(b"object")
    changed = tmp_path / "changed.c"
    changed.write_bytes(program.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(program, "SOURCE", changed)
    with pytest.raises(MissingEvidence, match="apt-get install clang"):
        program.program_object(tmp_path)


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "COMPILERS", ("false",))
    with pytest.raises(EvidenceError, match="did not compile the tracing program"):
        program.compiled()


def test_an_image_makes_its_object_beforehand(tmp_path: Path) -> None:
    if program.compiler() is None:
        pytest.skip("clang is not installed")
    source = tmp_path / "packets.bpf.c"
    source.write_bytes(program.SOURCE.read_bytes())
    code = (
        "import sys; from pathlib import Path; from calico_debug.agent.packets import program; "
        "program.SOURCE = Path(sys.argv[1]); sys.exit(program.main())"
    )
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=True)
    (made,) = tmp_path.glob("*.bpf.o")
    assert done.stdout == f"{made}\n"
    assert made.read_bytes()[:4] == ELF
