"""What stands behind a chain's name, and which chains stand for a policy: the lookup both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.policy.chains import ChainKind, ChainRole, chain_role, parse_comment
from calico_debug.policy.identity import (
    PolicyIdentity,
    PolicyIndex,
    chain_names,
    identify,
    identity_of,
    policy_index,
    spellings,
)

if TYPE_CHECKING:
    from calico_debug.model.cluster import PolicyObject
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState

API_VERSION, KIND = "calico-debug/v1", "ChainLookup"
LAYERS = ("filter", "mangle", "raw", "nat")
"""In nftables mode a prefix of the chain's name, in iptables mode the kernel's table."""
CHAIN_START = "cali-"


@dataclass(frozen=True, slots=True)
class ProgrammedChain:
    """A chain as it stands on a node, with its number of rules."""

    node: str
    family: str
    table: str
    chain: str
    rules: int


@dataclass(frozen=True, slots=True)
class ChainAnswer:
    """One chain name, or one policy, with all that is known of it.

    ``kind`` says in words what the chain is for; ``direction`` is "egress" or "ingress" as the endpoint sees it;
    ``names`` are the names that releases give to a policy's chains, when the question was a policy; ``programmed`` is
    where evidence shows a chain of that name.
    """

    kind: str
    direction: str = ""
    policy: PolicyIdentity | None = None
    subject: str = ""
    pod: tuple[str, str] | None = None
    names: tuple[str, ...] = ()
    programmed: tuple[ProgrammedChain, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/cli.md)."""
        policy = self.policy
        document: dict[str, Any] = {"apiVersion": API_VERSION, "kind": KIND, "chainKind": self.kind}
        optional: dict[str, Any] = {
            "direction": self.direction,
            "policy": {k: getattr(policy, k) for k in ("kind", "namespace", "name", "tier") if getattr(policy, k)}
            if policy
            else None,
            "subject": self.subject,
            "pod": {"namespace": self.pod[0], "name": self.pod[1]} if self.pod else None,
            "names": list(self.names),
        }
        document.update((key, value) for key, value in optional.items() if value)
        document["programmed"] = [
            {"node": c.node, "family": c.family, "table": c.table, "chain": c.chain, "rules": c.rules}
            for c in self.programmed
        ]
        return document


class ChainDirectory:
    """Looks names up in one source of evidence."""

    def __init__(self, cluster: ClusterState, nodes: Mapping[str, NodeState]) -> None:
        """``nodes`` are by name; their rules are asked only for the chains in question."""
        self._cluster = cluster
        self._nodes = nodes

    def look_up(self, name: str) -> Sequence[ChainAnswer]:
        """Answers for a chain, or for a policy as ``ns/name`` or ``name``. Raises `UsageError`, `EvidenceError`."""
        bare = _without_layer(name)
        if bare.startswith(CHAIN_START):
            return [self._chain(bare)]
        policies = [policy for policy in self._cluster.policies() if name in spellings(policy)]
        if not policies:
            raise UsageError(
                f"{name!r} is neither a chain of Calico (they begin with {CHAIN_START}) nor a policy of the cluster's "
                "objects: name the chain as the rules show it, or the policy as ns/name"
            )
        return [self._policy(policy) for policy in policies]

    def _chain(self, chain: str) -> ChainAnswer:
        programmed = tuple(self._find(chain))
        role = chain_role(programmed[0].chain if programmed else chain)
        if role is None:
            raise UsageError(f"{chain!r} is not the name of a chain of Calico")
        policy = self._policy_of(role, chain, programmed)
        pod = self._pod_behind(role.subject) if role.kind is ChainKind.WORKLOAD else None
        subject = role.subject if policy is None else ""
        return ChainAnswer(role.kind.value, role.direction, policy, subject, pod, (), programmed)

    def _policy_of(self, role: ChainRole, chain: str, programmed: Sequence[ProgrammedChain]) -> PolicyIdentity | None:
        if role.kind is not ChainKind.POLICY:
            return None
        comment = None
        for place in programmed:
            rules = self._nodes[place.node].ruleset.rules(place.family, place.table, place.chain)
            if rules:
                comment = parse_comment(rules[0].comment)
                break
        return identify(role, comment, self._index(), chain)

    def _policy(self, policy: PolicyObject) -> ChainAnswer:
        names = tuple(sorted(chain_names(policy)))
        programmed = tuple(place for name in names for place in self._find(name))
        return ChainAnswer("policy", "", identity_of(policy), "", None, names, programmed)

    def _index(self) -> PolicyIndex:
        return policy_index(self._cluster.policies())

    def _find(self, chain: str) -> Iterator[ProgrammedChain]:
        """Where a chain of this name, with or without a layer's prefix, is programmed."""
        for node, state in self._nodes.items():
            for family, table in state.ruleset.tables():
                names = [f"{layer}-{chain}" for layer in LAYERS] if table == "calico" else [chain]
                for name in names:
                    rules = state.ruleset.rules(family, table, name)
                    if rules is not None:
                        yield ProgrammedChain(node, family, table, name, len(rules))

    def _pod_behind(self, interface: str) -> tuple[str, str] | None:
        """The pod whose host route leaves through an interface."""
        for state in self._nodes.values():
            for family in (4, 6):
                try:
                    main = state.routing(family).tables.get("main", ())
                except EvidenceError:
                    continue
                for route in main:
                    if any(hop.interface == interface for hop in route.hops):
                        pod = self._cluster.pod_by_address(route.destination.network_address)
                        if pod is not None:
                            return pod.namespace, pod.name
        return None


def _without_layer(name: str) -> str:
    for layer in LAYERS:
        if name.startswith(f"{layer}-{CHAIN_START}"):
            return name.removeprefix(f"{layer}-")
    return name
