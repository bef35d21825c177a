"""The recorded cluster (v3.32.1, nftables mode) as a model of the lab, to hold our rendering against Felix's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.lab.model import (
    Entity,
    Felix,
    HostEndpoint,
    Model,
    NamedPort,
    NetworkSet,
    Node,
    Pod,
    Policy,
    PolicyKind,
    Rule,
    Selector,
    Service,
    ServicePort,
    Tier,
)
from tests.lab.topology import Topology

_BESIDE = Path(__file__).parents[3] / "shared" / "captures"


def recordings() -> Path | None:
    """The directory of recordings: CALICO_DEBUG_RECORDINGS, or one beside the checkout; None when there is none."""
    named = os.environ.get("CALICO_DEBUG_RECORDINGS")
    directory = Path(named) if named else _BESIDE
    return directory if (directory / "v3.32.1-nft").is_dir() else None


def _items(capture: Path, resource: str) -> list[dict]:  # type: ignore[type-arg]
    return json.loads((capture / "cluster" / f"{resource}.json").read_text())["items"]  # type: ignore[no-any-return]


def recorded_topology(capture: Path) -> Topology:
    nodes = []
    for item in _items(capture, "nodes"):
        address = item["status"]["addresses"][0]["address"]
        tunnel = item["metadata"]["annotations"].get("projectcalico.org/IPv4VXLANTunnelAddr", "")
        nodes.append(Node(item["metadata"]["name"], address, "", item["spec"]["podCIDR"], "", tunnel))
    pods = []
    for item in _items(capture, "pods"):
        meta, spec = item["metadata"], item["spec"]
        ports = tuple(
            NamedPort(port.get("name", ""), port["protocol"].lower(), port["containerPort"])
            for container in spec["containers"]
            for port in container.get("ports", ())
        )
        labels = meta.get("labels", {})
        place = (meta["namespace"], meta["name"], spec["nodeName"], item["status"]["podIP"], "")
        pods.append(Pod(*place, labels, ports, spec["serviceAccountName"]))
    return Topology(tuple(nodes), tuple(pods), vxlan=any(node.tunnel for node in nodes), ipv6=False)


def recorded_model(capture: Path) -> Model:
    return Model(
        tiers=tuple(
            Tier(item["metadata"]["name"], item["spec"].get("order"), item["spec"].get("defaultAction", "Deny"))
            for item in _items(capture, "tiers.crd.projectcalico.org")
        ),
        policies=_policies() + (_FREEZE if "stale" in capture.name else ()),
        host_endpoints=(HostEndpoint("node2-eth0", "node2", "eth0", {"host": "node2"}),),
        network_sets=(NetworkSet("bad-actors", ("198.51.100.0/24", "203.0.113.7"), {"threat": "yes"}),),
        services=_services(capture),
        felix=Felix(vxlan="stale" in capture.name),
    )


_FREEZE = (
    Policy(
        "GlobalNetworkPolicy",
        "platform.freeze",
        "platform",
        order=-10,
        selector=Selector("role", ("backend",)),
        ingress=(Rule("Deny"),),
    ),
)


def _services(capture: Path) -> tuple[Service, ...]:
    """Services with the backends of their EndpointSlices, in the order the slices have them."""
    backends: dict[tuple[str, str], list[str]] = {}
    for item in _items(capture, "endpointslices.discovery.k8s.io"):
        key = (item["metadata"]["namespace"], item["metadata"]["labels"]["kubernetes.io/service-name"])
        for endpoint in item["endpoints"] or ():
            target = endpoint.get("targetRef")
            place = f"{target['namespace']}/{target['name']}" if target else endpoint["addresses"][0]
            backends.setdefault(key, []).append(place)
    return tuple(
        Service(
            item["metadata"]["namespace"],
            item["metadata"]["name"],
            tuple(
                ServicePort(
                    port["port"],
                    port["targetPort"],
                    port["protocol"].lower(),
                    port.get("name", ""),
                    port.get("nodePort", 0),
                )
                for port in item["spec"]["ports"]
            ),
            item["spec"]["clusterIP"],
            backends=tuple(backends.get((item["metadata"]["namespace"], item["metadata"]["name"]), ())),
            load_balancer=tuple(entry["ip"] for entry in item["status"]["loadBalancer"].get("ingress", ())),
            external_policy=item["spec"].get("externalTrafficPolicy", "Cluster"),
            internal_policy=item["spec"].get("internalTrafficPolicy", "Cluster"),
        )
        for item in _items(capture, "services")
    )


def _namespaces(*names: str) -> Selector:
    return Selector("projectcalico.org/namespace", names)


def _policies() -> tuple[Policy, ...]:
    dns = Rule("Allow", "udp", destination=Entity(ports=(53,), selector=Selector("k8s-app", ("kube-dns",))))
    threat = Selector("threat", ("yes",))
    log_deny = (Rule("Log"), Rule("Deny"))
    host = Selector("host", ("node2",))
    g: PolicyKind = "GlobalNetworkPolicy"
    n: PolicyKind = "NetworkPolicy"
    return (
        Policy(
            g, "default-deny", "default", order=2000, selector=_namespaces("yaobank"), ingress=log_deny, egress=log_deny
        ),
        Policy(
            g,
            "platform.management",
            "platform",
            order=0,
            selector=_namespaces("management-ui"),
            ingress=(
                Rule(
                    "Allow",
                    "tcp",
                    source=Entity(selector=_namespaces("stars", "client", "management-ui")),
                    destination=Entity(ports=(9001,)),
                ),
            ),
        ),
        Policy(g, "security.dns", "security", order=5, ingress=(dns,), egress=(dns,)),
        Policy(
            g,
            "security.node-ingress",
            "security",
            order=20,
            selector=host,
            ingress=(Rule("Allow", "icmp"), Rule("Allow", source=Entity(nets=("172.30.0.0/28",))), Rule("Deny")),
            egress=(Rule("Allow"),),
        ),
        Policy(
            g,
            "security.nodeport-guard",
            "security",
            order=1,
            selector=host,
            ingress=(Rule("Deny", "tcp", source=Entity(nets=("172.30.0.64/26",)), destination=Entity(ports=(30180,))),),
            pre_dnat=True,
            apply_on_forward=True,
        ),
        Policy(
            g,
            "security.quarantine",
            "security",
            order=10,
            selector=Selector("projectcalico.org/orchestrator", ("k8s",)),
            ingress=(
                Rule("Deny", source=Entity(selector=Selector("role", ("attacker",)))),
                Rule("Deny", source=Entity(selector=threat)),
                Rule("Pass"),
            ),
            egress=(Rule("Deny", destination=Entity(selector=threat)), Rule("Pass")),
        ),
        Policy(
            n,
            "platform.client-egress",
            "platform",
            "client",
            10,
            Selector("role", ("client",)),
            egress=(Rule("Allow", "tcp", destination=Entity(ports=(80, 6379), selector=_namespaces("stars"))),),
        ),
        Policy(
            n,
            "platform.stars-backend",
            "platform",
            "stars",
            20,
            Selector("role", ("backend",)),
            ingress=(
                Rule(
                    "Allow",
                    "tcp",
                    source=Entity(selector=Selector("role", ("frontend", "client"))),
                    destination=Entity(ports=(6379,)),
                ),
            ),
        ),
        Policy(
            n,
            "platform.stars-frontend",
            "platform",
            "stars",
            20,
            Selector("role", ("frontend",)),
            ingress=(
                Rule(
                    "Allow",
                    "tcp",
                    source=Entity(selector=Selector("role", ("client",))),
                    destination=Entity(ports=(80,)),
                ),
            ),
        ),
        *_bank(),
        Policy(n, "staged-lock", "default", "attack", 100, ingress=(), staged=True),
    )


def _bank() -> tuple[Policy, ...]:
    def app(name: str) -> Selector:
        return Selector("app", (name,), namespace="yaobank")

    return (
        Policy(
            "NetworkPolicy",
            "customer-policy",
            "default",
            "yaobank",
            500,
            Selector("app", ("customer",)),
            ingress=(Rule("Allow", "tcp", destination=Entity(ports=(80,))),),
            egress=(
                Rule("Allow", "tcp", destination=Entity(ports=("http",), selector=app("summary"))),
                Rule("Allow", "udp", destination=Entity(ports=(53,))),
                Rule("Allow", "icmp", icmp_type=8),
            ),
        ),
        Policy(
            "NetworkPolicy",
            "summary-policy",
            "default",
            "yaobank",
            500,
            Selector("app", ("summary",)),
            ingress=(
                Rule(
                    "Allow",
                    "tcp",
                    source=Entity(
                        selector=Selector("projectcalico.org/serviceaccount", ("customer",), namespace="yaobank")
                    ),
                    destination=Entity(ports=(80,)),
                ),
            ),
            egress=(Rule("Allow", "tcp", destination=Entity(service=("yaobank", "database"))),),
        ),
        Policy(
            "KubernetesNetworkPolicy",
            "database-policy",
            "default",
            "yaobank",
            1000,
            Selector("app", ("database",)),
            ingress=(Rule("Allow", "tcp", source=Entity(selector=app("summary")), destination=Entity(ports=(2379,))),),
            egress=(Rule("Allow", destination=Entity(nets=("10.0.0.0/8",), not_nets=("10.244.0.0/16",))),),
        ),
    )
