from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from calico_debug.agent import reviews
from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.reviews import (
    ACCESS_REVIEWS,
    ALLOWED_SECONDS,
    AUDIENCE,
    DENIED_SECONDS,
    REFUSALS,
    REFUSED_SECONDS,
    TOKEN_REVIEWS,
    DeniedError,
    Reviewer,
    claims,
)
from calico_debug.errors import EvidenceError
from tests.agent.reviewing import Reviews, token

PATH, ASKED = "/v1/trace", "/calico-debug/v1/trace"
GOOD = token("peer")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def reviewer(server: Reviews, clock: Clock | None = None) -> Reviewer:
    return Reviewer(lambda: server, clock=clock or Clock())


def allowing() -> Reviews:
    return Reviews({GOOD: "peer"}, {("peer", "post", ASKED)})


def denied(checks: Reviewer, given: str = GOOD, method: str = "POST", path: str = PATH) -> DeniedError:
    with pytest.raises(DeniedError) as caught:
        checks.check(given, method, path)
    return caught.value


def test_a_caller_with_the_right() -> None:
    server = allowing()
    assert reviewer(server).check(GOOD, "POST", PATH).name == "peer"
    assert server.asked == [
        (TOKEN_REVIEWS, {"token": GOOD, "audiences": [AUDIENCE]}),
        (
            ACCESS_REVIEWS,
            {
                "user": "peer",
                "uid": "7",
                "groups": ["system:authenticated"],
                "nonResourceAttributes": {"path": ASKED, "verb": "post"},
            },
        ),
    ]


def test_rights_are_for_one_verb_and_path() -> None:
    checks = reviewer(allowing())
    for method, path in (("GET", PATH), ("POST", "/v1/trace/"), ("POST", "/calico-debug/v1/trace")):
        found = denied(checks, method=method, path=path)
        assert (found.status, found.reason) == (403, "forbidden")
        assert "bind ClusterRole calico-debug-client" in str(found)


def test_metrics_have_the_path_that_roles_for_prometheus_have() -> None:
    server = Reviews({GOOD: "prometheus"}, {("prometheus", "get", "/metrics")})
    assert reviewer(server).check(GOOD, "GET", "/metrics").name == "prometheus"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "no token"),
        ("opaque", "no token of a service account"),
        ("a.b.c", "no token of a service account"),
        ("..", "no token of a service account"),
        (token("x", "https://kubernetes.default.svc"), "not for audience calico-debug"),
        (token("x", ["a", "b"]), "not for audience calico-debug"),
        (token("x", expires=time.time() - 3600), "has expired"),
        (token("x", expires=float("nan")), "has expired"),
        ("a." + base64.urlsafe_b64encode(b"[" * 3000).decode() + ".c", "no token of a service account"),
        ("a." + base64.urlsafe_b64encode(json.dumps([1]).encode()).decode() + ".c", "no token of a service account"),
        (token("x" * reviews.LARGEST_TOKEN), "no token of a service account"),
    ],
)
def test_what_its_own_words_refuse_is_not_asked(given: str, said: str) -> None:
    server = allowing()
    found = denied(reviewer(server), given)
    assert found.status == 401
    assert said in str(found)
    assert f"--audience {AUDIENCE}" in str(found)
    assert server.asked == []


def test_words_are_not_believed() -> None:
    server = allowing()
    found = denied(reviewer(server), token("peer "))
    assert found.status == 401
    assert "invalid bearer token" in str(found)
    assert server.count(ACCESS_REVIEWS) == 0


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": True, "user": {"username": "peer"}},
        {"authenticated": True, "user": {"username": "peer"}, "audiences": []},
        {"authenticated": True, "user": {"username": "peer"}, "audiences": ["other"]},
        {"authenticated": "yes", "user": {"username": "peer"}, "audiences": [AUDIENCE]},
        {"authenticated": True, "user": {"username": ""}, "audiences": [AUDIENCE]},
        {"authenticated": True, "user": None, "audiences": [AUDIENCE]},
        {},
    ],
)
def test_half_an_answer_is_none(status: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    server = allowing()
    monkeypatch.setattr(server, "send", lambda *_: {"status": status})
    assert denied(reviewer(server)).status == 401


@pytest.mark.parametrize("answer", [None, [], {}, {"status": None}, "ok"])
def test_no_answer_is_not_a_yes(answer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = allowing()
    monkeypatch.setattr(server, "send", lambda *_: answer)
    assert denied(reviewer(server)).status == 503


def test_answers_hold_for_a_while() -> None:
    server, clock = allowing(), Clock()
    checks = reviewer(server, clock)
    for _ in range(3):
        checks.check(GOOD, "POST", PATH)
    assert len(server.asked) == 2
    server.rights.clear()
    clock.now += ALLOWED_SECONDS - 1
    checks.check(GOOD, "POST", PATH)
    clock.now += 2
    assert denied(checks).status == 403
    server.rights.add(("peer", "post", ASKED))
    assert denied(checks).status == 403
    clock.now += DENIED_SECONDS + 1
    checks.check(GOOD, "POST", PATH)
    assert DENIED_SECONDS < ALLOWED_SECONDS <= 60


def test_a_token_is_not_remembered_beyond_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    short = token("peer", expires=time.time() + 5)
    server, clock = allowing(), Clock()
    server.users[short] = "peer"
    checks = reviewer(server, clock)
    checks.check(short, "POST", PATH)
    clock.now += 6
    del server.users[short]
    assert denied(checks, short).status == 401


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviews, "REMEMBERED", 10)
    server = allowing()
    checks = reviewer(server)
    for number in range(30):
        with pytest.raises(DeniedError):
            checks.check(token(f"forged {number}"), "POST", PATH, f"10.0.0.{number}")
        checks.check(GOOD, "POST", PATH)
    assert len(checks._callers._held) == 10
    assert server.count(TOKEN_REVIEWS) == 31, "what is used often was forgotten"


def test_an_api_server_that_is_away_closes_the_door() -> None:
    server, clock = allowing(), Clock()
    checks = reviewer(server, clock)
    server.trouble = EvidenceError("cannot reach https://10.96.0.1 (no route): check the network")
    found = denied(checks)
    assert (found.status, found.reason) == (503, "unchecked")
    assert "cannot reach https://10.96.0.1" in str(found)
    server.trouble = None
    asked = len(server.asked)
    assert denied(checks).status == 503
    assert len(server.asked) == asked, "a server that is away is found so by every caller"
    clock.now += DENIED_SECONDS + 1
    checks.check(GOOD, "POST", PATH)
    server.trouble = EvidenceError("away again")
    checks.check(GOOD, "POST", PATH)
    clock.now += ALLOWED_SECONDS + 1
    assert denied(checks).status == 503


def test_a_question_that_the_api_server_does_not_understand_is_no_trouble_for_others() -> None:
    server = allowing()
    checks = reviewer(server)
    server.trouble = Refusal(422, "invalid")
    assert denied(checks, token("odd")).status == 503
    server.trouble = None
    checks.check(GOOD, "POST", PATH)


def test_an_agent_without_the_right_to_ask_says_which() -> None:
    server = allowing()
    server.trouble = Refusal(403, "forbidden")
    found = denied(reviewer(server))
    assert found.status == 503
    assert "grant create on tokenreviews, as ClusterRole calico-debug " in str(found)


@pytest.mark.parametrize("wait", [0, 0.01])
def test_many_at_once_wait_for_their_turn(wait: float) -> None:
    server = allowing()
    checks = Reviewer(lambda: server, wait=wait)
    for _ in range(reviews.REVIEWS):
        assert checks._turns.acquire(blocking=False)
    assert (denied(checks).status, denied(checks).reason) == (503, "busy")
    for _ in range(reviews.REVIEWS):
        checks._turns.release()
    checks.check(GOOD, "POST", PATH)


def test_who_tries_tokens_does_not_reach_the_api_server_for_ever() -> None:
    server, clock = allowing(), Clock()
    checks = reviewer(server, clock)
    for number in range(REFUSALS + 30):
        with pytest.raises(DeniedError) as caught:
            checks.check(token(f"forged {number}"), "POST", PATH, "10.0.0.1")
        assert caught.value.status == 401
    assert server.count(TOKEN_REVIEWS) == REFUSALS
    assert "came from 10.0.0.1 were refused" in str(caught.value)
    checks.check(GOOD, "POST", PATH, "10.0.0.2")
    checks.check(GOOD, "POST", PATH, "10.0.0.1")
    clock.now += REFUSED_SECONDS + 1
    with pytest.raises(DeniedError):
        checks.check(token("forged again"), "POST", PATH, "10.0.0.1")
    assert server.count(TOKEN_REVIEWS) == REFUSALS + 2


def test_when_a_token_ends() -> None:
    assert claims(token("x", expires=5000), AUDIENCE, 4000) == 5000
    assert claims(token("x", ["a", AUDIENCE], 5000), AUDIENCE, 5000 + 30) == 5000
