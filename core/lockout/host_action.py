"""What a node does with its own pods' traffic to itself, behind their policy: Felix's DefaultEndpointToHostAction.

Felix's default is Drop (felix/config/config_params.go of v3.28 to v3.32); Calico's operator and manifests set Accept in
calico-node's environment, so without it nothing is known. Return leaves it to rules that are not Calico's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from calico_debug.lockout.judge import CUT, OPEN, STAYS, Judgement
from calico_debug.model.cluster import FelixConfiguration

FIELD, VARIABLE = "defaultEndpointToHostAction", "FELIX_DEFAULTENDPOINTTOHOSTACTION"
STANDINGS: Final = {"accept": STAYS, "drop": CUT, "reject": CUT, "return": OPEN}


def judge_host_action(
    node: str, configurations: Sequence[FelixConfiguration], environment: Mapping[str, str]
) -> Judgement:
    """What becomes of a pod's packets to its own node, once policy has let them through."""
    action, origin = "", ""
    by_name = {one.name: one for one in configurations}
    for name in ("default", f"node.{node}"):
        given = by_name[name].spec.get(FIELD) if name in by_name else None
        if given is not None:
            action, origin = str(given), f"FelixConfiguration {name}"
    if VARIABLE in environment:
        action, origin = environment[VARIABLE], f"{VARIABLE} of Felix's environment"
    elif environment and not action:
        action, origin = "Drop", "Felix's default"
    if not action:
        return Judgement(OPEN, f"{FIELD} of node {node} is not in evidence: record felix-env.txt")
    standing = STANDINGS.get(action.strip().lower(), OPEN)
    return Judgement(standing, "" if standing == STAYS else f"{FIELD} is {action} ({origin}), which decides")
