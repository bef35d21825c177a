"""Which objects differ between two states of a cluster, and a cluster with only some of the changes made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import chain
from typing import Any, Final

from calico_debug.diff.model import Change, ObjectKey
from calico_debug.model.cluster import Cluster


@dataclass(frozen=True, slots=True)
class _List:
    """A list of `Cluster`, and how its objects are identified."""

    attribute: str
    key: Callable[[Any], ObjectKey]


def _named(kind: str) -> Callable[[Any], ObjectKey]:
    return lambda one: ObjectKey(kind, getattr(one, "namespace", ""), one.name)


_LISTS: Final = (
    _List("policies", lambda one: ObjectKey(one.kind, one.namespace, one.name)),
    _List("tiers", _named("Tier")),
    _List("network_sets", lambda one: ObjectKey("NetworkSet" if one.namespace else "GlobalNetworkSet", *_place(one))),
    _List("host_endpoints", _named("HostEndpoint")),
    _List("services", _named("Service")),
    _List("pods", _named("Pod")),
    _List("nodes", _named("Node")),
)
_LABELS: Final[tuple[tuple[str, Callable[[Any], ObjectKey]], ...]] = (
    ("namespaces", lambda key: ObjectKey("Namespace", "", key)),
    ("service_accounts", lambda key: ObjectKey("ServiceAccount", *key)),
)
"""Mappings of `Cluster` from names to labels."""


def _place(one: Any) -> tuple[str, str]:
    return one.namespace, one.name


def changes(before: Cluster, after: Cluster) -> tuple[Change, ...]:
    """Objects that were added, removed or changed, policies first."""
    return tuple(chain(_of_lists(before, after), _of_labels(before, after)))


def _of_lists(before: Cluster, after: Cluster) -> Iterator[Change]:
    for one in _LISTS:
        old, new = (_index(cluster, one) for cluster in (before, after))
        for key in dict.fromkeys((*old, *new)):
            if key not in new:
                yield Change(key, "removed")
            elif key not in old:
                yield Change(key, "added")
            elif different := tuple(_fields(old[key], new[key])):
                yield Change(key, "changed", different)


def _index(cluster: Cluster, one: _List) -> dict[ObjectKey, Any]:
    return {one.key(entry): entry for entry in getattr(cluster, one.attribute)}


def _of_labels(before: Cluster, after: Cluster) -> Iterator[Change]:
    for attribute, made in _LABELS:
        old, new = getattr(before, attribute), getattr(after, attribute)
        for key in dict.fromkeys((*old, *new)):
            if key not in new:
                yield Change(made(key), "removed")
            elif key not in old:
                yield Change(made(key), "added")
            elif old[key] != new[key]:
                yield Change(made(key), "changed", tuple(_keys("labels", old[key], new[key])))


def _fields(old: Any, new: Any) -> Iterator[str]:
    """What differs of two objects; of mappings which keys."""
    assert is_dataclass(old)
    for field in fields(old):
        one, other = getattr(old, field.name), getattr(new, field.name)
        if one == other or field.name in _IGNORED:
            continue
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _keys(field.name, one, other)
        else:
            yield field.name.replace("_", " ")


_IGNORED: Final = frozenset({"annotations"})
"""Fields that decide nothing."""


def _keys(name: str, old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Iterator[str]:
    found = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    # Ports of pods have (protocol, name) for keys
    yield from (f"{name} {'/'.join(key) if isinstance(key, tuple) else key}" for key in found)


def applied(before: Cluster, after: Cluster, made: Collection[ObjectKey]) -> Cluster:
    """The first state with the changes of these objects made."""
    parts: dict[str, Any] = {}
    for one in _LISTS:
        old, new = (_index(cluster, one) for cluster in (before, after))
        touched = [key for key in made if key in old or key in new]
        if touched:
            for key in touched:
                old.pop(key, None)
                if key in new:
                    old[key] = new[key]
            parts[one.attribute] = tuple(old.values())
    for attribute, of in _LABELS:
        names = dict(getattr(before, attribute))
        for name in {*names, *getattr(after, attribute)}:
            if of(name) in made:
                names.pop(name, None)
                if name in getattr(after, attribute):
                    names[name] = getattr(after, attribute)[name]
        parts[attribute] = names
    return replace(before, **parts)
