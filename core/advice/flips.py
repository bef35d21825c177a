"""Which other flows an edit would flip: of every pair of pods, the same protocol and port."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.intent.matrix import matrix

if TYPE_CHECKING:
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Direction, Endpoint, PolicyFlow, Verdict
    from calico_debug.model.cluster import PolicyObject

MOST_PODS = 500
"""Pods of a cluster beyond which what an edit flips is not worked out: somebody waits for the answer."""


@dataclass(frozen=True, slots=True)
class Flips:
    """Pairs of pods whose verdict changes, but for the flow that was asked for. ``examples`` are some of them.

    ``count`` is None where there are too many pods to compare.
    """

    count: int | None
    examples: tuple[tuple[str, str], ...] = ()


def flips(before: Intent, after: Intent, edited: PolicyObject, direction: Direction, flow: PolicyFlow) -> Flips:
    """What else changes. Pods that the edited policy selects are taken at their side of the flow, all at the other."""
    version = flow.source.version
    pods = [one for one in after.applicability.endpoints if one.kind == "pod"]
    policy = next(
        one
        for one in after.applicability.policies
        if (one.key.kind, one.key.namespace, one.key.name) == (edited.kind, edited.namespace, edited.name)
    )
    own = [endpoint for endpoint, _ in after.applicability.selected_by(policy) if endpoint.kind == "pod"]
    if len(pods) > MOST_PODS:
        return Flips(None)
    sources, destinations = (own, pods) if direction == "egress" else (pods, own)
    count = 0
    examples: list[tuple[str, str]] = []
    for change in changed_pairs(before, after, sources, destinations, flow.protocol, flow.destination_port, version):
        asked = flow.source in change.source.addresses and flow.destination in change.destination.addresses
        if not asked:
            count += 1
            if len(examples) < EXAMPLES:
                examples.append((str(change.source), str(change.destination)))
    return Flips(count, tuple(examples))


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
