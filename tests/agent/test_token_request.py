from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.token_request import SECONDS, request_token
from calico_debug.errors import EvidenceError, MissingEvidence

if TYPE_CHECKING:
    from collections.abc import Mapping


class Server:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.sent: list[tuple[str, str, Mapping[str, Any]]] = []

    def send(self, method: str, path: str, document: Mapping[str, Any]) -> Any:
        self.sent.append((method, path, document))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_token_for_agents_alone() -> None:
    server = Server({"status": {"token": "a.b.c"}})
    assert request_token(server, "monitoring", "viewer") == "a.b.c"  # type: ignore[arg-type]
    ((method, path, document),) = server.sent
    assert (method, path) == ("POST", "/api/v1/namespaces/monitoring/serviceaccounts/viewer/token")
    assert document["spec"] == {"audiences": ["calico-debug"], "expirationSeconds": SECONDS}


def test_names_stay_in_their_place() -> None:
    server = Server({"status": {"token": "a.b.c"}})
    request_token(server, "../x", "a/b")  # type: ignore[arg-type]
    assert server.sent[0][1] == "/api/v1/namespaces/..%2Fx/serviceaccounts/a%2Fb/token"


def test_without_the_right() -> None:
    with pytest.raises(
        MissingEvidence, match=r"no token of service account m/v .*grant create on serviceaccounts/token"
    ):
        request_token(Server(Refusal(403, "forbidden")), "m", "v")  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [None, {}, {"status": None}, {"status": {"token": 3}}, {"status": {"token": ""}}])
def test_answers_without_one(answer: Any) -> None:
    with pytest.raises(EvidenceError, match="has no token"):
        request_token(Server(answer), "m", "v")  # type: ignore[arg-type]
