"""From a chain or a comment in the dataplane to the policy object that a user would look up.

Names of the dataplane: felix/rules/policy.go (PolicyChainName and the comment of a policy's first rule) with
felix/types/policy_id.go since v3.32, libcalico-go/lib/names/policy.go from v3.29 to v3.31, and
libcalico-go/lib/backend/syncersv1/updateprocessors in v3.28.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.chains import (
    IPTABLES_NAME_LIMIT,
    NFTABLES_NAME_LIMIT,
    ChainKind,
    ChainRole,
    CommentKind,
    RuleComment,
    limited_id,
)

SHORT_KINDS: Final = {
    "np": "NetworkPolicy",
    "gnp": "GlobalNetworkPolicy",
    "knp": "KubernetesNetworkPolicy",
    "kcnp": "ClusterNetworkPolicy",
    "snp": "StagedNetworkPolicy",
    "sgnp": "StagedGlobalNetworkPolicy",
    "sknp": "StagedKubernetesNetworkPolicy",
}
"""Kinds in chain names and NFLOG prefixes since v3.32 (felix/types/policy_id.go). Staged ones are never programmed."""

FELIX_KINDS: Final = {"KubernetesClusterNetworkPolicy": "ClusterNetworkPolicy"}
"""Kinds that Felix calls otherwise than Kubernetes does (v3.32, libcalico-go/lib/backend/model)."""

CLUSTER_KINDS: Final = frozenset(
    {"GlobalNetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy"}
)
"""Kinds without a namespace."""

_SHORT_NAMES: Final = {kind: short for short, kind in SHORT_KINDS.items()}

_CONVERTED: Final = (
    ("knp.default.", "KubernetesNetworkPolicy", "default"),
    ("kanp.adminnetworkpolicy.", "AdminNetworkPolicy", "adminnetworkpolicy"),  # v3.29 to v3.31
    ("kbanp.baselineadminnetworkpolicy.", "BaselineAdminNetworkPolicy", "baselineadminnetworkpolicy"),  # v3.30, v3.31
)
"""Prefixes of the names that Kubernetes' policies have up to v3.31, with kind and tier."""

_OPENSTACK_PREFIX: Final = "ossg."
CHAIN_PREFIXES: Final = ("cali-pi-", "cali-po-")
"""How the names of a policy's two chains begin."""


@dataclass(frozen=True, slots=True)
class PolicyIdentity:
    """A policy as far as the dataplane names it. ``kind`` is that of the API object, ``namespace`` "" if it has none.

    ``tier`` is "" where the dataplane does not say it. ``name`` is the object's own name as kubectl shows it; with
    names of v3.28 to v3.31 a policy of another tier than ``default`` keeps the tier in front.
    """

    kind: str
    namespace: str
    name: str
    tier: str = ""

    def __str__(self) -> str:
        """``Kind ns/name`` or ``Kind name``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def identity_of(policy: PolicyObject) -> PolicyIdentity:
    """The identity of an object."""
    return PolicyIdentity(policy.kind, policy.namespace, policy.name, policy.tier)


def identity_from_comment(comment: RuleComment) -> PolicyIdentity | None:
    """The policy that the comment of a policy chain's first rule names; None if it names none."""
    if comment.kind is not CommentKind.POLICY:
        return None
    if comment.policy_kind == "Policy":
        return _legacy_identity(comment.name)
    kind = FELIX_KINDS.get(comment.policy_kind, comment.policy_kind)
    namespace, slash, name = comment.name.rpartition("/")
    if bool(slash) == (kind in CLUSTER_KINDS) or "/" in namespace or not name:
        return None
    return PolicyIdentity(kind, namespace, name, _fixed_tier(kind))


def identity_from_chain(role: ChainRole) -> PolicyIdentity | None:
    """The policy whose id stands in a chain's name. None if the chain is no policy's, hashed, or says too little.

    ``default/default.x`` without a layer is a policy of namespace default in v3.28 and a global one of v3.29 to v3.31:
    None, its first comment or the objects decide.
    """
    if role.kind is not ChainKind.POLICY or role.hashed:
        return None
    return identity_from_id(role.subject, tiered=True if role.layer else None)


def identity_from_id(policy_id: str, *, tiered: bool | None = None) -> PolicyIdentity | None:
    """The policy behind an id, in any release's form: of a chain name, an NFLOG prefix or a debug file.

    ``tiered`` says whether an id that is not of v3.32's form starts with a tier: True for chains of v3.29 to v3.31,
    False for chains of v3.28 and for ids outside of chain names, None if unknown.
    """
    parts = policy_id.split("/")
    kind = SHORT_KINDS.get(parts[0])
    if kind and all(parts) and len(parts) == (2 if kind in CLUSTER_KINDS else 3):
        return PolicyIdentity(kind, "/".join(parts[1:-1]), parts[-1], _fixed_tier(kind))
    if tiered is None:
        tiered = _starts_with_tier(parts)
    if tiered is None:
        return None
    return _legacy_identity("/".join(parts[1:]) if tiered else policy_id)


def _starts_with_tier(parts: Sequence[str]) -> bool | None:
    """Whether an id of v3.28 to v3.31 starts with a tier: only v3.28, with one tier, has ids that do not."""
    if len(parts) != 2:
        return len(parts) == 3
    first, name = parts
    if name.startswith("knp.default."):
        return False
    if first == "default" and name.startswith("default."):
        return None
    # a namespace in v3.28, which has no other tier than default; before a name of another tier it is that tier
    return not name.startswith("default.")


def _fixed_tier(kind: str) -> str:
    return "default" if kind == "KubernetesNetworkPolicy" else ""


def _legacy_identity(full_name: str) -> PolicyIdentity | None:
    """The policy with ``Name`` ``full_name`` in v3.28 to v3.31: ``<ns>/<tier>.<name>``, ``<tier>.<name>`` and so on."""
    namespace, slash, name = full_name.rpartition("/")
    if not name or "/" in namespace or (slash and not namespace):
        return None
    for prefix, kind, tier in _CONVERTED:
        if name.startswith(prefix) and bool(namespace) != (kind in CLUSTER_KINDS):
            bare = name.removeprefix(prefix)
            return PolicyIdentity(kind, namespace, bare, tier) if bare else None
    kind = "NetworkPolicy" if namespace else "GlobalNetworkPolicy"
    tier, dot, rest = name.partition(".")
    if name.startswith(_OPENSTACK_PREFIX) or not dot or not rest or not tier:
        return PolicyIdentity(kind, namespace, name, "default")
    return PolicyIdentity(kind, namespace, rest if tier == "default" else name, tier)


class PolicyIndex:
    """Policy objects by what the dataplane calls them."""

    __slots__ = ("_by_chain", "_by_name", "_policies")

    def __init__(self, policies: Iterable[PolicyObject]) -> None:
        """Index the policies of a cluster."""
        self._policies = tuple(policies)
        self._by_chain: dict[str, list[PolicyObject]] | None = None
        self._by_name: dict[tuple[str, str, str], list[PolicyObject]] = {}
        for policy in self._policies:
            for name in _tiered_and_bare(policy):
                self._by_name.setdefault((policy.kind, policy.namespace, name), []).append(policy)

    def find(self, identity: PolicyIdentity) -> PolicyObject | None:
        """The object with that identity, names compared with and without ``<tier>.``; None if none or several fit."""
        found = self._by_name.get((identity.kind, identity.namespace, identity.name), [])
        exact = [policy for policy in found if policy.name == identity.name]
        fitting = exact or [policy for policy in found if identity.tier in ("", policy.tier)]
        return fitting[0] if len(fitting) == 1 else None

    def find_chain(self, chain: str) -> PolicyObject | None:
        """The object whose chain has that name, for names with a hash or with an ambiguous id. None if none or several.

        ``chain`` may have the layer's prefix. Tried are the names that each release from v3.28 to v3.32 gives; they
        are computed at the first call.
        """
        if self._by_chain is None:
            self._by_chain = {}
            for policy in self._policies:
                for name in chain_names(policy):
                    self._by_chain.setdefault(name, []).append(policy)
        start = chain.find("cali-p")
        found = self._by_chain.get(chain[start:], []) if start >= 0 else []
        return found[0] if len(found) == 1 else None


def policy_index(policies: Iterable[PolicyObject]) -> PolicyIndex:
    """An index for many look-ups."""
    return PolicyIndex(policies)


def _tiered_and_bare(policy: PolicyObject) -> set[str]:
    if not policy.tier:
        return {policy.name}
    bare = policy.name.removeprefix(f"{policy.tier}.")
    return {policy.name, bare, f"{policy.tier}.{bare}"}


def spellings(policy: PolicyObject) -> frozenset[str]:
    """How a user may write a policy: ``ns/name`` or, of one without namespace, ``name``, with or without the tier."""
    own = f"{policy.namespace}/" if policy.namespace else ""
    return frozenset(own + name for name in (policy.name, policy.name.removeprefix(f"{policy.tier}.")))


def find_policy(identity: PolicyIdentity, policies: Iterable[PolicyObject]) -> PolicyObject | None:
    """The object with that identity, as `PolicyIndex.find`; for one look-up."""
    return policy_index(policy for policy in policies if policy.kind == identity.kind).find(identity)


def identify(role: ChainRole, comment: RuleComment | None, index: PolicyIndex, chain: str) -> PolicyIdentity | None:
    """The policy of a policy chain by all means: first comment, id in the name, hash in the name. As kubectl names it.

    ``comment`` is that of the chain's first rule. None if nothing tells, or several objects would have that name.
    """
    if role.kind is not ChainKind.POLICY:
        return None
    identity = (identity_from_comment(comment) if comment else None) or identity_from_chain(role)
    policy = index.find(identity) if identity else index.find_chain(chain)
    return identity_of(policy) if policy else identity


def chain_names(policy: PolicyObject) -> frozenset[str]:
    """Names that an object's two chains have, without layer: of the releases v3.28 to v3.32, in both dataplanes."""
    if policy.kind.startswith("Staged"):
        return frozenset()
    ids = set(chain_ids(policy))
    limits = (IPTABLES_NAME_LIMIT, NFTABLES_NAME_LIMIT)
    return frozenset(limited_id(prefix, one, limit) for prefix in CHAIN_PREFIXES for limit in limits for one in ids)


def chain_ids(policy: PolicyObject) -> Iterator[str]:
    """What follows the prefix in the names of an object's chains: for each release, the newest first."""
    own = f"{policy.namespace}/" if policy.namespace else ""
    if short := _SHORT_NAMES.get(policy.kind):
        yield f"{short}/{own}{policy.name}"  # v3.32
    for name in _legacy_names(policy):
        yield f"{policy.tier or 'default'}/{own}{name}"  # v3.29 to v3.31
        yield f"{own}{name}"  # v3.28


def _legacy_names(policy: PolicyObject) -> tuple[str, ...]:
    for prefix, kind, _ in _CONVERTED:
        if policy.kind == kind:
            return (prefix + policy.name,)
    tier = policy.tier or "default"
    if policy.name.startswith((f"{tier}.", _OPENSTACK_PREFIX)):
        return (policy.name,)
    # names in the default tier have the prefix in the datastore, and none in the API
    return (f"{tier}.{policy.name}", policy.name)
