"""The objects that changed a flow's answer, found by making some of the changes and asking the objects again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from calico_debug.diff.bisect import OutOfTries, independent
from calico_debug.diff.changes import applied
from calico_debug.diff.intended import UNRESOLVED, Intentions
from calico_debug.diff.model import Answer, Cause, Change, FlowText
from calico_debug.state.held import HeldCluster

if TYPE_CHECKING:
    from calico_debug.state.cluster import ClusterState

MOST_STATES: Final = 300
"""States with some of the changes made that are worked out for one comparison; each costs what a cluster costs."""

MOST_SETS: Final = 3
"""Sets of objects, each of which would do it alone, that are looked for."""

MOST_KEPT: Final = 40
"""States that are held in memory at once."""

POLICY_REASONS: Final = frozenset({"rule", "end-of-tier", "profile", "no-profile", "no-policy", "host-default"})
"""Reasons of decisions that are policy's; all others are of the path."""


_Judge = Callable[[Intentions], bool]
_Suffices = Callable[[Sequence[Change]], bool]


class Culprits:
    """Finds causes for many flows between the same two states."""

    def __init__(
        self, before: ClusterState, after: ClusterState, changes: Sequence[Change], namespace: str | None = None
    ) -> None:
        """``changes`` are those between the two states, ``namespace`` that of names without one."""
        self._before, self._after = before, after
        self._changes = changes
        self._namespace = namespace
        self._ends = Intentions(before, namespace), Intentions(after, namespace)
        self._states: dict[frozenset[Change], Intentions] = {
            frozenset(): self._ends[0],
            frozenset(changes): self._ends[1],
        }
        self._made = 0
        self._found: dict[tuple[object, ...], list[tuple[tuple[Change, ...], ...]]] = {}

    @property
    def ends(self) -> tuple[Intentions, Intentions]:
        """What the objects decide before and after."""
        return self._ends

    def cause(self, flow: FlowText, before: Answer, after: Answer) -> Cause:
        """Why the answer of a flow changed."""
        old, new = (end.of(flow) for end in self._ends)
        verdict_changed = before.verdict != after.verdict
        if UNRESOLVED in (old.verdict, new.verdict):
            return Cause("not-found", message="the objects do not have its ends in both states")
        if old.key == new.key and old.verdict == "undetermined":
            return Cause("not-found", message="what the objects decide is not determined")
        if old.key == new.key or (verdict_changed and old.verdict == new.verdict):
            return self._elsewhere(flow, before, after)
        if verdict_changed:
            return self._objects(lambda state: state.of(flow).verdict == new.verdict, (old.verdict, new.verdict))
        return self._objects(lambda state: state.of(flow).key == new.key, (old.key, new.key))

    def _objects(self, is_after: _Judge, kind: tuple[object, ...]) -> Cause:
        def suffices(some: Sequence[Change]) -> bool:
            return is_after(self._state(frozenset(some)))

        try:
            for known in self._found.get(kind, ()):
                if self._is_answer(known, suffices):
                    return Cause("objects", known)
            sets = tuple(independent(self._changes, suffices, MOST_SETS))
        except OutOfTries:
            message = f"the objects decide otherwise, and {MOST_STATES} tries were not enough to find which"
            return Cause("not-found", message=message)
        self._found.setdefault(kind, []).append(sets)
        return Cause("objects", sets)

    def _is_answer(self, sets: tuple[tuple[Change, ...], ...], suffices: _Suffices) -> bool:
        """Whether what was found for another flow is what would be found for this one: single objects, each of which
        does it, without which the others do not.
        """
        if any(len(one) != 1 for one in sets) or not all(suffices(one) for one in sets):
            return False
        rest = [change for change in self._changes if (change,) not in sets]
        return len(sets) == MOST_SETS or not suffices(rest)

    def _state(self, made: frozenset[Change]) -> Intentions:
        if made not in self._states:
            self._made += 1
            if self._made > MOST_STATES:
                raise OutOfTries
            keys = frozenset(change.key for change in made)
            cluster = applied(self._before.cluster, self._after.cluster, keys)
            if len(self._states) >= MOST_KEPT:
                oldest = next(key for key in self._states if key and len(key) != len(self._changes))
                del self._states[oldest]
            self._states[made] = Intentions(HeldCluster(cluster, self._before), self._namespace)
        return self._states[made]

    def _elsewhere(self, flow: FlowText, before: Answer, after: Answer) -> Cause:
        """The objects decide the same in both states, so it is something of the nodes."""
        if before.dataplane != after.dataplane and before.dataplane and after.dataplane:
            return Cause("dataplane", message=f"{before.dataplane} became {after.dataplane}")
        reasons = [decision.reason for answer in (before, after) for decision in answer.reason.decisions]
        outside = dict.fromkeys(reason for reason in reasons if reason not in POLICY_REASONS)
        if outside:
            return Cause("path", message=f"decided by {', '.join(outside)}")
        meant = self._ends[1].of(flow).verdict
        agreeing = before.verdict == self._ends[0].of(flow).verdict, after.verdict == meant
        match agreeing:
            case True, False:
                return Cause("programmed", message=f"by the objects it is {meant} still: the second state drifted")
            case False, True:
                return Cause("programmed", message=f"by the objects it was {meant} before: the first state had drifted")
        return Cause("programmed", message=f"by the objects it is {meant} in both")
