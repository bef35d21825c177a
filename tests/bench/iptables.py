"""A recorded iptables node with many more rules, as a bundle and as rules in a namespace."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.lab import namespaces

if TYPE_CHECKING:
    from pathlib import Path

RULES_A_CHAIN = 20


def crowd(rules: int) -> str:
    """Policy chains of iptables mode that nobody refers to, ``rules`` rules in all, as iptables-save prints them."""
    names, lines = [], []
    for chain in range(rules // RULES_A_CHAIN):
        name = f"cali-pi-_crowd{chain:014}"
        names.append(f":{name} - [0:0]")
        for rule in range(RULES_A_CHAIN):
            source = f"10.{chain % 250}.{rule}.0/24"
            ports = f"-p tcp -m multiport --dports {1000 + rule},{2000 + rule}:{2010 + rule}"
            lines.append(f"[0:0] -A {name} -s {source} {ports} -j MARK --set-xmark 0x10000/0x10000")
    return "\n".join(["*filter", ":INPUT ACCEPT [0:0]", *names, *lines, "COMMIT", ""])


def crowded_bundle(recording: Path, folder: Path, rules: int) -> Path:
    """The recording with the crowd among node1's filter rules; returns the bundle."""
    with tarfile.open(recording) as archive:
        archive.extractall(folder)  # noqa: S202 - our own recording
    (bundle,) = (path for path in folder.iterdir() if path.is_dir())
    saved = bundle / "nodes/node1/iptables-save.txt"
    text = saved.read_text()
    start = text.index("*filter\n") + len("*filter\n")
    end = text.index("COMMIT", start)
    body = crowd(rules).splitlines()
    names = "".join(f"{line}\n" for line in body if line.startswith(":cali-"))
    added = "".join(f"{line}\n" for line in body if line.startswith("["))
    saved.write_text(text[:start] + names + text[start:end] + added + text[end:])
    return bundle


@contextmanager
def crowded_node(rules: int) -> Iterator[str]:
    """A namespace whose kernel holds the crowd; gives its name."""
    made = namespaces.create(["crowd"])
    try:
        namespaces.run(made["crowd"], ["iptables-restore"], crowd(rules))
        yield made["crowd"]
    finally:
        namespaces.delete(made.values())
