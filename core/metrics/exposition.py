"""The text format of Prometheus, version 0.0.4.

Written out here because a page has ten thousand series whose labels stay the same: with the labels' text kept, a page
costs a tenth of what prometheus_client's own rendering of it takes. Its parser is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from calico_debug.metrics.families import FAMILIES, Family, Sample

KEPT = 1 << 16

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n"})


def page(samples: Iterable[Sample]) -> bytes:
    """The page: families in their order, and of each the samples in theirs. Families without samples are left out."""
    lines: dict[Family, list[str]] = {}
    for family, labels, value in samples:
        lines.setdefault(family, []).append(f"{series(family, labels)} {number(value)}\n")
    parts: list[str] = []
    for family in FAMILIES:
        if family in lines:
            parts.append(f"# HELP {family.name} {family.help.translate(_HELP_ESCAPES)}\n")
            parts.append(f"# TYPE {family.name} {family.type}\n")
            parts += lines[family]
    return "".join(parts).encode("utf-8", "backslashreplace")


@lru_cache(maxsize=KEPT)
def series(family: Family, labels: tuple[str, ...]) -> str:
    """``name{label="value",…}``."""
    pairs = zip(family.labels, labels, strict=True)
    text = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)
    return f"{family.name}{{{text}}}" if text else family.name


def number(value: float) -> str:
    """A value; whole ones without a point."""
    return repr(value) if isinstance(value, float) and not value.is_integer() else str(int(value))
