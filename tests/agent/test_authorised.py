"""The door over TLS: who gets in, what others are told, and that the socket asks for nothing."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.authorised import Authorised, token_of
from calico_debug.agent.certificate import OwnCertificate
from calico_debug.agent.reviews import Reviewer
from calico_debug.errors import EvidenceError
from tests.agent.reviewing import Reviews, token
from tests.agent.serving import SECONDS, serving, work_over
from tests.agent.test_certificate import trusting
from tests.evidence.memory import MemoryNode, MemorySource

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

    from calico_debug.agent.application import Application

CERTIFICATE = OwnCertificate(["127.0.0.1"])
FRIEND, STRANGER = token("friend"), token("stranger")
RIGHTS = {("friend", verb, f"/calico-debug/v1/{path}") for verb, path in (("get", "nodes"), ("post", "trace"))}


class Door:
    def __init__(self, port: int, reviews: Reviews) -> None:
        self._port, self.reviews = port, reviews

    def ask(
        self, given: str | None, path: str = "/v1/nodes", method: str = "GET", body: bytes | None = None
    ) -> tuple[int, Message, Any]:
        context = trusting(CERTIFICATE.pem())
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=SECONDS, context=context)
        connection.request(method, path, body, {} if given is None else {"Authorization": given})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, json.loads(content) if content.startswith(b"{") else content


@contextmanager
def door(folder: Path, unchecked: tuple[str, ...] = ()) -> Iterator[Door]:
    reviews = Reviews({FRIEND: "friend", STRANGER: "stranger"}, RIGHTS)

    def guard(application: Application) -> Authorised:
        return Authorised(application, Reviewer(lambda: reviews), unchecked)

    work = work_over(MemorySource({}, {"n1": MemoryNode({})}))
    with serving(folder, work=work, certificate=CERTIFICATE, guard=guard) as agent:
        assert agent.ask("/v1/nodes")[0] == 200
        yield Door(agent.secure, reviews)


def test_who_gets_in(tmp_path: Path) -> None:
    with door(tmp_path) as agent:
        assert agent.ask(f"Bearer {FRIEND}")[::2] == (200, {"nodes": ["n1"]})
        assert agent.ask(f"bearer  {FRIEND}")[0] == 200
        for given in (None, "", "Bearer", "Bearer ", f"Basic {FRIEND}", FRIEND, "Bearer x", f"Bearer {token('x')}"):
            status, headers, error = agent.ask(given)
            assert (status, error["reason"]) == (401, "unauthenticated"), given
            assert headers["WWW-Authenticate"] == "Bearer"
        status, headers, error = agent.ask(f"Bearer {STRANGER}")
        assert (status, error["reason"]) == (403, "forbidden")
        assert "stranger may not get /calico-debug/v1/nodes" in error["message"]


def test_outside_nobody_learns_what_is_inside(tmp_path: Path) -> None:
    with door(tmp_path) as agent:
        for path in ("/v1/nodes", "/v1/none", "/", "/metrics", "/healthz", "/v1/openapi.json"):
            for method in ("GET", "PUT", "DELETE"):
                assert agent.ask(None, path, method)[0] == 401
                assert agent.ask(f"Bearer {STRANGER}", path, method)[0] == 403
        assert agent.ask(None, method="HEAD")[0] == 401
        assert agent.ask(None, "/v1/trace", "POST", b"x" * 60_000)[0] == 401


@pytest.mark.parametrize(
    "path",
    ["/v1/trace/../nodes", "/v1//nodes", "/v1/nodes/", "/v1/n%6Fdes/x", "/v1/nodes%2F", "/V1/nodes"],
)
def test_the_path_that_is_answered_is_the_path_that_was_allowed(tmp_path: Path, path: str) -> None:
    with door(tmp_path) as agent:
        assert agent.ask(f"Bearer {FRIEND}", path)[0] == 403


def test_percent_signs_are_read_before_rights_are_checked(tmp_path: Path) -> None:
    with door(tmp_path) as agent:
        assert agent.ask(f"Bearer {FRIEND}", "/v1/n%6Fdes")[0] == 200
        assert [spec["nonResourceAttributes"]["path"] for _, spec in agent.reviews.asked[1:]] == [
            "/calico-debug/v1/nodes"
        ]


def test_one_method_is_not_another(tmp_path: Path) -> None:
    with door(tmp_path) as agent:
        assert agent.ask(f"Bearer {FRIEND}", "/v1/trace", "POST", b"{}")[2]["reason"] == "usage"
        assert agent.ask(f"Bearer {FRIEND}", "/v1/nodes", "POST", b"{}")[0] == 403


def test_what_probes_ask_for_may_be_open(tmp_path: Path) -> None:
    with door(tmp_path, ("/healthz",)) as agent:
        assert agent.ask(None, "/healthz")[0] == 200
        assert agent.ask(None, "/readyz")[0] == 401


def test_without_the_api_server_nobody_gets_in(tmp_path: Path) -> None:
    with door(tmp_path) as agent:
        agent.reviews.trouble = EvidenceError("cannot reach https://10.96.0.1")
        status, headers, error = agent.ask(f"Bearer {FRIEND}")
        assert (status, error["reason"], headers["Retry-After"]) == (503, "unchecked", "1")
        assert "cannot reach https://10.96.0.1" in error["message"]


def test_two_headers_are_not_a_token() -> None:
    assert token_of({"HTTP_AUTHORIZATION": "Bearer a, Bearer b"}) == "a, Bearer b"
    assert token_of({}) == ""
