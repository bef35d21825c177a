"""Files by which the network namespaces that this process can see are opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

PROCESSES = Path("/proc")
NAMED = (Path("/run/netns"), Path("/var/run/netns"))
"""Where `ip netns` and container runtimes bind network namespaces to names."""

MOST = 65536
"""Files that are looked at."""


def namespace_files() -> Iterator[Path]:
    """One file for each namespace: those with a name, then those of processes. One may be gone when it is opened."""
    known: set[tuple[int, int]] = set()
    paths = [path for folder in NAMED if folder.is_dir() for path in folder.iterdir()]
    paths += [process / "ns/net" for process in PROCESSES.iterdir() if process.name.isdigit()]
    for path in paths[:MOST]:
        try:
            status = path.stat()
        except OSError:
            continue
        if (status.st_dev, status.st_ino) not in known:
            known.add((status.st_dev, status.st_ino))
            yield path
