"""What a route is, and how a request finds its own: no sockets here, and nothing of what the answers are about."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

JSON, BYTES, TEXT = "application/json", "application/octet-stream", "text/plain; version=0.0.4; charset=utf-8"
LINES = "application/jsonl"

READER, OBSERVER = "calico-debug-client", "calico-debug-observer"
"""The shipped ClusterRoles of callers: what an agent reads, and what looks at packets or sends them (daemonset/)."""

WITH_SLASHES = frozenset({"file", "key"})
"""Parameters that may have slashes in them; they stand at the end of a path."""

ERRORS: Mapping[int, str] = {
    400: "the question cannot be understood",
    401: "no token, or one that is not for agents; not on the socket",
    403: "the caller has no right to ask this; not on the socket",
    404: "no such path, or the evidence is not there",
    405: "the path is there, not for this method",
    500: "evidence that cannot be read or used, or a defect",
    503: "as many requests as are allowed are being answered, or the caller cannot be checked; try again",
    504: "the time of a request is used up",
}
"""Statuses of errors; docs/agent.md has the same table."""

UNCHECKED = (401, 403, 503)
"""Statuses of requests whose caller was not let in; every path can have them."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``body`` and ``query`` are decoded and have passed the route's schemas; ``check`` says whether to go
    on; ``closing`` is closed when the answer is sent or given up; ``accept`` is the header of that name.
    """

    parameters: Mapping[str, str]
    body: Mapping[str, Any]
    check: Callable[[], None]
    closing: ExitStack
    query: Mapping[str, Any] = field(default_factory=dict)
    accept: str = ""

    def accepts(self, content: str) -> bool:
        """Whether the client names this type of content as one that it takes."""
        return any(part.partition(";")[0].strip() == content for part in self.accept.split(","))


@dataclass(frozen=True, slots=True)
class Answer:
    """``body`` in pieces, which are made while they are sent."""

    body: Iterable[bytes]
    content: str = JSON
    status: int = 200


def object_schema(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of a JSON object with these members and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def number_schema(least: int, most: int) -> dict[str, Any]:
    """The schema of a whole number within bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


def json_answer(document: object) -> Answer:
    """A JSON document."""
    return Answer([json.dumps(document).encode()])


def gathered(pieces: Iterable[bytes], most: int = 1 << 20) -> Iterable[bytes]:
    """The pieces as one, when they are no more than ``most`` bytes: then the connection can be used again."""
    rest = iter(pieces)
    begun: list[bytes] = []
    size = 0
    for piece in rest:
        begun.append(piece)
        size += len(piece)
        if size > most:
            return chain(begun, rest)
    return [b"".join(begun)]


@dataclass(frozen=True)
class Route:
    """One path and method. A parameter in braces is a segment of the path, or one of `WITH_SLASHES`.

    ``schema`` is that of a JSON answer, ``body`` of the JSON that has to be sent, ``query`` of what may stand behind
    the path. ``seconds`` is how long the answer may take, if not as long as usual. A ``light`` route is answered even
    when as many others as are allowed are; of ``large`` ones, whose answers may fill the memory, one at a time.
    ``role`` is the shipped role that allows it, "" where neither does: probes and Prometheus have their own rights.
    """

    method: str
    path: str
    name: str
    summary: str
    answer: str
    handler: Callable[[Request], Answer]
    content: str = JSON
    schema: Mapping[str, Any] | None = None
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] | None = None
    light: bool = False
    large: bool = False
    statuses: tuple[int, ...] = field(default=())
    seconds: float | None = None
    role: str = READER

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        found = ""
        for part in re.split(r"(\{\w+\})", self.path):
            name = part[1:-1] if part.startswith("{") else ""
            found += f"(?P<{name}>{'.+' if name in WITH_SLASHES else '[^/]+'})" if name else re.escape(part)
        return re.compile(found)

    def match(self, path: str) -> Mapping[str, str] | None:
        """The parameters when the path is this route's, else None."""
        found = self._pattern.fullmatch(path)
        return None if found is None else found.groupdict()

    def errors(self) -> Mapping[int, str]:
        """The statuses other than 200 that it can have, with their meanings."""
        usual = set(UNCHECKED) if self.light else {*UNCHECKED, 404, 500, 504}
        if self.body is not None or self.query is not None:
            usual.add(400)
        return {status: ERRORS[status] for status in sorted(usual | set(self.statuses))}


def find(routes: Sequence[Route], method: str, path: str) -> tuple[Route, Mapping[str, str]] | set[str]:
    """The route of a request with its parameters, or the methods that its path has: none when there is no such path."""
    methods: set[str] = set()
    for route in routes:
        parameters = route.match(path)
        if parameters is not None:
            if route.method == method:
                return route, parameters
            methods.add(route.method)
    return methods


def problems(body: object, schema: Mapping[str, Any]) -> str:
    """What is wrong with a body, "" for nothing. Knows the part of JSON schema that the routes' bodies use."""
    if not isinstance(body, dict):
        return "the body is not a JSON object"
    properties: Mapping[str, Mapping[str, Any]] = schema["properties"]
    for key in body:
        if key not in properties:
            return f"unknown key {key[:60]!r}: there are {', '.join(properties)}"
    for key in schema.get("required", ()):
        if key not in body:
            return f"{key!r} is missing"
    for key, value in body.items():
        if trouble := _trouble(value, properties[key]):
            return f"{key!r} {trouble}"
    return ""


def _trouble(value: object, schema: Mapping[str, Any]) -> str:
    kind = schema["type"]
    if kind == "string":
        if not isinstance(value, str) or not schema.get("minLength", 0) <= len(value) <= schema["maxLength"]:
            return f"is not a text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
        if "pattern" in schema and not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), value):
            return f"does not look like {schema['pattern']}"
    elif kind == "integer":
        if type(value) is not int or not schema["minimum"] <= value <= schema["maximum"]:
            return f"is not a number from {schema['minimum']} to {schema['maximum']}"
    elif kind == "boolean":
        if not isinstance(value, bool):
            return "is neither true nor false"
    elif kind == "object":
        if not isinstance(value, dict):
            return "is not an object"
    elif kind == "array":
        if not isinstance(value, list) or not schema["minItems"] <= len(value) <= schema["maxItems"]:
            return f"is not a list of {schema['minItems']} to {schema['maxItems']}"
        return next((trouble for item in value if (trouble := _trouble(item, schema["items"]))), "")
    return ""
