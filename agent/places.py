"""Where a node's BPF file system and Calico's run-time files are, as this process sees them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

BPFFS = Path("/sys/fs/bpf")
"""Where Felix pins its maps (felix/bpf/bpfdefs/defs.go), and what bundles write, wherever it is mounted here."""
RUN_DIRECTORIES = (Path("/var/run/calico"), Path("/run/calico"))
PINNED_MAPS = "tc/globals"
MOUNTS = Path("/proc/self/mounts")

BPFFS_VARIABLE, RUN_VARIABLE = "CALICO_DEBUG_BPFFS", "CALICO_DEBUG_CALICO_RUN"
"""Environment variables that name other places; docs/agent.md has them."""

_ESCAPED = re.compile(r"\\([0-7]{3})")


def bpf_file_system(environment: Mapping[str, str] = os.environ, mounts: Path = MOUNTS) -> Path:
    """The directory: the one that is named, `BPFFS` where a BPF file system is mounted there, else the first that is
    mounted elsewhere and holds Calico's maps.
    """
    if named := environment.get(BPFFS_VARIABLE):
        return Path(named)
    try:
        lines = [line.split(" ") for line in mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()]
    except OSError:
        return BPFFS
    mounted = [Path(_ESCAPED.sub(_character, fields[1])) for fields in lines if len(fields) > 2 and fields[2] == "bpf"]
    if BPFFS in mounted:
        return BPFFS
    return next((path for path in mounted if (path / PINNED_MAPS).is_dir()), BPFFS)


def run_directory(environment: Mapping[str, str] = os.environ) -> Path:
    """The directory that calico-node has at /var/run/calico: the one that is named, else the first that is there."""
    if named := environment.get(RUN_VARIABLE):
        return Path(named)
    return next((path for path in RUN_DIRECTORIES if path.is_dir()), RUN_DIRECTORIES[0])


def _character(match: re.Match[str]) -> str:
    """proc(5): spaces and backslashes of a mount point are written as octal numbers."""
    return chr(int(match[1], 8))
