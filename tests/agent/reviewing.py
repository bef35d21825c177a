"""An API server that only reviews tokens and access, from tables of the test's choice; and tokens that look real."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

from calico_debug.agent.apiserver import Refusal
from calico_debug.agent.reviews import ACCESS_REVIEWS, AUDIENCE, TOKEN_REVIEWS


def token(name: str, audience: str | list[str] = AUDIENCE, expires: float | None = None) -> str:
    """A token as TokenRequest gives it, without a signature that anybody could check."""

    def part(content: Mapping[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    said = {"aud": audience, "exp": time.time() + 600 if expires is None else expires, "sub": name}
    return f"{part({'alg': 'RS256'})}.{part(said)}.c2ln"


class Reviews:
    """Implements what `Reviewer` needs. ``users`` by token; ``rights`` are (user, verb, path)."""

    def __init__(self, users: Mapping[str, str], rights: set[tuple[str, str, str]]) -> None:
        self.users, self.rights = dict(users), set(rights)
        self.asked: list[tuple[str, Any]] = []
        self.trouble: Exception | None = None

    def send(self, method: str, path: str, document: Mapping[str, Any]) -> Any:
        spec = document["spec"]
        self.asked.append((path, spec))
        assert method == "POST"
        if self.trouble is not None:
            raise self.trouble
        if path == TOKEN_REVIEWS:
            name = self.users.get(spec["token"])
            if name is None:
                return {"status": {"authenticated": False, "error": "invalid bearer token"}}
            user = {"username": name, "uid": "7", "groups": ["system:authenticated"]}
            return {"status": {"authenticated": True, "user": user, "audiences": spec["audiences"]}}
        if path == ACCESS_REVIEWS:
            wanted = spec["nonResourceAttributes"]
            return {"status": {"allowed": (spec["user"], wanted["verb"], wanted["path"]) in self.rights}}
        raise Refusal(404, path)

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)
