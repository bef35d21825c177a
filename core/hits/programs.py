"""Rules of policy programs of the eBPF dataplane that no packet gets to.

Only rules of the same tier are held against each other: what an earlier tier lets through is asked again in the tiers
of pods behind those of their host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from calico_debug.hits.boxes import ANY, Box, Conditions, apart, rest, restricted
from calico_debug.hits.felix_rules import Members, conditions
from calico_debug.hits.model import ALWAYS, AS_SETS_ARE, EMPTY, UNREACHABLE

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, RuleView, TierView

BOXES: Final = 256
"""Boxes that what is left of a rule may take; beyond that nothing is claimed."""
COMPARISONS: Final = 1_000_000
"""Rules held against each other in one tier; what comes behind them is not judged."""
DECIDING: Final = frozenset({"Allow", "Deny", "Pass"})
"""Actions that end a tier for the packets that match."""

Named = tuple["PolicyView", "RuleView", int]
"""A rule with its policy and its place there."""


def proofs(view: EndpointView, members: Members) -> Iterator[tuple[Named, tuple[str, str, tuple[Named, ...]]]]:
    """Rules that no packet matches, each with `Proof.standing`, `Proof.holds`, and the rules that shadow it.

    ``view`` is of a program that Felix's debug file tells of, else nothing is claimed.
    """
    for tier in view.tiers:
        if tier.end is None:
            continue
        found: dict[int, tuple[Named, tuple[str, str, tuple[Named, ...]]]] = {}
        texts = [rule.programmed for policy in tier.policies for rule in policy.rules]
        with_sets = [(AS_SETS_ARE, members)] if any("_set_ids:" in text for text in texts) else []
        for holds, known in ((ALWAYS, _nothing_known), *with_sets):
            for named, standing, by in _of_tier(tier, view.family, known):
                found.setdefault(id(named[1]), (named, (standing, holds, by)))
        yield from found.values()


def _nothing_known(_: str) -> None:
    """Members of a set, when it is to be proven whatever sets hold."""
    return


def _of_tier(tier: TierView, family: int, members: Members) -> Iterator[tuple[Named, str, tuple[Named, ...]]]:
    before: list[tuple[Named, Conditions]] = []
    left = COMPARISONS
    for policy in tier.policies:
        for place, rule in enumerate(policy.rules):
            if not rule.programmed or (rule.absent and rule.absent.startswith("it is not of")):
                continue
            named = (policy, rule, place)
            wanted = conditions(rule.programmed, family, members)
            own = restricted(ANY, wanted)
            left -= len(before)
            if left < 0:
                return
            if own is None:
                yield named, EMPTY, ()
            elif (by := _shadowing(own, before)) is not None:
                yield named, UNREACHABLE, by
            if rule.action in DECIDING and wanted.exact:
                before.append((named, wanted))


def _shadowing(own: Box, before: list[tuple[Named, Conditions]]) -> tuple[Named, ...] | None:
    """The rules that leave nothing of the box, one alone where it is enough; None where something is left."""
    left = [own]
    takers: list[tuple[Named, Conditions]] = []
    for named, wanted in before:
        if not all(apart(box, wanted) for box in left):
            takers.append((named, wanted))
            left = [one for box in left for one in rest(box, wanted)]
        if not left or len(left) > BOXES:
            break
    if left:
        return None
    enough = next((one for one, wanted in takers if next(rest(own, wanted), None) is None), None)
    return tuple(one for one, _ in takers) if enough is None else (enough,)
