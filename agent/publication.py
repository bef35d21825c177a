"""Where agents are and which certificates are theirs: a Lease for each, in the namespace of the agents.

Whoever asks an agent learns its certificate from the API server, over a connection that is verified, and trusts this
certificate alone. A Lease belongs to its agent's pod, so that it goes when the pod does; only agents and administrators
of the namespace may write it (daemonset/base/rbac.yaml).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode

from calico_debug.agent.apiserver import Refusal
from calico_debug.errors import EvidenceError, MissingEvidence

if TYPE_CHECKING:
    from calico_debug.agent.apiserver import ApiServer

log = logging.getLogger("calico_debug.agent")

LABEL = "app.kubernetes.io/name"
NAME = "calico-debug"
"""Value of the label, the manager of the fields, and the namespace unless another is known."""
URL, CERTIFICATE = "calico-debug/url", "calico-debug/certificate"
"""Annotations of a Lease."""
RENEW_SECONDS = 300.0
"""How often a Lease is written anew: one that somebody deleted comes back, a renewed certificate becomes known."""
RETRY_SECONDS = 15.0
"""How long after a failure."""
APPLY = "application/apply-patch+yaml"
ROLE = "Role calico-debug (daemonset/base/rbac.yaml)"


class Server(Protocol):
    """What is needed to publish, of `calico_debug.agent.apiserver.ApiServer`."""

    def send(self, method: str, path: str, document: Mapping[str, Any], content: str = ...) -> Any:
        """Raises `Refusal` and `EvidenceError`."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The agent's pod."""

    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PublishedAgent:
    """One agent. ``url`` is ``https://ADDR:PORT``; ``certificate`` is PEM; ``renewed`` as in the Lease."""

    node: str
    url: str
    certificate: str
    renewed: str = ""


def publish(server: Server, namespace: str, agent: PublishedAgent, owner: Owner | None) -> None:
    """Write the Lease of an agent. Raises `EvidenceError`."""
    metadata: dict[str, Any] = {
        "name": agent.node,
        "labels": {LABEL: NAME},
        "annotations": {URL: agent.url, CERTIFICATE: agent.certificate},
    }
    if owner is not None:
        reference = {"apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid}
        metadata["ownerReferences"] = [reference]
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    spec = {
        "holderIdentity": owner.name if owner else agent.node,
        "renewTime": now,
        "leaseDurationSeconds": int(2 * RENEW_SECONDS),
    }
    document = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
    query = urlencode({"fieldManager": NAME, "force": "true"})
    try:
        server.send("PATCH", f"{_path(namespace)}/{quote(agent.node, safe='')}?{query}", document, APPLY)
    except Refusal as error:
        raise EvidenceError(
            f"cannot write Lease {agent.node} of namespace {namespace} ({error.status}: {error.message}): grant create "
            f"and patch on leases.coordination.k8s.io there, as {ROLE} does"
        ) from error


def published(server: ApiServer, namespace: str = NAME) -> Mapping[str, PublishedAgent]:
    """Every agent by its node. Raises `MissingEvidence` when they may not be read, and `EvidenceError`."""
    try:
        document = server.get(_path(namespace), {"labelSelector": f"{LABEL}={NAME}"})
    except Refusal as error:
        raise MissingEvidence(
            f"cannot list leases in namespace {namespace} ({error.status}: {error.message}), where agents say where "
            f"they are: grant list on leases.coordination.k8s.io there, as {ROLE} does"
        ) from error
    found: dict[str, PublishedAgent] = {}
    items = document.get("items") if isinstance(document, dict) else None
    for item in items if isinstance(items, list) else ():
        try:
            notes, node = item["metadata"]["annotations"], item["metadata"]["name"]
            agent = PublishedAgent(node, notes[URL], notes[CERTIFICATE], str(item["spec"].get("renewTime") or ""))
        except (KeyError, TypeError, AttributeError):
            continue  # another Lease, or one of another version
        if all(isinstance(text, str) for text in (agent.node, agent.url, agent.certificate)):
            found[agent.node] = agent
    return found


class Publisher:
    """Keeps an agent's Lease, on a thread of its own: the API server may be away for a while, also at the start."""

    def __init__(
        self,
        open_server: Callable[[], Server],
        namespace: str,
        agent: Callable[[], PublishedAgent],
        owner: Owner | None = None,
    ) -> None:
        """``agent`` gives what to write each time; its certificate may have changed."""
        self._open, self._namespace, self._agent, self._owner = open_server, namespace, agent, owner
        self._stopped = Event()
        self._said = ""
        self._thread = Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """The Lease stays: its pod takes it along."""
        self._stopped.set()
        self._thread.join(1)

    def _run(self) -> None:
        while not self._stopped.wait(RENEW_SECONDS if self._once() else RETRY_SECONDS):
            pass

    def _once(self) -> bool:
        trouble = ""
        try:
            publish(self._open(), self._namespace, self._agent(), self._owner)
        except EvidenceError as error:
            trouble = str(error)
        if trouble != self._said:
            log.warning("peers cannot learn where this agent is: %s", trouble) if trouble else log.info("published")
        self._said = trouble
        return not trouble


def _path(namespace: str) -> str:
    return f"/apis/coordination.k8s.io/v1/namespaces/{quote(namespace, safe='')}/leases"
