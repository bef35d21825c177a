"""Every path over HTTP, against evidence that is known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from calico_debug.agent.routes import routes
from calico_debug.explain.document import to_document
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.agent.serving import Agent, serving, work_over
from tests.recordings import recordings

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.evidence.source import EvidenceSource

FROM, TO = "client/client-5f8b", "svc/stars/backend"


@pytest.fixture(scope="module")
def recorded() -> EvidenceSource:
    return recordings("3.32.1-nft")[0].source


@pytest.fixture(scope="module")
def agent(recorded: EvidenceSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    with serving(tmp_path_factory.mktemp("agent"), recorded) as running:
        yield running


def test_a_trace_is_what_the_engine_says(agent: Agent, recorded: EvidenceSource) -> None:
    engine = Engine(recorded)
    flow = Resolver(engine.cluster, engine.states).resolve(FROM, TO)
    assert agent.json("/v1/trace", {"from": FROM, "to": TO}) == to_document(engine.explain(flow))


def test_a_trace_with_advice(agent: Agent) -> None:
    asked = {"from": "client/client-5f8b", "to": "svc/management-ui/management-ui"}
    assert agent.json("/v1/trace", asked)["advice"] == []
    (advice,) = agent.json("/v1/trace", {**asked, "want": "allowed"})["advice"]
    assert advice["message"].startswith("add to client/platform.client-egress an egress rule: ")
    assert agent.ask("/v1/trace", {**asked, "want": "both"})[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "reason"),
    [
        ("/v1/nodes/nobody/files", None, 404, "missing"),
        ("/v1/nodes/node1/files/nothing.txt", None, 404, "missing"),
        ("/v1/nodes/node1/files/../../../../etc/passwd", None, 404, "missing"),
        ("/v1/nodes/node1/files//etc/passwd", None, 404, "missing"),
        ("/v1/nodes/node1/sysctl/net.ipv4.ip_forward", None, 404, "missing"),
        ("/v1/nodes/node1/netlink", {"type": 7, "flags": 768, "family": 2}, 404, "missing"),
        ("/v1/nodes/node1/maps/1/entries", None, 404, "missing"),
        ("/v1/cluster/nothing.json", None, 404, "missing"),
        ("/v1/nothing", None, 404, "unknown-path"),
        ("/v1/trace", None, 405, "unknown-path"),
        ("/v1/nodes", {}, 405, "unknown-path"),
        ("/v1/trace", {"from": "nobody/nobody", "to": TO}, 400, "usage"),
        ("/v1/trace", {"from": FROM}, 400, "usage"),
        ("/v1/trace", {"from": FROM, "to": 3}, 400, "usage"),
        ("/v1/trace", {"from": FROM, "to": TO, "shell": "x"}, 400, "usage"),
        ("/v1/trace", b"[1]", 400, "usage"),
        ("/v1/trace", b"\xff{", 400, "usage"),
        ("/v1/trace", b"[" * 50_000, 400, "usage"),
    ],
)
def test_what_cannot_be_answered_is_an_error_with_a_reason(
    agent: Agent, path: str, body: object, status: int, reason: str
) -> None:
    code, headers, content = agent.ask(path, body)
    error = json.loads(content)
    assert (code, error["kind"], error["reason"]) == (status, "Error", reason)
    assert headers["Content-Type"] == "application/json"
    assert "\n" not in error["message"]


def test_the_description_has_every_route_and_answers_keep_it(agent: Agent, recorded: EvidenceSource) -> None:
    document = agent.json("/v1/openapi.json")
    table = routes(work_over(recorded))
    assert {(method, path) for path, item in document["paths"].items() for method in item} == {
        (route.method.lower(), route.path) for route in table
    }
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
    (scheme,) = document["components"]["securitySchemes"]
    assert document["security"] == [{scheme: []}, {}]
    for route in table:
        told = document["paths"][route.path][route.method.lower()].get("description", "")
        assert (route.role in told.split()) == bool(route.role)
    for item in document["paths"].values():
        assert all({"401", "403", "503"} <= operation["responses"].keys() for operation in item.values())
    questions: dict[str, tuple[str, Any]] = {
        "/v1/nodes": ("/v1/nodes", None),
        "/v1/nodes/{node}": ("/v1/nodes/node1", None),
        "/v1/nodes/{node}/files": ("/v1/nodes/node1/files", None),
        "/v1/cluster": ("/v1/cluster", None),
        "/v1/trace": ("/v1/trace", {"from": FROM, "to": TO}),
        "/v1/counters": ("/v1/counters", None),
        "/v1/openapi.json": ("/v1/openapi.json", None),
    }
    live = {"/v1/nodes/{node}/sysctl/{key}", "/v1/nodes/{node}/maps/{map}/lookup"}
    live |= {"/v1/captures", "/v1/captures/{capture}", "/v1/captures/{capture}/files"}
    described = {route.path for route in table if route.schema is not None}
    observing = {"/v1/observations/{id}/finish", "/v1/probes"}
    assert described == questions.keys() | live | observing
    for path, (asked, body) in questions.items():
        operation = document["paths"][path]["post" if body else "get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(agent.json(asked, body), {**schema, "components": document["components"]})
    error = document["components"]["schemas"]["Error"]
    jsonschema.validate(agent.json("/v1/nodes/nobody"), error)


def test_bodies_are_described_as_they_are_checked(recorded: EvidenceSource) -> None:
    for route in routes(work_over(recorded)):
        if route.body is not None:
            jsonschema.Draft202012Validator.check_schema(dict(route.body))
            assert {400} <= route.errors().keys()


def test_health_and_metrics(tmp_path: Path, recorded: EvidenceSource) -> None:
    work = work_over(recorded)
    missing = ["no netlink"]
    changed = type(work)(work.source, work.metrics, work.counters, lambda: missing[0])
    with serving(tmp_path, work=changed) as agent:
        assert agent.ask("/healthz")[::2] == (200, b"ok\n")
        assert agent.ask("/readyz")[::2] == (503, b"no netlink\n")
        missing[0] = ""
        assert agent.ask("/readyz")[::2] == (200, b"ok\n")
        status, headers, content = agent.ask("/metrics")
        assert (status, content) == (200, b"page\n")
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
