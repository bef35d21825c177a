"""Tokens for agents, made by the API server for a service account on behalf of whoever may do that (TokenRequest)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.reviews import AUDIENCE
from calico_debug.errors import EvidenceError, MissingEvidence

if TYPE_CHECKING:
    from calico_debug.agent.apiserver import ApiServer

SECONDS = 600
"""How long a token is good; the API server takes no shorter time."""


def request_token(server: ApiServer, namespace: str, account: str, audience: str = AUDIENCE) -> str:
    """A token of a service account, good for agents alone.

    Raises `MissingEvidence` when the user may not make one, or there is no such account, and `EvidenceError`.
    """
    path = f"/api/v1/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(account, safe='')}/token"
    spec = {"audiences": [audience], "expirationSeconds": SECONDS}
    document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    try:
        answer = server.send("POST", path, document)
    except Refusal as error:
        raise MissingEvidence(
            f"no token of service account {namespace}/{account} for agents ({error.status}: {error.message}): grant "
            "create on serviceaccounts/token there, or give another token with --agent-token-file"
        ) from error
    status = answer.get("status") if isinstance(answer, dict) else None
    token = status.get("token") if isinstance(status, dict) else None
    if not isinstance(token, str) or not token:
        raise EvidenceError(
            f"the API server's answer to a TokenRequest for {namespace}/{account} has no token: try again"
        )
    return token
