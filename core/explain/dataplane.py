"""Which dataplane a node runs, and whether Calico has programmed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import Finding
from calico_debug.state.bpf_checks import check_interfaces
from calico_debug.state.combined import IPTABLES_LEGACY, IPTABLES_NFT, CombinedRuleset
from calico_debug.state.combined import NFTABLES as NATIVE
from calico_debug.state.dataplane import (
    CALICO_TABLES,
    DISPATCH_CHAIN,
    IPTABLES,
    IPTABLES_CHAIN,
    IPTABLES_FILTERS,
    NFTABLES,
    rules_dataplane,
)
from calico_debug.walk.bpf_loaded import leftover_debug_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.nft import Ruleset
    from calico_debug.walk.node import NodeWalker


IPTABLES_NAMES = frozenset({"raw", "mangle", "nat", "filter", "security"})
"""Tables that iptables-nft makes in nf_tables under these names."""
WALKED_FAMILIES = frozenset({"ip", "ip6", "inet"})


def dataplane_of(walker: NodeWalker) -> str:
    """The node's dataplane, one of `calico_debug.state.dataplane`; "" when it has none, or it cannot be read."""
    try:
        return walker.state.dataplane
    except EvidenceError:
        return ""


def dataplane_on(node: str, walkers: Mapping[str, NodeWalker]) -> str:
    """The same of a node by its name; "" where there is no evidence of it."""
    return dataplane_of(walkers[node]) if node in walkers else ""


class Dataplanes:
    """Looks at each node once."""

    def __init__(self, source: EvidenceSource) -> None:
        """``source`` is where the nodes' evidence comes from."""
        self._source = source
        self._refused: dict[str, Exception | None] = {}
        self._findings: dict[str, tuple[Finding, ...]] = {}

    def admit(self, walker: NodeWalker) -> None:
        """Raise `EvidenceError` for a node without Calico."""
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
        if walker.state.dataplane:
            return None
        hint = walker.state.cni_hint()
        return EvidenceError(
            f"{walker.name} has no nftables table named calico, no iptables chains of Calico and no eBPF programs of it"
            + (f"; {hint}" if hint else "")
            + "; name a node that runs Calico"
        )

    def _look(self, walker: NodeWalker) -> list[Finding]:
        if walker.datapath is not None:
            return self._programs(walker)
        return [*_beside_each_other(walker), *self._unprogrammed(walker)]

    def _programs(self, walker: NodeWalker) -> list[Finding]:
        """What is wrong with the programs and maps of an eBPF node."""
        datapath = walker.datapath
        assert datapath is not None
        try:
            found = list(check_interfaces(walker.state.bpf, datapath.lookups))
            found.extend(leftover_debug_files(walker.state))
            walker.state.bpf.check_maps()
        except EvidenceError as error:
            found = [Finding("evidence", "info", f"{walker.name}: {error}")]
        return [*found, *walker.state.bpf.findings, *_beside_programs(walker)]

    def _unprogrammed(self, walker: NodeWalker) -> list[Finding]:
        ruleset = walker.program.ruleset
        programmed = [
            family
            for family, table in CALICO_TABLES
            if (family, table) in set(ruleset.tables()) and ruleset.rules(family, table, DISPATCH_CHAIN) is not None
        ]
        if programmed or dataplane_of(walker) != NFTABLES:
            return []
        return [
            Finding(
                "node-not-programmed",
                "error",
                f"{walker.name} has a table calico without chain {DISPATCH_CHAIN}: Felix has not programmed any "
                "policy there, and everything is let through; look at the log of calico-node on that node",
            )
        ]


def _beside_programs(walker: NodeWalker) -> list[Finding]:
    """Endpoint chains on an eBPF node are of a mode before, and meet what programs give to the host's rules."""
    left = rules_dataplane(walker.program.ruleset)
    if not left:
        return []
    return [
        Finding(
            "two-dataplanes",
            "warning",
            f"{walker.name} has Calico's eBPF programs, and rules for endpoints in {left} mode, which Felix does not "
            "keep up to date: what the programs hand to the host's rules meets both",
        )
    ]


def _programmed(ruleset: Ruleset, mode: str) -> bool:
    """Whether endpoints' chains of a mode are there."""
    return any(
        ruleset.rules(family, table, DISPATCH_CHAIN if mode == NFTABLES else IPTABLES_CHAIN) is not None
        for family, table in ruleset.tables()
        if ((family, table) in CALICO_TABLES if mode == NFTABLES else table in IPTABLES_FILTERS)
    )


def _beside_each_other(walker: NodeWalker) -> list[Finding]:
    """Rules of several origins on one node: each is walked, in the kernel's order, and a person should know."""
    ruleset = walker.program.ruleset
    if not isinstance(ruleset, CombinedRuleset):
        return []
    kinds = ruleset.kinds()
    hooked = {(chain.family, chain.table) for chain in ruleset.base_chains()}
    backends = {kinds[table] for table in hooked if table in kinds}
    found = []
    if {IPTABLES_NFT, IPTABLES_LEGACY} <= backends:
        found.append(
            Finding(
                "two-iptables-backends",
                "warning",
                f"{walker.name} has rules of iptables-nft and of iptables-legacy: packets meet both; "
                "let one backend own the rules and clear the other's",
            )
        )
    if _programmed(ruleset, NFTABLES) and _programmed(ruleset, IPTABLES):
        found.append(
            Finding(
                "two-dataplanes",
                "warning",
                f"{walker.name} has Calico's policy in nftables mode and in iptables mode: packets meet both, and "
                "Felix keeps only one up to date; up to v3.30 it leaves the other behind when its mode is changed",
            )
        )
    foreign = sorted(
        f"{family} {table}"
        for family, table in hooked
        if kinds.get((family, table)) == NATIVE and family in WALKED_FAMILIES and table not in IPTABLES_NAMES
    )
    if foreign and backends & {IPTABLES_NFT, IPTABLES_LEGACY}:
        listed = ", ".join(foreign)
        found.append(
            Finding("nftables-beside-iptables", "info", f"{walker.name} has nftables tables beside iptables: {listed}")
        )
    return found
