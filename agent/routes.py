"""Every path of the agent: what it is itself, evidence, traces, counters, captures and witnesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from calico_debug.agent.capture_routes import CaptureHandlers, OpenWatch, capture_routes
from calico_debug.agent.evidence_routes import evidence_routes
from calico_debug.agent.openapi import describe
from calico_debug.agent.progress import told
from calico_debug.agent.routing import LINES, TEXT, Answer, Request, Route, json_answer, object_schema
from calico_debug.agent.witnessing import witness_routes
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.agent.captures.manager import Captures
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.flow import Flow
    from calico_debug.state.resolve import Resolver

PLAIN = "text/plain; charset=utf-8"

_TEXT = {"type": "string", "maxLength": 1024}
_NAME = {"type": "string", "minLength": 1, "maxLength": 600}
_WANTED = {"type": "string", "maxLength": 7, "pattern": "^(allowed|denied)$"}
TRACE = object_schema(
    "from to",
    **{"from": _NAME, "to": _NAME, "protocol": _TEXT, "via": _TEXT, "namespace": _TEXT, "want": _WANTED},
)
COUNTERS = object_schema(
    "apiVersion kind counters",
    apiVersion={"const": API_VERSION},
    kind={"const": "Counters"},
    counters={
        "type": "array",
        "items": object_schema(
            "name labels value",
            name={"type": "string"},
            labels={"type": "object", "additionalProperties": {"type": "string"}},
            value={"type": "number"},
        ),
    },
)


@dataclass(frozen=True, slots=True)
class Work:
    """What the paths are answered from. ``source`` is the evidence of the request, guarded and closed behind it.

    ``metrics`` gives the page of metrics, ``counters`` its samples as (name, labels, value); ``ready`` is "" or what is
    missing. ``captures`` are those of the agent, ``open_watch`` watches packets; where they are None nothing does.
    """

    source: Callable[[Request], EvidenceSource]
    metrics: Callable[[], bytes]
    counters: Callable[[], Iterable[tuple[str, Mapping[str, str], float]]]
    ready: Callable[[], str]
    captures: Captures | None = None
    open_watch: OpenWatch | None = None


class Handlers:
    """One method for each route of the agent's own."""

    def __init__(self, work: Work) -> None:
        """Answer from ``work``."""
        self._work = work
        self.description: bytes = b""

    def healthz(self, _request: Request) -> Answer:
        """The process answers."""
        return Answer([b"ok\n"], PLAIN)

    def readyz(self, _request: Request) -> Answer:
        """The node can be read."""
        missing = self._work.ready()
        return Answer([f"{missing or 'ok'}\n".encode()], PLAIN, 503 if missing else 200)

    def metrics(self, _request: Request) -> Answer:
        """The page for Prometheus."""
        return Answer([self._work.metrics()], TEXT)

    def openapi(self, _request: Request) -> Answer:
        """The description."""
        return Answer([self.description])

    def counters(self, _request: Request) -> Answer:
        """The counters as a document."""
        listed = [{"name": n, "labels": dict(labels), "value": value} for n, labels, value in self._work.counters()]
        return json_answer({"apiVersion": API_VERSION, "kind": "Counters", "counters": listed})

    def trace(self, request: Request) -> Answer:
        """The explanation of a flow, with advice for the verdict that is wanted, if any is."""
        from calico_debug.advice.words import Advisor
        from calico_debug.explain.document import to_document
        from calico_debug.explain.engine import Engine
        from calico_debug.explain.settled import explain_settled

        body = request.body

        def resolve(resolver: Resolver) -> Flow:
            return resolver.resolve(
                body["from"],
                body["to"],
                protocol=body.get("protocol"),
                namespace=body.get("namespace"),
                via=body.get("via"),
            )

        source = self._work.source(request)

        def work() -> Mapping[str, Any]:
            engine, flow, explanation = explain_settled(Engine(source), resolve)
            if wanted := body.get("want"):
                explanation = replace(explanation, advice=Advisor(engine.cluster).advice(flow, explanation, wanted))
            return to_document(explanation)

        return Answer(told(request, work, "/v1/trace"), LINES) if request.accepts(LINES) else json_answer(work())


def routes(work: Work) -> tuple[Route, ...]:
    """The table of routes; docs/agent.md has the same, and the description is made from it."""
    do = Handlers(work)
    found = (
        Route("GET", "/healthz", "healthz", "Is the process alive", "ok", do.healthz, PLAIN, light=True, role=""),
        Route(
            "GET",
            "/readyz",
            "readyz",
            "Can the node be read",
            "ok, else with 503 what is missing",
            do.readyz,
            PLAIN,
            light=True,
            statuses=(503,),
            role="",
        ),
        Route(
            "GET",
            "/metrics",
            "metrics",
            "Metrics for Prometheus",
            "text format 0.0.4",
            do.metrics,
            TEXT,
            light=True,
            role="",
        ),
        Route(
            "GET",
            "/v1/openapi.json",
            "openapi",
            "This description",
            "an OpenAPI 3.1 document",
            do.openapi,
            schema={"type": "object"},
            light=True,
        ),
        *evidence_routes(work.source),
        Route(
            "POST",
            "/v1/trace",
            "trace",
            "Explain a flow",
            "a FlowExplanation (json.md); to `Accept: application/jsonl` behind lines that say what is done",
            do.trace,
            schema={"$ref": "#/components/schemas/flowExplanation"},
            body=TRACE,
        ),
        Route(
            "GET",
            "/v1/counters",
            "counters",
            "The samples of /metrics as JSON",
            "names, labels, values",
            do.counters,
            schema=COUNTERS,
        ),
        *capture_routes(CaptureHandlers(work.captures, work.open_watch)),
        *witness_routes(work.source),
    )
    do.description = json.dumps(describe(found)).encode()
    return found
