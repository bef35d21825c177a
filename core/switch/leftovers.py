"""What a dataplane that no longer runs, or kube-proxy, has left behind on nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.doctor.catalogue import CATALOGUE, Entry
from calico_debug.doctor.examine import Report, examine
from calico_debug.doctor.model import NodeCheck, Symptom, Unknown
from calico_debug.doctor.rules import KUBE_PROXY_CHAIN, check_kube_proxy
from calico_debug.explain.kube_proxy import NFTABLES_TABLE
from calico_debug.state.dataplane import (
    CALICO_TABLES,
    DISPATCH_CHAIN,
    EBPF,
    IPTABLES,
    IPTABLES_CHAIN,
    IPTABLES_FILTERS,
    NFTABLES,
)

if TYPE_CHECKING:
    from calico_debug.doctor.model import NodeView, Observation
    from calico_debug.explain.engine import Engine
    from calico_debug.model.nft import Ruleset

PROGRAMS_FILE = "bpf/prog-show.json"
PINS = "/tc/globals/cali_"
"""Where Felix pins its maps below the BPF file system (felix/bpf/bpf.go, MapPinDir)."""

LEFTOVERS: Mapping[str, Entry] = {
    "kube-proxy-beside-bpf": CATALOGUE["kube-proxy-beside-bpf"],
    "leftover-maps": Entry(
        "maps of the eBPF dataplane are still pinned on a node that no longer runs it",
        "nothing needs to be done; Felix removes them when it starts without eBPF, a reboot of the node does, too",
    ),
    "leftover-programs": Entry(
        "programs of the eBPF dataplane are still attached on a node that has rules of another one: their policy "
        "and translation go on as they were last",
        "restart calico-node on that node, which removes them as it starts without eBPF; if they stay, look at its log",
    ),
    "leftover-rules": Entry(
        "endpoints' rules of more than one of Calico's rule dataplanes are on a node, and packets meet all of them",
        "restart calico-node on that node, which removes the other's rules as it starts; if they stay, look at its log",
    ),
}
"""What `look_for_leftovers` finds; docs/switch.md has the same table."""


def check_kube_proxy_counters(node: NodeView, earlier: Mapping[str, int]) -> Iterator[Observation]:
    """kube-proxy's rules beside eBPF, with what they have counted, and how much of it since ``earlier`` (by node)."""
    for found in check_kube_proxy(node):
        packets = kube_proxy_packets(node.ruleset)
        if isinstance(found, Symptom) and packets is not None:
            before = earlier.get(node.name)
            since = f", {packets - before} of them since the record" if before is not None and packets >= before else ""
            yield replace(found, seen=f"{found.seen}; its chains have counted {packets} packets so far{since}")
        else:
            yield found


def kube_proxy_packets(ruleset: Ruleset) -> int | None:
    """Packets that the rules of kube-proxy's first chains have counted, None where it has no chains; in nftables mode
    it has hardly any counters. Raises `EvidenceError`.
    """
    bases = [(base.family, base.table, base.name) for base in ruleset.base_chains()]
    chains = [place for place in bases if place[1] == NFTABLES_TABLE]
    chains += [(family, table, KUBE_PROXY_CHAIN) for family, table in ruleset.tables()]
    found = [rules for place in chains if (rules := ruleset.rules(*place)) is not None]
    counters = [rule.counter for rules in found for rule in rules]
    return sum(one.packets or 0 for one in counters if one is not None) if found else None


def _rule_dataplanes(node: NodeView) -> Mapping[str, list[str]]:
    """Where endpoints' rules of each rule dataplane are."""
    found: dict[str, list[str]] = {}
    for family, table in node.ruleset.tables():
        if (family, table) in CALICO_TABLES and node.ruleset.rules(family, table, DISPATCH_CHAIN) is not None:
            found.setdefault(NFTABLES, []).append(f"table {family} {table}")
        elif table in IPTABLES_FILTERS and node.ruleset.rules(family, table, IPTABLES_CHAIN) is not None:
            found.setdefault(IPTABLES, []).append(f"chain {IPTABLES_CHAIN} in table {family} {table}")
    return found


def check_rules(node: NodeView) -> Iterator[Observation]:
    """Rules of two rule dataplanes at once."""
    found = _rule_dataplanes(node)
    if len(found) > 1:
        places = "; ".join(f"{name}: {', '.join(places)}" for name, places in found.items())
        yield Symptom("leftover-rules", "error", places)


def check_programs(node: NodeView) -> Iterator[Observation]:
    """Programs and maps of eBPF where rules are in force, or the other way round."""
    if PROGRAMS_FILE not in node.evidence.files():
        if node.dataplane != EBPF:
            yield Unknown(f"whether programs of eBPF are left: evidence has no {PROGRAMS_FILE}")
        return
    rules = _rule_dataplanes(node)
    if node.dataplane == EBPF and not rules:
        return
    attached = node.state.bpf.reach.attachments
    if attached:
        places = sorted({one.interface or f"cgroup {one.place}" for one in attached})
        shown = ", ".join(places[:8]) + (f" and {len(places) - 8} more places" if len(places) > 8 else "")
        yield Symptom("leftover-programs", "error", f"{' and '.join(rules) or 'no'} rules, and programs at {shown}")
    pins = [pin for pin in node.state.bpf.pins if PINS in pin]
    if pins:
        yield Symptom("leftover-maps", "info", f"{len(pins)} maps pinned, such as {pins[0]}")


class LeftoverRow(NamedTuple):
    """A check after a switch: its name, and what it looks at."""

    name: str
    about: str


LEFTOVER_ROWS = (
    LeftoverRow("kube-proxy", "kube-proxy beside eBPF, and what its rules count"),
    LeftoverRow("rules", "endpoints' rules of two dataplanes"),
    LeftoverRow("programs", "programs and pinned maps of eBPF beside rules"),
)
"""What is looked at on each node after a switch; docs/switch.md has the same table."""


def look_for_leftovers(engine: Engine, earlier: Mapping[str, int] | None = None) -> Report:
    """Look at every node of the engine's evidence. ``earlier`` is what kube-proxy's rules had counted, by node.

    Nothing raises for evidence that is missing.
    """
    runs: Sequence[Callable[[NodeView], Iterator[Observation]]] = (
        partial(check_kube_proxy_counters, earlier=earlier or {}),
        check_rules,
        check_programs,
    )
    checks = [NodeCheck(row.name, row.about, run) for row, run in zip(LEFTOVER_ROWS, runs, strict=True)]
    return examine(engine.source, list(engine.states), checks, (), LEFTOVERS)
