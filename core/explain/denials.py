"""Denials outside an endpoint's chain: the rest of Calico's rules, kube-proxy's, and everybody else's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.explain.kube_proxy import is_kube_proxy, reason_and_detail
from calico_debug.model.nft import Fib, Lookup, Match, Rule
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment

if TYPE_CHECKING:
    from calico_debug.walk.context import Denial

_COMMENTS = {
    CommentKind.UNKNOWN_INTERFACE: ("unknown-interface", "Calico knows no endpoint for the interface"),
    CommentKind.HOST_ACTION: ("host-default", "DefaultEndpointToHostAction denies what pods send to their own node"),
    CommentKind.TUNNEL_REFUSED: ("encapsulation", "the tunnel packet comes from an address that is no Calico node's"),
    CommentKind.ENCAPSULATED_BY_WORKLOAD: ("encapsulation", "workloads may not send encapsulated packets"),
    CommentKind.ADMIN_DISABLED: ("endpoint-disabled", "the endpoint is administratively down"),
    CommentKind.PACKET_RATE: ("rate-limit", "the endpoint's packet rate limit"),
    CommentKind.CONNECTION_LIMIT: ("rate-limit", "the endpoint's connection limit"),
}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why, in the vocabulary of ``decision.reason``, and in words."""

    reason: str
    detail: str


def cause_of(denial: Denial) -> Cause:
    """The cause of a denial that no policy made."""
    rule = denial.rule
    if rule is None:
        chain = denial.chain
        where = f"chain {chain.name} of table {chain.family} {chain.table}"
        return Cause("not-calico", f"the policy of {where} is to drop and none of its rules accepted")
    if is_kube_proxy(rule):
        return Cause(*reason_and_detail(rule, reversed(denial.stack)))
    role = chain_role(rule.chain)
    if role is None:
        where = f"table {rule.family} {rule.table}, chain {rule.chain}"
        return Cause("not-calico", f"a rule of {where}, which is not Calico's")
    said = parse_comment(rule.comment)
    if said.kind in _COMMENTS:
        return Cause(*_COMMENTS[said.kind])
    if _checks_reverse_path(rule):
        return Cause("rpf", "the source address does not belong to the interface that the packet came from")
    if role.kind is ChainKind.CIDR_BLOCK:
        return Cause("service-loop", "the destination is a service address that no service has")
    return Cause("rule", said.text or f"a rule of chain {rule.chain}")


def _checks_reverse_path(rule: Rule) -> bool:
    return any(
        (isinstance(s, Match) and isinstance(s.left, Fib)) or (isinstance(s, Lookup) and isinstance(s.key, Fib))
        for s in rule.statements
    )
