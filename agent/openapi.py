"""The OpenAPI description of the agent, made from its table of routes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from calico_debug import __version__
from calico_debug.agent.reviews import AUDIENCE
from calico_debug.model.explanation import API_VERSION

if TYPE_CHECKING:
    from calico_debug.agent.routing import Route

OPENAPI = "3.1.0"

ERROR_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "reason", "message"],
    "properties": {
        "apiVersion": {"const": API_VERSION},
        "kind": {"const": "Error"},
        "reason": {
            "type": "string",
            "description": "usage, missing, evidence, busy, timeout, unknown-path, unauthenticated, forbidden, "
            "unchecked or internal",
        },
        "message": {"type": "string", "description": "what was wrong, where, and what to do next"},
    },
}

TOKEN: Mapping[str, Any] = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "JWT",
    "description": f"A token of a service account with audience {AUDIENCE}, over TLS alone",
}


def describe(routes: Iterable[Route]) -> dict[str, Any]:
    """The document. Every route is in it, with its parameters, body, answers and errors."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    answers = (files("calico_debug.explain") / "schema.json").read_text(encoding="utf-8")
    parts: dict[str, Any] = json.loads(answers.replace("#/$defs/", "#/components/schemas/"))["$defs"]
    # The line that stands for a flow in error is of ``--flows`` alone.
    del parts["error"]
    return {
        "openapi": OPENAPI,
        "info": {
            "title": "calico-debug agent",
            "version": __version__,
            "description": "Evidence, traces and counters of one node.",
        },
        # The socket asks for no token, listeners for others do.
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {"Error": dict(ERROR_SCHEMA), **parts},
            "securitySchemes": {"token": dict(TOKEN)},
        },
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        **({"description": f"ClusterRole {route.role} has the right to it."} if route.role else {}),
        "responses": {
            "200": {
                "description": route.answer,
                "content": {route.content: {"schema": dict(route.schema) if route.schema else {}}},
            },
            **{
                str(status): {
                    "description": meaning,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, meaning in route.errors().items()
            },
        },
    }
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters
    ]
    if route.query is not None:
        parameters += [
            {"name": name, "in": "query", "required": False, "schema": dict(schema)}
            for name, schema in route.query["properties"].items()
        ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": dict(route.body)}},
        }
    return operation
