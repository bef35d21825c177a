"""DefaultEndpointToHostAction on a node of the eBPF dataplane: what becomes of a pod's packets to its own node.

Sources, the same in v3.28 to v3.32: felix/dataplane/linux/int_dataplane.go (setUpIptablesBPF) accepts such packets at
input when the setting is ACCEPT, and drops there those that no program has seen, whatever it is; felix/bpf-gpl/tc.c
(CALI_DROP_WORKLOAD_TO_HOST) is compiled in when it is DROP; RETURN leaves them to the other rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Bitwise, Match, Meta, NamePrefix, Rule, Verdict
from calico_debug.walk.bpf_outcomes import SEEN
from calico_debug.walk.hooks import INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.state.node import NodeState

ACCEPT, DROP, RETURN, UNKNOWN = "ACCEPT", "DROP", "RETURN", ""
SETTING: Final = "FELIX_DEFAULTENDPOINTTOHOSTACTION"
_FAMILIES: Final = {4: ("ip", "inet"), 6: ("ip6", "inet")}


def host_action(state: NodeState, family: int, interface: str) -> str:
    """ACCEPT, DROP or RETURN for packets from a pod's interface; UNKNOWN where evidence does not settle it.

    Felix's environment overrules every other place of the setting (felix/config/config_params.go), but may be newer
    than what runs: rules that say otherwise make it unknown.
    """
    compared = {operator for operator, _ in _seen_rules(state, family, interface)}
    if "==" in compared:
        return ACCEPT
    said = state.felix.get(SETTING, "").strip().upper()
    if said not in (ACCEPT, DROP, RETURN) or (said == ACCEPT and "!=" in compared):
        return UNKNOWN
    return said


def _seen_rules(state: NodeState, family: int, interface: str) -> Iterator[tuple[str, Rule]]:
    """Felix's rules at input for a pod's packets: with == those that programs have seen are accepted, with != others
    are dropped.
    """
    try:
        chains = [one for one in state.ruleset.base_chains() if one.family in _FAMILIES[family]]
    except EvidenceError:
        return
    for chain in chains:
        if chain.hook is None or (chain.hook.hook, chain.hook.type) != (INPUT, "filter"):
            continue
        for rule in state.ruleset.rules(chain.family, chain.table, chain.name) or ():
            operator = _compares_seen(rule, interface)
            if operator:
                yield operator, rule


def _compares_seen(rule: Rule, interface: str) -> str:
    """The operator of a rule that asks for nothing but a pod's interface and the mark SEEN; "" for any other rule."""
    operator, from_pod, accepts = "", False, False
    for statement in rule.statements:
        match statement:
            case Match(Meta("iifname"), "==", NamePrefix(prefix)) if interface.startswith(prefix):
                from_pod = True
            case Match(Bitwise(Meta("mark"), mask, 0), found, right) if mask == right == SEEN:
                operator = found
            case Match():
                return ""
            case Verdict(kind):
                accepts = kind == "accept"
            case _:
                continue
    if not from_pod or operator not in ("==", "!=") or accepts != (operator == "=="):
        return ""
    return operator
