"""Which other flows an edit would flip: of every pair of pods, the same protocol and port."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from calico_debug.intent.matrix import Member, Pairs, both, matrix
from calico_debug.intent.model import Direction, PolicyFlow

if TYPE_CHECKING:
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Endpoint, Policy, Rule, Verdict
    from calico_debug.model.cluster import PolicyObject

Thing = TypeVar("Thing")

MOST_DECISIONS: Final = 100_000
"""Decisions about groups of pods beyond which what an edit flips is not worked out: somebody waits for the answer."""

_OTHER: Final[Mapping[Direction, Direction]] = {"egress": "ingress", "ingress": "egress"}


@dataclass(frozen=True, slots=True)
class Flips:
    """Pairs of pods whose verdict changes, but for the flow that was asked for. ``examples`` are some of them.

    ``count`` is None where there are too many groups of pods to compare.
    """

    count: int | None
    examples: tuple[tuple[str, str], ...] = ()


class FlipCounter:
    """Counts what edits of one cluster's policies change, for the protocol and port of one flow.

    An edit changes what the pods decide that its policy selects, and only about pods that a changed rule may match. The
    other end decides as before, so there the unedited policies are asked.
    """

    def __init__(self, before: Intent, asked: PolicyFlow) -> None:
        """``before`` is the cluster without the edit, ``asked`` the flow that is not counted."""
        self._asked = asked
        self._key = asked.protocol, asked.destination_port, asked.source.version
        self._before = Pairs(before, *self._key)
        pods = (one for one in before.applicability.endpoints if one.kind == "pod")
        members = (self._before.member(one) for one in pods)
        self._pods = {str(one.endpoint): one for one in members if one is not None}

    def flips(self, after: Intent, edited: PolicyObject, direction: Direction) -> Flips:
        """What else an edit in that direction changes."""
        new = _policy(after, edited)
        if new is None:
            return Flips(None)
        pairs = Pairs(after, *self._key)
        own = _by(
            (self._own(one, pairs, direction) for one, _ in after.applicability.selected_by(new) if one.kind == "pod"),
            lambda one: (one.old.group, _tiers(one.old, direction), one.new.group, _tiers(one.new, direction)),
        )
        others = _by(self._others(after, new, direction, pairs), lambda one: (one.old.group, one.new.group))
        if len(own) * len(others) > MOST_DECISIONS:
            return Flips(None)
        found = _Found(self._asked, direction)
        for ours in own.values():
            for theirs in others.values():
                was = self._before.decision(ours[0].old, direction, theirs[0].old)
                becomes = pairs.decision(ours[0].new, direction, theirs[0].new)
                if was != becomes:
                    self._answered(ours, theirs, direction, (was, becomes), found)
        return Flips(found.count, tuple(found.examples))

    # ------------------------------------------------------------------------------------------------------ internals

    def _answered(
        self,
        ours: Sequence[_Pod],
        theirs: Sequence[_Pod],
        direction: Direction,
        verdicts: tuple[Verdict, Verdict],
        found: _Found,
    ) -> None:
        """Count the pairs of two groups whose verdict changes, which hangs on the other end's decision, too."""
        back = _OTHER[direction]
        full = ((one, self._before.member(one.old.endpoint, back)) for one in theirs)
        known = ((one, member) for one, member in full if member is not None)
        for same in _by(known, lambda one: _tiers(one[1], back)).values():
            answer = self._before.decision(same[0][1], back, ours[0].old)
            was, becomes = (both(one, answer) if direction == "egress" else both(answer, one) for one in verdicts)
            if was != becomes:
                found.add(ours, [one for one, _ in same])

    def _own(self, endpoint: Endpoint, pairs: Pairs, direction: Direction) -> _Pod | None:
        known = self._pods.get(str(endpoint))
        old = self._before.member(known.endpoint, direction) if known is not None else None
        new = pairs.member(endpoint, direction)
        return None if old is None or new is None else _Pod(old, new)

    def _others(self, after: Intent, new: Policy, direction: Direction, pairs: Pairs) -> Iterator[_Pod]:
        """The pods that a rule which is new, or is no longer there, may match."""
        old = _policy(self._before.intent, new.source)
        rules = _changed(old, new, direction) if old is not None and old.types == new.types else None
        sides = [rule.source if direction == "ingress" else rule.destination for rule in rules or ()]
        # What hangs on ports and services is taken to match.
        bare = [
            replace(side, ports=(), named_ports=(), not_ports=(), not_named_ports=(), service=None) for side in sides
        ]
        ends = {str(one): one for one in after.applicability.endpoints}
        for name, known in self._pods.items():
            flow = PolicyFlow(known.address, known.address, self._asked.protocol)
            if rules is None or any(
                False not in after.matching.side_answers(one, flow, is_source=True) for one in bare
            ):
                member = pairs.member(ends[name])
                if member is not None:
                    yield _Pod(known, member)


@dataclass(frozen=True, slots=True)
class _Pod:
    """A pod as the cluster without the edit knows it, and as the one with it does."""

    old: Member
    new: Member


class _Found:
    """Pairs that were found; those of a pod with itself and the one that was asked for do not count."""

    def __init__(self, asked: PolicyFlow, direction: Direction) -> None:
        self._asked = asked
        self._direction = direction
        self.count = 0
        self.examples: list[tuple[str, str]] = []

    def add(self, ours: Sequence[_Pod], theirs: Sequence[_Pod]) -> None:
        sources, destinations = (ours, theirs) if self._direction == "egress" else (theirs, ours)
        for source in sources:
            for destination in destinations:
                if source.old.endpoint is destination.old.endpoint or self._is_asked(source, destination):
                    continue
                self.count += 1
                if len(self.examples) < EXAMPLES:
                    self.examples.append((str(source.old.endpoint), str(destination.old.endpoint)))

    def _is_asked(self, source: _Pod, destination: _Pod) -> bool:
        asked = self._asked
        return asked.source in source.old.endpoint.addresses and asked.destination in destination.old.endpoint.addresses


def _tiers(member: Member, direction: Direction) -> int:
    return member.egress if direction == "egress" else member.ingress


def _by(things: Iterable[Thing | None], key: Callable[[Thing], Hashable]) -> dict[Hashable, list[Thing]]:
    """Things with the same key together."""
    found: dict[Hashable, list[Thing]] = {}
    for thing in things:
        if thing is not None:
            found.setdefault(key(thing), []).append(thing)
    return found


def _policy(intent: Intent, wanted: PolicyObject) -> Policy | None:
    key = wanted.kind, wanted.namespace, wanted.name
    return next(
        (one for one in intent.applicability.policies if (one.key.kind, one.key.namespace, one.key.name) == key), None
    )


def _changed(old: Policy, new: Policy, direction: Direction) -> list[Rule]:
    """Rules that are in one of them only, wherever they stand."""
    before, after = ([replace(rule, index=0) for rule in policy.rules(direction)] for policy in (old, new))
    return [rule for rule in after if rule not in before] + [rule for rule in before if rule not in after]


EXAMPLES = 3
"""Pairs that are named."""


@dataclass(frozen=True, slots=True)
class Change:
    """A pair of pods whose verdict changes."""

    source: Endpoint
    destination: Endpoint
    was: Verdict
    becomes: Verdict


def changed_pairs(
    before: Intent,
    after: Intent,
    sources: Sequence[Endpoint],
    destinations: Sequence[Endpoint],
    protocol: int,
    port: int | None,
    version: int,
) -> Iterator[Change]:
    """The pairs of different pods whose verdict changes; the endpoints are those of ``after``."""
    known = {str(one): one for one in before.applicability.endpoints}
    old = matrix(
        before,
        [known[str(one)] for one in sources],
        [known[str(one)] for one in destinations],
        protocol,
        port,
        version,
    )
    new = matrix(after, sources, destinations, protocol, port, version)
    same: set[tuple[int, int]] = set()
    for source, was, becomes in zip(new.sources, old.rows, new.rows, strict=True):
        # Rows of equal pods are one object.
        key = id(was), id(becomes)
        if key in same:
            continue
        if was == becomes:
            same.add(key)
            continue
        for destination, one, other in zip(new.destinations, was, becomes, strict=True):
            if one != other and source is not destination:
                yield Change(source, destination, one, other)
