"""``sysctl -a`` output. Source: sysctl(8), "key = value" lines."""

from __future__ import annotations

from collections.abc import Mapping


def decode_sysctl(data: bytes) -> Mapping[str, str]:
    """Key to value, both as sysctl prints them. A line without "=" (sysctl's own complaints) holds no value and is
    left out; of a repeated key the last line counts.
    """
    values: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").splitlines():
        key, separator, value = line.partition("=")
        if separator and key.strip():
            values[key.strip()] = value.strip()
    return values
