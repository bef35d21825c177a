"""A change of policy that is not made yet: manifests applied onto the objects of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import yaml

from calico_debug.decode import kubernetes
from calico_debug.decode.policies import CALICO_GROUPS, POLICY_SOURCES, PolicySource, decode_policy
from calico_debug.errors import UsageError
from calico_debug.model.cluster import Cluster, FelixConfiguration, HostEndpoint, NetworkSet, PolicyObject, Tier

LARGEST: Final = 16 << 20
"""Bytes of the largest manifest that is taken."""
DOCUMENTS: Final = 10_000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Change:
    """Objects to be applied. ``skipped`` are kinds among them that change nothing here, as ``Kind name``."""

    policies: tuple[PolicyObject, ...] = ()
    host_endpoints: tuple[HostEndpoint, ...] = ()
    tiers: tuple[Tier, ...] = ()
    network_sets: tuple[NetworkSet, ...] = ()
    felix_configurations: tuple[FelixConfiguration, ...] = ()
    skipped: tuple[str, ...] = ()

    def applied(self, cluster: Cluster) -> Cluster:
        """The cluster as it would be."""
        return replace(
            cluster,
            policies=_merged(cluster.policies, self.policies, lambda one: (one.kind, one.namespace, one.name)),
            host_endpoints=_merged(cluster.host_endpoints, self.host_endpoints, lambda one: one.name),
            tiers=_merged(cluster.tiers, self.tiers, lambda one: one.name),
            network_sets=_merged(cluster.network_sets, self.network_sets, lambda one: (one.namespace, one.name)),
        )

    def settings(self, known: Sequence[FelixConfiguration]) -> Sequence[FelixConfiguration]:
        """Felix's settings as they would be."""
        return _merged(known, self.felix_configurations, lambda one: one.name)


def decode_change(data: bytes, what: str) -> Change:
    """The objects of a manifest: YAML documents (so JSON, too) or a list. ``what`` names it in messages.

    Raises `UsageError` for what is no manifest, and for an object that the API would not take as far as it is read.
    """
    if len(data) > LARGEST:
        raise UsageError(f"{what} has more than {LARGEST >> 20} MiB: this is no manifest of policy")
    try:
        documents = list(yaml.safe_load_all(data))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{what} is not YAML ({' '.join(str(error).split())})") from None
    objects = [one for document in documents for one in _objects(document, what)]
    if not objects:
        raise UsageError(f"{what} has no object: give manifests as kubectl apply takes them")
    if len(objects) > DOCUMENTS:
        raise UsageError(f"{what} has more than {DOCUMENTS} objects: apply a part of them")
    found: dict[str, list[Any]] = {}
    skipped = []
    for entry in objects:
        kind, group = str(entry.get("kind") or ""), str(entry.get("apiVersion") or "").rpartition("/")[0]
        decode, field = _decoder(kind, group)
        if decode is None:
            skipped.append(f"{kind or 'an object without a kind'} {_name(entry)}")
            continue
        try:
            found.setdefault(field, []).append(decode(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"{what}: {kind} {_name(entry)} is not understood: {error}") from None
    return Change(**{field: tuple(items) for field, items in found.items()}, skipped=tuple(skipped))


_CALICO: Final[Mapping[str, tuple[Callable[[Any], Any], str]]] = {
    "HostEndpoint": (kubernetes.decode_host_endpoint, "host_endpoints"),
    "Tier": (kubernetes.decode_tier, "tiers"),
    "NetworkSet": (kubernetes.decode_network_set, "network_sets"),
    "GlobalNetworkSet": (kubernetes.decode_network_set, "network_sets"),
    "FelixConfiguration": (kubernetes.decode_felix_configuration, "felix_configurations"),
}


def _decoder(kind: str, group: str) -> tuple[Callable[[Any], Any] | None, str]:
    source = next((one for one in POLICY_SOURCES if _api_kind(one) == kind and group in one.groups), None)
    if source is not None:
        return lambda entry: decode_policy(_in_namespace(entry, source), source), "policies"
    if group in CALICO_GROUPS and kind in _CALICO:
        return _CALICO[kind]
    return None, ""


def _api_kind(source: PolicySource) -> str:
    return "NetworkPolicy" if source.kind == "KubernetesNetworkPolicy" else source.kind


NAMESPACED: Final = frozenset(
    {"NetworkPolicy", "KubernetesNetworkPolicy", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"}
)


def _in_namespace(entry: Mapping[str, Any], source: PolicySource) -> Mapping[str, Any]:
    """The object, in kubectl's default namespace where it needs one and names none."""
    meta = entry["metadata"]
    if source.kind in NAMESPACED and not meta.get("namespace"):
        return {**entry, "metadata": {**meta, "namespace": "default"}}
    return entry


def _objects(document: Any, what: str) -> Iterator[Mapping[str, Any]]:
    if document is None:
        return
    if not isinstance(document, dict):
        raise UsageError(f"{what} has a document that is no object: give manifests as kubectl apply takes them")
    items = document.get("items")
    if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
        for item in items:
            yield from _objects(item, what)
    else:
        yield document


def _name(entry: Mapping[str, Any]) -> str:
    meta = entry.get("metadata")
    return str(meta.get("name") or "without a name") if isinstance(meta, dict) else "without a name"


def _merged(known: Sequence[Item], given: Sequence[Item], key: Callable[[Item], object]) -> tuple[Item, ...]:
    """What is known, with what is given in place of what has the same key, or behind it."""
    found = {key(one): one for one in known}
    found.update({key(one): one for one in given})
    return tuple(found.values())
