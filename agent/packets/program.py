"""The compiled tracing program: from beside its source, or compiled in memory.

The object's name has a digest of the sources in it, so an object of another version is never taken. Images without a
compiler make one with ``python -m calico_debug.agent.packets.program``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from calico_debug.errors import EvidenceError, MissingEvidence

SOURCE = Path(__file__).with_name("packets.bpf.c")
HEADERS = "*.bpf.h"
"""What it includes, beside it."""
COMPILERS = ("clang", *(f"clang-{version}" for version in range(25, 10, -1)))
"""Debian's package clang, and its packages of single versions."""
SECONDS = 60.0
"""Longest run of the compiler, which takes a third of one."""


def program_object(directory: Path | None = None) -> bytes:
    """The ELF object. ``directory`` is that of the source. Raises `MissingEvidence` without object and compiler,
    `EvidenceError` when the compiler fails.
    """
    path = object_path(directory)
    if path.is_file():
        return path.read_bytes()
    return compiled()


def object_path(directory: Path | None = None) -> Path:
    """Where the object of these sources belongs."""
    digest = hashlib.sha256()
    for path in (SOURCE, *sorted(SOURCE.parent.glob(HEADERS))):
        digest.update(path.read_bytes())
    return (directory or SOURCE.parent) / f"packets-{digest.hexdigest()[:16]}.bpf.o"


def compiler() -> str | None:
    """The compiler that is there."""
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


@lru_cache(maxsize=1)
def compiled() -> bytes:
    """The source, compiled once; no file is made. Raises as `program_object`."""
    found = compiler()
    if found is None:
        raise MissingEvidence(
            "observing packets takes a BPF program, and neither its object nor a compiler is here: install one with "
            "`apt-get install clang`"
        )
    # Types of the kernel are relocated when the program is loaded, so debug information has to be there: the same
    # wherever the sources are.
    folder = os.fspath(SOURCE.parent)
    options = ["-target", "bpf", "-O2", "-g", f"-fdebug-prefix-map={folder}=.", "-Wall", "-Werror", "-c", "-o", "-"]
    try:
        done = subprocess.run(
            [found, *options, os.fspath(SOURCE)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EvidenceError(f"{found} did not compile the tracing program ({error}); check the installation") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise EvidenceError(
            f"{found} did not compile the tracing program: {said[0] if said else done.returncode}; it takes clang 11 "
            "or newer with the target bpf"
        )
    return done.stdout


def main() -> int:
    """Write the object beside the source, for an image that has no compiler."""
    path = object_path()
    path.write_bytes(compiled())
    sys.stdout.write(f"{os.fspath(path)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
