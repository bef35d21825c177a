"""Of the rules that a tier's end denies a flow for, the one that came closest to allowing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from calico_debug.intent.evaluate import Decision
    from calico_debug.intent.matching import Matching
    from calico_debug.intent.model import Policy, PolicyFlow, Rule


def nearest_rule(matching: Matching, decision: Decision, flow: PolicyFlow) -> tuple[Policy, Rule] | None:
    """The allowing rule with the fewest clauses that fail, the earliest of equals; None if no policy has such a rule.

    ``decision`` is one by the end of a tier.
    """
    best: tuple[int, Policy, Rule] | None = None
    for policy in decision.selecting:
        for rule in policy.rules(decision.direction):
            if rule.action != "Allow" or rule.problem:
                continue
            failed = matching.failing(rule, flow)
            if failed and (best is None or failed < best[0]):
                best = failed, policy, rule
    return best[1:] if best is not None else None
