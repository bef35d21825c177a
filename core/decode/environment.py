"""The environment of Felix: ``felix-env.txt``, one NAME=value a line."""

from __future__ import annotations

from collections.abc import Mapping


def decode_environment(data: bytes) -> Mapping[str, str]:
    """Variable name to value. Lines that are no assignment, and comments, are left out; quotes belong to the value."""
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, separator, value = line.partition("=")
        name = name.strip().removeprefix("export ").strip()
        if separator and name and not name.startswith("#"):
            values[name] = value
    return values
