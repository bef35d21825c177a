"""Pods that changed objects have to do with: where a large cluster's changes are most likely to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from calico_debug.diff.model import Change, ObjectKey
from calico_debug.intent.model import DIRECTIONS, PolicyFlow, PolicyKey, Side

if TYPE_CHECKING:
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Endpoint, Policy

MOST_TOUCHED: Final = 100
"""Pods that are given, of all changes together."""

EACH: Final = 2
"""Kinds of pods that are given of each thing that a change has to do with."""


def touched(intents: Sequence[Intent], changes: Iterable[Change]) -> tuple[str, ...]:
    """Pods by name: those that a changed policy selects and those that its rules name, changed ones, those of changed
    namespaces, accounts, tiers, nodes and services.
    """
    found: dict[str, None] = {}
    finders = [_Finder(intent) for intent in intents]
    for change in changes:
        for finder in finders:
            found.update(dict.fromkeys(map(str, finder.of(change.key))))
            if len(found) >= MOST_TOUCHED:
                return tuple(found)[:MOST_TOUCHED]
    return tuple(found)


class _Finder:
    """Finds pods in one state."""

    def __init__(self, intent: Intent) -> None:
        self._intent = intent
        self._pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
        self._policies = {policy.key: policy for policy in intent.applicability.policies}

    def of(self, key: ObjectKey) -> Iterator[Endpoint]:
        policy = self._policies.get(PolicyKey(key.kind, key.namespace, key.name))
        if policy is not None:
            yield from self._of_policy(policy)
        elif key.kind == "Tier":
            for inside in self._policies.values():
                if inside.tier == key.name:
                    yield from self._kinds(self._selected(inside))
        else:
            yield from self._kinds(pod for pod in self._pods if self._belongs(pod, key))

    def _belongs(self, pod: Endpoint, key: ObjectKey) -> bool:
        match key.kind:
            case "Pod":
                return (pod.namespace, pod.name) == (key.namespace, key.name)
            case "Namespace":
                return pod.namespace == key.name
            case "ServiceAccount":
                return f"ksa.{key.namespace}.{key.name}" in pod.profiles
            case "Node":
                return pod.node == key.name
            case "Service":
                return bool(set(pod.addresses) & self._backends(key))
        return False

    def _backends(self, key: ObjectKey) -> set[object]:
        services = self._intent.cluster.services
        return {
            backend.address
            for one in services
            if (one.namespace, one.name) == (key.namespace, key.name)
            for backend in one.backends
        }

    def _of_policy(self, policy: Policy) -> Iterator[Endpoint]:
        yield from self._kinds(self._selected(policy))
        for direction in DIRECTIONS:
            for rule in policy.rules(direction):
                side = rule.source if direction == "ingress" else rule.destination
                yield from self._kinds(pod for pod in self._pods if self._is_on(side, pod))

    def _selected(self, policy: Policy) -> Iterator[Endpoint]:
        return (one for one in self._pods if self._intent.applicability.selects(policy, one) is not False)

    def _is_on(self, side: Side, pod: Endpoint) -> bool:
        """Whether a side of a rule means the pod, whatever the port."""
        bare = replace(side, ports=(), not_ports=(), named_ports=(), not_named_ports=())
        address = pod.addresses[0]
        flow = PolicyFlow(address, address, 6)
        return all(answer is not False for answer in self._intent.matching.side_answers(bare, flow, is_source=True))

    def _kinds(self, pods: Iterable[Endpoint]) -> Iterator[Endpoint]:
        """Of pods the first ones that selectors tell apart."""
        known: dict[int, Endpoint] = {}
        for pod in islice(pods, _LOOKED_AT):
            known.setdefault(self._intent.applicability.class_of(pod), pod)
            if len(known) >= EACH:
                break
        return iter(known.values())


_LOOKED_AT: Final = 1_000
"""Pods that are looked at for others that selectors tell apart."""
