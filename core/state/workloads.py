"""Pods' interfaces on a node: how their names begin (Felix's InterfacePrefix), and which addresses are behind them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Match, Meta, NamePrefix
from calico_debug.state.dataplane import CALICO_TABLES, IPTABLES_FILTERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.model.nft import Ruleset
    from calico_debug.state.node import NodeState

DEFAULT = "cali"
"""Felix's InterfacePrefix, unless it is set (felix/config/config_params.go)."""

SETTING = "FELIX_INTERFACEPREFIX"

FORWARD = "cali-FORWARD"
"""In every mode Felix matches each prefix in this chain (felix/rules/static.go), as ``cali+`` or ``cali*``."""


def workload_prefixes(state: NodeState) -> tuple[str, ...]:
    """Felix's setting where it is known (AKS: ``azv``), else what the rules it programmed say, else `DEFAULT`.

    FelixConfiguration's interfacePrefix is in the rules; Felix takes its environment before it.
    """
    given = tuple(prefix for one in state.felix.get(SETTING, "").split(",") if (prefix := one.strip()))
    if given:
        return given
    try:
        return programmed_prefixes(state.ruleset) or (DEFAULT,)
    except EvidenceError:
        return (DEFAULT,)


def routed_addresses(state: NodeState, note: Callable[[str], None]) -> Mapping[str, Sequence[str]]:
    """Single addresses that are routed to one interface, by the interface; ``note`` takes why some cannot be known."""
    found: dict[str, list[str]] = {}
    for family in (4, 6):
        try:
            tables = state.routing(family).tables
        except EvidenceError as error:
            note(str(error))
            continue
        for route in (route for routes in tables.values() for route in routes):
            if route.type == "unicast" and len(route.hops) == 1 and route.destination.num_addresses == 1:
                found.setdefault(route.hops[0].interface, []).append(str(route.destination.network_address))
    return found


def programmed_prefixes(ruleset: Ruleset) -> tuple[str, ...]:
    """The prefixes that Felix's rules match, () without such rules. Raises `EvidenceError`."""
    found: dict[str, None] = {}
    for family, table in ruleset.tables():
        native = (family, table) in CALICO_TABLES
        if not native and table not in IPTABLES_FILTERS:
            continue
        for rule in ruleset.rules(family, table, f"filter-{FORWARD}" if native else FORWARD) or ():
            for statement in rule.statements:
                match statement:
                    case Match(Meta("iifname" | "oifname"), "==", NamePrefix(prefix)):
                        found.setdefault(prefix)
    return tuple(found)
