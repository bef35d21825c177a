"""What stands before a listener that others reach: a certificate that they verify, and the check of their tokens."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.agent.apiserver import ApiServer
from calico_debug.agent.certificate import Certificate, FileCertificate, OwnCertificate
from calico_debug.agent.kubeconfig import ACCOUNT, find_access
from calico_debug.agent.publication import NAME, Owner, PublishedAgent, Publisher
from calico_debug.agent.reviews import Reviewer
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from calico_debug.agent.settings import Address, Settings

REVIEW_SECONDS = 5.0
"""Longest silence of the API server while a caller waits."""


@dataclass(slots=True)
class Gate:
    """``start`` makes the publisher of what it is given. ``impatient`` lets nobody wait: for what probes ask."""

    certificate: Certificate
    reviewer: Reviewer
    impatient: Reviewer
    node: str
    start: Callable[[Callable[[], PublishedAgent]], Publisher]
    _publishers: list[Publisher] = field(default_factory=list)

    def publish(self, address: Address) -> None:
        """Say where this agent is, until it is closed."""
        if not address.wildcard:
            url = f"https://{address}"
            self._publishers.append(self.start(lambda: PublishedAgent(self.node, url, self.certificate.pem())))

    def close(self) -> None:
        """Stop publishing."""
        for publisher in self._publishers:
            publisher.stop()


def open_gate(settings: Settings, node: str, variables: Mapping[str, str] = os.environ) -> Gate:
    """The gate of this agent. Raises `EvidenceError` when there is no API server that could check callers, or files of
    the settings cannot be used; an API server that is away is no reason.
    """
    access = find_access(variables=variables)
    if access is None:
        raise EvidenceError(
            "no API server to check callers with: run in a pod with a service account, set KUBECONFIG, or use the "
            "socket alone (kubectl exec)"
        )
    if settings.tls_cert:
        certificate: Certificate = FileCertificate(settings.tls_cert, settings.tls_key)
    else:
        certificate = OwnCertificate(sorted({node, *(address.host for address in settings.checked)}))

    def server() -> ApiServer:
        return ApiServer(access, attempts=2, seconds=REVIEW_SECONDS)

    def start(agent: Callable[[], PublishedAgent]) -> Publisher:
        return Publisher(server, own_namespace(variables), agent, owner(variables))

    audience = settings.token_audience
    return Gate(certificate, Reviewer(server, audience), Reviewer(server, audience, wait=0), node, start)


def owner(variables: Mapping[str, str]) -> Owner | None:
    """The pod of this agent, as its manifest says; None outside of pods."""
    name, uid = variables.get("POD_NAME", ""), variables.get("POD_UID", "")
    return Owner(name, uid) if name and uid else None


def own_namespace(variables: Mapping[str, str]) -> str:
    """The namespace of the agents."""
    if given := variables.get("POD_NAMESPACE", ""):
        return given
    try:
        return (ACCOUNT / "namespace").read_text(encoding="utf-8").strip() or NAME
    except OSError:
        return NAME
