"""Which dataplane a node runs, and whether Calico has programmed it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import Finding
from calico_debug.state.dataplane import CALICO_TABLES, DISPATCH_CHAIN, NFTABLES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.walk.node import NodeWalker


def dataplane_of(walker: NodeWalker) -> str:
    """The node's dataplane, one of `calico_debug.state.dataplane`; "" when it has none, or it cannot be read."""
    try:
        return walker.state.dataplane
    except EvidenceError:
        return ""


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
