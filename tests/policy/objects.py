"""Policy objects for tests: small copies of ones that a real cluster had, and short ways to make others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from calico_debug.model.cluster import PolicyObject


def policy(kind: str, namespace: str, name: str, tier: str = "default", **spec: Any) -> PolicyObject:
    return PolicyObject(kind, namespace, name, tier, None, spec)


def ingress(*rules: Mapping[str, Any], kind: str = "GlobalNetworkPolicy", namespace: str = "") -> PolicyObject:
    return policy(kind, namespace, "some", ingress=list(rules))


CLIENT_EGRESS = policy(
    "NetworkPolicy",
    "client",
    "platform.client-egress",
    "platform",
    egress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "destination": {"namespaceSelector": "kubernetes.io/metadata.name == 'stars'", "ports": [80, 6379]},
        }
    ],
    selector="role == 'client'",
    types=["Egress"],
)
STARS_BACKEND = policy(
    "NetworkPolicy",
    "stars",
    "platform.stars-backend",
    "platform",
    ingress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"namespaceSelector": "all()", "selector": "role in {'frontend','client'}"},
            "destination": {"ports": [6379]},
        }
    ],
    selector="role == 'backend'",
    types=["Ingress"],
)
MANAGEMENT = policy(
    "GlobalNetworkPolicy",
    "",
    "platform.management",
    "platform",
    ingress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"namespaceSelector": "kubernetes.io/metadata.name in {'stars','client','management-ui'}"},
            "destination": {"ports": [9001]},
        }
    ],
)
NODE_INGRESS = policy(
    "GlobalNetworkPolicy",
    "",
    "security.node-ingress",
    "security",
    ingress=[
        {"action": "Allow", "protocol": "ICMP"},
        {"action": "Allow", "source": {"nets": ["172.30.0.0/28"]}},
        {"action": "Deny"},
    ],
    egress=[{"action": "Allow"}],
)
QUARANTINE = policy(
    "GlobalNetworkPolicy",
    "",
    "security.quarantine",
    "security",
    ingress=[
        {"action": "Deny", "source": {"namespaceSelector": "all()", "selector": "role == 'attacker'"}},
        {"action": "Deny", "source": {"selector": "threat == 'yes'"}},
        {"action": "Pass"},
    ],
    egress=[{"action": "Deny", "destination": {"selector": "threat == 'yes'"}}, {"action": "Pass"}],
)
CUSTOMER = policy(
    "NetworkPolicy",
    "yaobank",
    "customer-policy",
    ingress=[{"action": "Allow", "protocol": "TCP", "destination": {"ports": [80]}}],
    egress=[
        {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"], "selector": "app == 'summary'"}},
        {"action": "Allow", "protocol": "UDP", "destination": {"ports": [53]}},
        {"action": "Allow", "protocol": "ICMP", "icmp": {"type": 8}},
    ],
)
SUMMARY = policy(
    "NetworkPolicy",
    "yaobank",
    "summary-policy",
    ingress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"serviceAccounts": {"names": ["customer"]}},
            "destination": {"ports": [80]},
        }
    ],
    egress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "destination": {"services": {"name": "database", "namespace": "yaobank"}},
        }
    ],
)
DATABASE = policy(
    "KubernetesNetworkPolicy",
    "yaobank",
    "database-policy",
    ingress=[
        {
            "from": [{"podSelector": {"matchLabels": {"app": "summary"}}}],
            "ports": [{"port": 2379, "protocol": "TCP"}],
        }
    ],
    egress=[{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.0.0/16"]}}]}],
    podSelector={"matchLabels": {"app": "database"}},
    policyTypes=["Ingress", "Egress"],
)
DEFAULT_DENY = policy(
    "GlobalNetworkPolicy",
    "",
    "default-deny",
    ingress=[{"action": "Log"}, {"action": "Deny"}],
    egress=[{"action": "Log"}, {"action": "Deny"}],
)
STAGED = policy("StagedNetworkPolicy", "attack", "staged-lock", ingress=[{"action": "Allow"}])

RECORDED = (
    CLIENT_EGRESS,
    STARS_BACKEND,
    MANAGEMENT,
    NODE_INGRESS,
    QUARANTINE,
    CUSTOMER,
    SUMMARY,
    DATABASE,
    DEFAULT_DENY,
    STAGED,
)
