"""Sentences of the steps that need no more than what was met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.evaluation import EndpointVisit, TierVisit
    from calico_debug.model.explanation import PolicyRef
    from calico_debug.walk.packet import Port

AT_CONNECT = "as the process connects: no packet has the service's address"
OUTSIDE_TIERS = {
    "profile": "no tier decided; profile {profile} allows",
    "established": "conntrack knows the connection, policy is not asked again",
    "host-default": "DefaultEndpointToHostAction lets pods reach their own node",
    "failsafe": "a failsafe port of the host endpoint",
    "no-policy": "no policy for forwarded traffic applies to the host endpoint",
    "no-profile": "no tier decided and no profile allowed",
    "ct-invalid": "conntrack finds the packet invalid",
    "endpoint-disabled": "the endpoint is administratively down",
    "encapsulation": "workloads may not send encapsulated packets",
    "rate-limit": "a limit on the endpoint's packets or connections is exceeded",
    "rule": "",
}
"""How an endpoint's chain decided without a policy, by reason."""


# Only tracked, translated packets are denied for want of a rule (felix/rules/endpoints.go, appendPolicyRules).
UNTRACKED_PASSED = "no rule matched; untracked policy (doNotTrack) denies only by a rule"
PRE_DNAT_PASSED = "no rule matched; policy before translation (preDNAT) denies only by a rule"
TIER_PASSED = "no rule matched, and the tier's default action is to pass"


def end_of_tier(workload: bool, policies: Sequence[PolicyRef]) -> str:
    """Why the end of a tier denied: these policies were asked."""
    names = [f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name for ref in policies]
    word = "pod" if workload else "host endpoint"
    if not names:
        return "end of tier: policies select the endpoint, none of their rules matched"
    if len(names) == 1:
        return f"end of tier: {names[0]} selects the {word}, none of its rules matched"
    return f"end of tier: {', '.join(names[:-1])} and {names[-1]} select the {word}, none of their rules matched"


def undecided_tier(visit: EndpointVisit, tier: TierVisit) -> str:
    """Why a tier let the packet go on although none of its rules matched."""
    if tier.outcome:
        return TIER_PASSED if tier.policies else "no policy of the tier is enforced here"
    return {"mangle": PRE_DNAT_PASSED, "raw": UNTRACKED_PASSED}.get(visit.role.layer, "no rule matched")


def spot(family: int, address: int, port: Port) -> str:
    """An address with its port, as ``10.0.0.1:80`` or ``[fd00::1]:80``; without the port where it is not known."""
    shown = str(address_from_int(family, address))
    if not isinstance(port, int):
        return shown
    return f"[{shown}]:{port}" if family == 6 else f"{shown}:{port}"
