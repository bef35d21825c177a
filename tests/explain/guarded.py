"""A pod with policies of two tiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explain.world import (
    Node,
    Tier,
    allow,
    deny,
    endpoint,
    passed,
    policy,
    policy_object,
)

if TYPE_CHECKING:
    pass


INGRESS = (Tier("security", ["gnp/security.guard"]), Tier("default", ["np/shop/web"]))
POLICIES = {
    **policy("gnp", "security.guard", "ingress", deny("protocol=tcp dport=23"), passed()),
    **policy("np", "shop/web", "ingress", allow("protocol=tcp dport=80")),
}
POLICY_OBJECTS = {
    "globalnetworkpolicies_crd_projectcalico_org": [
        policy_object(
            "security.guard",
            "security",
            ingress=[
                {"action": "Deny", "protocol": "TCP", "destination": {"ports": [23]}},
                {"action": "Pass"},
            ],
        )
    ],
    "networkpolicies_crd_projectcalico_org": [
        policy_object(
            "web",
            "default",
            "shop",
            ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}],
        )
    ],
}


def guarded(number: int = 1, pod: int = 2) -> Node:
    """A node whose pod has policies of two tiers."""
    return Node(number, chains={**endpoint(f"cali-tw-cali{pod}", INGRESS), **POLICIES})
