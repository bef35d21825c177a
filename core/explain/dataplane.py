"""Which dataplane a node runs, and whether Calico has programmed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import Finding
from calico_debug.state.iptables import LEGACY_SUFFIX
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.nft import Ruleset
    from calico_debug.walk.node import NodeWalker

CALICO_TABLES = frozenset({("ip", "calico"), ("ip6", "calico")})
"""Calico's tables in nftables mode, v3.29 and later (felix/dataplane/linux/int_dataplane.go)."""

NFTABLES, IPTABLES = "nftables", "iptables"
"""Values of ``decision.dataplane``."""

IPTABLES_FILTERS = frozenset({"filter", f"filter{LEGACY_SUFFIX}"})
IPTABLES_CHAIN = "cali-from-wl-dispatch"
"""In iptables mode Felix always programs this chain, in eBPF mode never (felix/rules/static.go)."""

DISPATCH_CHAIN = "filter-cali-from-wl-dispatch"
_IPTABLES_FILES = ("iptables-save.txt", "iptables-legacy-save.txt", "ip6tables-save.txt")
_EBPF_FOLDER = "bpf/"


def dataplane_of(walker: NodeWalker) -> str:
    """NFTABLES or IPTABLES, by the rules that Calico programmed; "" when there are none, or none can be read."""
    try:
        return _programmed(walker.program.ruleset)
    except EvidenceError:
        return ""


def _programmed(ruleset: Ruleset) -> str:
    tables = ruleset.tables()
    if CALICO_TABLES & set(tables):
        return NFTABLES
    filters = [(family, table) for family, table in tables if table in IPTABLES_FILTERS]
    if any(ruleset.rules(family, table, IPTABLES_CHAIN) is not None for family, table in filters):
        return IPTABLES
    return ""


class Dataplanes:
    """Looks at each node once."""

    def __init__(self, source: EvidenceSource) -> None:
        """``source`` is where the nodes' evidence comes from."""
        self._source = source
        self._refused: dict[str, Exception | None] = {}
        self._findings: dict[str, tuple[Finding, ...]] = {}

    def admit(self, walker: NodeWalker) -> None:
        """Raise `Undecided` for a node in another mode than nftables, `EvidenceError` for one without Calico."""
        if walker.name not in self._refused:
            self._refused[walker.name] = self._objection(walker)
        objection = self._refused[walker.name]
        if objection is not None:
            raise objection

    def findings(self, walker: NodeWalker) -> Sequence[Finding]:
        """What is wrong with the node as a whole."""
        if walker.name not in self._findings:
            self._findings[walker.name] = tuple(self._look(walker))
        return self._findings[walker.name]

    def _objection(self, walker: NodeWalker) -> Exception | None:
        if _programmed(walker.program.ruleset):
            return None
        other = self._other_mode(walker.name)
        if other:
            return Undecided(f"{walker.name} runs Calico's {other} dataplane, which this version does not walk")
        hint = walker.state.cni_hint()
        return EvidenceError(
            f"{walker.name} has neither an nftables table named calico nor Calico's chains in iptables"
            + (f"; {hint}" if hint else "")
            + ": name a node that runs Calico in nftables or iptables mode"
        )

    def _other_mode(self, node: str) -> str:
        evidence = self._source.node(node)
        files = evidence.files()
        for file in _IPTABLES_FILES:
            if file in files and b":cali-FORWARD" in evidence.read(file):
                return "iptables or eBPF" if any(name.startswith(_EBPF_FOLDER) for name in files) else "iptables"
        return "eBPF" if any(name.startswith(_EBPF_FOLDER) for name in files) else ""

    def _look(self, walker: NodeWalker) -> list[Finding]:
        ruleset = walker.program.ruleset
        programmed = [
            family
            for family, table in CALICO_TABLES
            if (family, table) in set(ruleset.tables()) and ruleset.rules(family, table, DISPATCH_CHAIN) is not None
        ]
        if programmed or dataplane_of(walker) == IPTABLES:
            return []
        return [
            Finding(
                "node-not-programmed",
                "error",
                f"{walker.name} has a table calico without chain {DISPATCH_CHAIN}: Felix has not programmed any "
                "policy there, and everything is let through; look at the log of calico-node on that node",
            )
        ]
