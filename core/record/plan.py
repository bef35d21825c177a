"""What is read of a node, in which order, and what never is.

Rules come first and what packets change comes last: a connection in a bundle then met rules that are in it, too, unless
they changed meanwhile, which the generation of nf_tables tells (`calico_debug.state.generation`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

ORDER: tuple[str, ...] = (
    r"nft-ruleset\..*",
    r"ip6?tables-.*",
    r"ipset-.*",
    r"bpf/(tcx-query|net-show|cgroup-tree|prog-show|map-show|link-show|pins)\..*",
    r"var-run-calico-bpf/.*",
    r"bpf/xlated-.*",
    r"bpf/rodata-.*",
    r"bpf/map-(?!cali_v[46]_ct).*",
    r"ip-(addr|link)\..*",
    r"ip6?-(route|rule).*",
    r"sysctl\..*",
    r"felix-env\..*",
    r"ip-neigh\..*",
    r"bpf/map-cali_v[46]_ct.*",
    r"conntrack6?\..*",
)
"""Patterns of file names in the order of reading; what fits none is read at the end."""

NEVER_READ: tuple[str, ...] = (r"secrets(\..*)?\.json", r"configmaps(\..*)?\.json", r"certificatesigningrequests\..*")
"""Lists of cluster objects that a bundle never holds, even where a source offers them."""

_ORDER = tuple(re.compile(pattern) for pattern in ORDER)
_NEVER = re.compile("|".join(NEVER_READ))


def reading_order(files: Iterable[str]) -> Sequence[str]:
    """The files of a node in the order in which they are to be read, each once."""
    return sorted(dict.fromkeys(files), key=lambda file: (_place(file), file))


def is_never_read(file: str) -> bool:
    """Whether a list of cluster objects may hold secrets as such."""
    return _NEVER.fullmatch(file) is not None


def _place(file: str) -> int:
    return next((place for place, pattern in enumerate(_ORDER) if pattern.fullmatch(file)), len(_ORDER))
