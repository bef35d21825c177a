"""Small clusters for tests, made of objects as the API has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from calico_debug.decode.policies import POLICY_SOURCES, decode_policy
from calico_debug.intent.decide import Intent
from calico_debug.intent.model import PolicyFlow
from calico_debug.model.cluster import (
    Backend,
    Cluster,
    HostEndpoint,
    NetworkSet,
    Node,
    Pod,
    PolicyObject,
    Service,
    Tier,
)

Spec = Mapping[str, Any]
NAMESPACES = {"shop": {"team": "a"}, "bank": {"team": "b"}}
ACCOUNTS = {("shop", "default"): {}, ("shop", "web"): {"level": "high"}, ("bank", "default"): {}}
NODES = (Node("n1", (ip_address("172.30.0.1"),)), Node("n2", (ip_address("172.30.0.2"),)))
TIERS = (Tier("default", 1_000_000.0), Tier("early", 10.0), Tier("passing", 20.0, "Pass"))


def policy(kind: str, name: str, namespace: str = "", **spec: Any) -> PolicyObject:
    """An object of that kind, decoded as from evidence."""
    source = next(source for source in POLICY_SOURCES if source.kind == kind)
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return decode_policy({"metadata": metadata, "spec": spec}, source)


def pod(place: str, number: int, node: str = "n1", account: str = "default", **labels: str) -> Pod:
    """A pod ``ns/name`` with addresses 10.0.0.<number> and fd00::<number>, and a port ``http`` 8080/TCP."""
    namespace, _, name = place.partition("/")
    addresses = (ip_address(f"10.0.0.{number}"), ip_address(f"fd00::{number:x}"))
    ports = (("TCP", "http", 8080),)
    return Pod(namespace, name, node, addresses, labels=labels, service_account=account, named_ports=ports)


PODS = (
    pod("shop/web", 1, "n1", "web", app="web"),
    pod("shop/db", 2, "n2", app="db"),
    pod("bank/cli", 3, "n1", app="cli"),
)


def cluster(*policies: PolicyObject, **more: Any) -> Cluster:
    """Three pods in two namespaces on two nodes, and the policies."""
    given: dict[str, Any] = {
        "pods": PODS,
        "nodes": NODES,
        "tiers": TIERS,
        "namespaces": NAMESPACES,
        "service_accounts": ACCOUNTS,
        **more,
    }
    return Cluster(policies=policies, **given)


def intent(*policies: PolicyObject, **more: Any) -> Intent:
    """What such a cluster's objects mean."""
    return Intent(cluster(*policies, **more))


def flow(source: str, destination: str, port: int | None = 80, protocol: int = 6, **more: Any) -> PolicyFlow:
    """A flow between pods, by name as in ``web``, or addresses. Names are of PODS."""
    start, end = (_address(text) for text in (source, destination))
    return PolicyFlow(start, end, protocol, more.pop("source_port", 40000), port, **more)


def _address(text: str) -> Any:
    found = next((one for one in PODS if one.name == text), None)
    return found.addresses[0] if found else ip_address(text)


def service(name: str, *backends: tuple[str, int]) -> Service:
    """A service of namespace shop with those backends over TCP."""
    found = tuple(Backend(ip_address(address), port, "TCP", "", True) for address, port in backends)
    return Service("shop", name, "ClusterIP", (ip_address("10.96.0.1"),), (), backends=found)


def network_set(name: str, nets: Sequence[str], namespace: str = "", **labels: str) -> NetworkSet:
    return NetworkSet(namespace, name, tuple(ip_network(net) for net in nets), labels)


def host(name: str, node: str = "n2", interface: str = "eth0", **labels: str) -> HostEndpoint:
    addresses = {"n1": "172.30.0.1", "n2": "172.30.0.2"}
    return HostEndpoint(name, node, interface, (addresses[node],), labels)
