"""Which dataplane Calico programmed on a node, as the node's own rules and programs tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.state.iptables import LEGACY_SUFFIX

if TYPE_CHECKING:
    from calico_debug.model.nft import Ruleset

NFTABLES, IPTABLES, EBPF = "nftables", "iptables", "ebpf"
"""Values of ``decision.dataplane``."""

CALICO_TABLES = frozenset({("ip", "calico"), ("ip6", "calico")})
"""Calico's tables in nftables mode, v3.29 and later (felix/dataplane/linux/int_dataplane.go)."""

IPTABLES_FILTERS = frozenset({"filter", f"filter{LEGACY_SUFFIX}"})
IPTABLES_CHAIN = "cali-from-wl-dispatch"
"""In iptables mode Felix always programs this chain, in eBPF mode never (felix/rules/static.go)."""


DISPATCH_CHAIN = "filter-cali-from-wl-dispatch"
"""The same in nftables mode."""


def rules_dataplane(ruleset: Ruleset) -> str:
    """NFTABLES or IPTABLES, by the chains of endpoints that Calico programmed; "" without any. `EvidenceError`."""
    tables = ruleset.tables()
    for family, table in tables:
        if (family, table) in CALICO_TABLES and ruleset.rules(family, table, DISPATCH_CHAIN) is not None:
            return NFTABLES
        if table in IPTABLES_FILTERS and ruleset.rules(family, table, IPTABLES_CHAIN) is not None:
            return IPTABLES
    return ""
