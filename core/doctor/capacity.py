"""Maps, sets and tables that are full or nearly so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.bpf_layouts import is_calico
from calico_debug.decode.ipset import SavedSets
from calico_debug.doctor.model import Symptom, Unknown
from calico_debug.errors import EvidenceError
from calico_debug.evidence.source import PointLookups
from calico_debug.state.combined import SETS_FILE
from calico_debug.state.dataplane import EBPF, IPTABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.doctor.model import NodeView, Observation

NEARLY = 0.9
"""From this part on a map, set or table is called nearly full."""

COUNTED_TYPES = frozenset({"hash", "percpu_hash", "lpm_trie"})
"""Map types that refuse entries when they are full. Arrays are always full, LRU maps make room."""

CONNTRACK = "net.netfilter.nf_conntrack_"


def _level(code: str, what: str, count: int, limit: int) -> Symptom | None:
    if limit <= 0 or count < limit * NEARLY:
        return None
    full = count >= limit
    return Symptom(code, "error" if full else "warning", f"{what} holds {count} of at most {limit} entries")


def check_maps(node: NodeView) -> Iterator[Observation]:
    """The maps that an eBPF node's programs use."""
    if node.dataplane != EBPF:
        return
    state = node.state.bpf
    for number in sorted(state.reach.map_ids):
        info = state.maps.get(number)
        if info is None or not is_calico(info.name) or info.type not in COUNTED_TYPES:
            continue
        try:
            count = sum(batch.count for batch in state.kernel.batches(info))
        except EvidenceError as error:
            yield Unknown(f"how full map {info.name} is: {error}")
            continue
        if (found := _level("map-full", f"map {info.name}", count, info.max_entries)) is not None:
            yield found


def check_conntrack(node: NodeView) -> Iterator[Observation]:
    """The kernel's table of connections."""
    limit = node.state.sysctl(f"{CONNTRACK}max")
    if limit is None or not limit.isdecimal():
        yield Unknown(f"how many connections the kernel tracks at most: sysctl {CONNTRACK}max is not in evidence")
        return
    text = node.state.sysctl(f"{CONNTRACK}count")
    if text is not None and text.isdecimal():
        count = int(text)
    elif isinstance(node.evidence, PointLookups):
        yield Unknown(f"how many connections the kernel tracks: it has no sysctl {CONNTRACK}count")
        return
    else:
        count = sum(len(node.state.connections(family)) for family in (4, 6))
    if (found := _level("conntrack-full", "the kernel's table of connections", count, int(limit))) is not None:
        yield found


def check_sets(node: NodeView) -> Iterator[Observation]:
    """ipsets, of nodes with iptables rules. Sets of nftables have no size unless they are made with one."""
    if node.dataplane != IPTABLES:
        return
    saved = SavedSets(node.evidence.read(SETS_FILE), f"{SETS_FILE} of {node.evidence.origin}")
    for name in saved.names():
        description = saved.describe(name)
        limit = description.options.get("maxelem", "") if description is not None else ""
        if (
            limit.isdecimal()
            and (found := _level("set-full", f"ipset {name}", saved.count(name), int(limit))) is not None
        ):
            yield found
