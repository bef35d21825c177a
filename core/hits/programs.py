"""Rules of policy programs of the eBPF dataplane that no packet gets to.

Only rules of the same tier are held against each other: what an earlier tier lets through is asked again in the tiers
of pods behind those of their host.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from calico_debug.hits.boxes import ANY, Box, Conditions, apart, rest, restricted
from calico_debug.hits.felix_rules import Members, conditions
from calico_debug.hits.model import ALWAYS, AS_SETS_ARE, EMPTY, UNREACHABLE

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, RuleView

BOXES: Final = 256
"""Boxes that what is left of a rule may take; beyond that nothing is claimed."""
COMPARISONS: Final = 1_000_000
"""Rules held against each other in one tier; what comes behind them is not judged."""
DECIDING: Final = frozenset({"Allow", "Deny", "Pass"})
"""Actions that end a tier for the packets that match."""

Named = tuple["PolicyView", "RuleView", int]
"""A rule with its policy and its place there."""

Found = tuple[int, str, tuple[int, ...]]
"""The place of a rule in its tier, `Proof.standing`, and the places of those that shadow it."""


class Proofs:
    """Finds rules that no packet gets to in the programs of one node, whose pods have many tiers in common."""

    def __init__(self) -> None:
        """Nothing is proven yet."""
        self._known: dict[Hashable, tuple[Found, ...]] = {}

    def of(self, view: EndpointView, members: Members) -> Iterator[tuple[Named, tuple[str, str, tuple[Named, ...]]]]:
        """Rules that no packet matches, each with `Proof.standing`, `Proof.holds`, and the rules that shadow it.

        ``view`` is of a program that Felix's debug file tells of, else nothing is claimed. ``members`` are always the
        same for a family.
        """
        for tier in view.tiers:
            if tier.end is None:
                continue
            rules = [(policy, rule, place) for policy in tier.policies for place, rule in enumerate(policy.rules)]
            shape = tuple((_programmed(rule), rule.action) for _, rule, _ in rules)
            proven: dict[int, tuple[str, str, tuple[Named, ...]]] = {}
            with_sets = [(AS_SETS_ARE, members)] if any("_set_ids:" in text for text, _ in shape) else []
            for holds, known in ((ALWAYS, _nothing_known), *with_sets):
                key = view.family, holds, shape
                if key not in self._known:
                    self._known[key] = tuple(_of_tier(shape, view.family, known))
                for number, standing, by in self._known[key]:
                    proven.setdefault(number, (standing, holds, tuple(rules[one] for one in by)))
            for number, why in proven.items():
                yield rules[number], why


def _programmed(rule: RuleView) -> str:
    """What the program has of the rule, "" for nothing."""
    return "" if rule.absent.startswith("it is not of") else rule.programmed


def _nothing_known(_: str) -> None:
    """Members of a set, when it is to be proven whatever sets hold."""
    return


def _of_tier(shape: Sequence[tuple[str, str]], family: int, members: Members) -> Iterator[Found]:
    """``shape`` has of each rule what is programmed, and its action."""
    earlier: list[tuple[int, Conditions]] = []
    left = COMPARISONS
    for number, (programmed, action) in enumerate(shape):
        if not programmed:
            continue
        wanted = conditions(programmed, family, members)
        own = restricted(ANY, wanted)
        if own is None:
            yield number, EMPTY, ()
        else:
            left -= len(earlier)
            if left < 0:
                return
            if (by := _shadowing(own, earlier)) is not None:
                yield number, UNREACHABLE, by
        if action in DECIDING and wanted.exact:
            earlier.append((number, wanted))


def _shadowing(own: Box, earlier: Sequence[tuple[int, Conditions]]) -> tuple[int, ...] | None:
    """The rules that leave nothing of the box, one alone where it is enough; None where something is left."""
    left = [own]
    takers: list[tuple[int, Conditions]] = []
    for number, wanted in earlier:
        if not all(apart(box, wanted) for box in left):
            takers.append((number, wanted))
            left = [one for box in left for one in rest(box, wanted)]
        if not left or len(left) > BOXES:
            break
    if left:
        return None
    enough = next((one for one, wanted in takers if next(rest(own, wanted), None) is None), None)
    return tuple(one for one, _ in takers) if enough is None else (enough,)
