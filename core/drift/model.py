"""A difference between what the API intends and what a node is programmed with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from calico_debug.model.explanation import API_VERSION

KIND = "Drift"

CODES: Mapping[str, str] = {
    "endpoint-missing": "a pod that runs on the node has no policy there",
    "endpoint-left": "an interface has policy of a pod that the API does not have",
    "policy-missing": "a policy selects an endpoint and is not programmed for it",
    "policy-left": "a policy is programmed for an endpoint that it does not select, or that is deleted",
    "policy-order": "the policies of an endpoint are asked in another order than the API's",
    "set-missing": "a policy's rule needs an IP set that the node does not have",
    "set-members-missing": "an IP set lacks addresses that the API's objects have",
    "set-members-left": "an IP set has addresses that no object of the API accounts for",
    "service-missing": "the address of a service is not translated on the node",
    "service-left": "an address is translated that no service of the API has",
    "backends-missing": "a service is not balanced to backends that its EndpointSlices have",
    "backends-left": "a service is balanced to backends that its EndpointSlices do not have",
}
"""Every code with its meaning; docs/cli.md has the same table."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. ``object`` is the API's object or the node's part that differs, ``cause`` what is likely behind.

    ``severity`` is "error" where packets are treated otherwise than intended, "warning" where they may be.
    """

    code: str
    severity: str
    node: str
    object: str
    message: str
    cause: str

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/cli.md)."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "code": self.code,
            "severity": self.severity,
            "node": self.node,
            "object": self.object,
            "message": self.message,
            "cause": self.cause,
        }


@dataclass(frozen=True, slots=True)
class Drifts:
    """What was found, and what could not be compared, a sentence each. ``compared`` counts things by kind."""

    found: tuple[Drift, ...]
    not_compared: tuple[str, ...]
    compared: Mapping[str, int]
