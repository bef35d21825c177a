"""The agents of a cluster, as pods that the API server lists: one namespace, one label, one agent a node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.gate import own_namespace
from calico_debug.agent.publication import LABEL, NAME
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.agent.apiserver import ApiServer

VARIABLE = "CALICO_DEBUG_NAMESPACE"
"""Says in which namespace the agents are, where it is not the usual one."""
CONTAINER = "agent"
"""The container of the agent in daemonset/base/daemonset.yaml."""
MOST_PODS = 20_000

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""RFC 1123: what may stand in a path."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The agent of one node. ``address`` is its pod's; ``problem`` says why it may not answer, "" for a ready one."""

    node: str
    namespace: str
    pod: str
    address: str
    problem: str = ""


def agents_namespace(typed: str | None, variables: Mapping[str, str]) -> str:
    """The namespace of the agents: as typed, else of the variable, else of the pod that this process runs in, else the
    one that daemonset/ uses. Raises `UsageError`.
    """
    found = typed or variables.get(VARIABLE) or own_namespace(variables)
    if not _NAME.fullmatch(found) or len(found) > 63:
        raise UsageError(f"{found[:80]!r} is no name of a namespace: name that of the agents with --agents")
    return found


def find_peers(server: ApiServer, namespace: str) -> Mapping[str, Peer]:
    """The agents by node. Raises `EvidenceError` when they cannot be listed."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    try:
        document = server.get(path, {"labelSelector": f"{LABEL}={NAME}", "limit": MOST_PODS})
    except Refusal as error:
        raise EvidenceError(
            f"the agents in namespace {namespace} cannot be listed ({error.message}): grant list on pods there, or "
            "name another namespace with --agents"
        ) from error
    items = document.get("items") if isinstance(document, dict) else None
    if not isinstance(items, list):
        raise EvidenceError(f"the API server answered {path} with something that is no list: check the kubeconfig")
    found: dict[str, Peer] = {}
    for item in items:
        peer = _peer(item, namespace)
        # While a DaemonSet is updated an old pod and a new one may be on one node.
        if peer is not None and (peer.node not in found or found[peer.node].problem):
            found[peer.node] = peer
    return found


def _peer(item: Any, namespace: str) -> Peer | None:
    metadata, spec, status = (_mapping(item, key) for key in ("metadata", "spec", "status"))
    node, name = spec.get("nodeName"), metadata.get("name")
    if not isinstance(node, str) or not node or not isinstance(name, str) or not _NAME.fullmatch(name.replace(".", "")):
        return None
    phase = str(status.get("phase") or "unknown")
    conditions = status.get("conditions")
    ready = any(
        isinstance(one, dict) and (one.get("type"), one.get("status")) == ("Ready", "True")
        for one in (conditions if isinstance(conditions, list) else ())
    )
    problem = "" if ready else f"the pod is not ready (phase {phase})"
    if metadata.get("deletionTimestamp"):
        problem = "the pod is being deleted"
    return Peer(node, namespace, name, str(status.get("podIP") or ""), problem)


def _mapping(item: Any, key: str) -> Mapping[str, Any]:
    found = item.get(key) if isinstance(item, dict) else None
    return found if isinstance(found, dict) else {}
