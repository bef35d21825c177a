"""Whether another table, at the same hook and with the same priority, would have denied the packet otherwise.

Which of two such chains runs first depends on which was registered last, and recorded evidence does not tell: where
the order changes what the sender sees (silence or a refusal), the explanation says so.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import Finding
from calico_debug.walk.chains import run_base_chain
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Context, Trace, Undecided

if TYPE_CHECKING:
    from calico_debug.model.nft import Chain
    from calico_debug.walk.context import Denial
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.passage import Pass

WORDS = {True: "refuse", False: "drop"}


def order_finding(walker: NodeWalker, made: Pass) -> Finding | None:
    """A finding about the pass's first denial, None when the order of chains does not change the outcome."""
    denial = made.trace.denials[0]
    if denial.chain.hook is None or denial.chain.hook.type == "nat":
        return None
    for chain in _behind(walker, made, denial):
        other = _denial_by(walker, made, denial, chain)
        if other is not None and (other.reject is None) is not (denial.reject is None):
            here, there = denial.chain, other.chain
            return Finding(
                "hook-order",
                "info",
                f"on {walker.name}, table {there.family} {there.table} (chain {there.name}) would "
                f"{WORDS[other.reject is not None]} the packet at hook {denial.hook} with the same priority as table "
                f"{here.family} {here.table}; that {here.table} comes first is inferred from the age of the tables",
            )
    return None


def _behind(walker: NodeWalker, made: Pass, denial: Denial) -> list[Chain]:
    """Chains of other tables that the same hook runs after the denying one, with its priority."""
    chains = [stage.chain for stage in walker.stages(made.packet.family, denial.hook) if stage.chain is not None]
    priority = denial.chain.hook and denial.chain.hook.priority
    return [
        chain
        for chain in chains[chains.index(denial.chain) + 1 :]
        if chain.hook is not None
        and chain.hook.priority == priority
        and (chain.family, chain.table) != (denial.chain.family, denial.chain.table)
    ]


def _denial_by(walker: NodeWalker, made: Pass, denial: Denial, chain: Chain) -> Denial | None:
    """How the chain denies the packet: as the walk found when it went on, else tried now."""
    if made.trace.hypothetical:
        return next((d for d in made.trace.denials[1:] if d.hook == denial.hook and d.chain == chain), None)
    trace = Trace()
    context = Context(copy(made.packet), Chooser(), trace, walker.surroundings)
    context.hook = denial.hook
    try:
        survived = run_base_chain(walker.program, chain, context, None)
    except (Undecided, EvidenceError):
        return None
    return None if survived else trace.denials[0]
