"""Small clusters for tests: nodes with routes and rules of Calico's shape, and the objects that name them.

Nodes are n1 (172.30.0.1) and n2 (172.30.0.2), their pods 10.244.<node>.<number> behind ``cali<number>``; IPv6 the
same with fd00:30:: and fd00:244:<node>::.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from calico_debug.explain.engine import Engine
from calico_debug.model.explanation import FlowExplanation, Step
from calico_debug.state.resolve import Resolver
from tests.evidence.memory import MemoryNode, MemorySource
from tests.explain.rules import Json, ruleset

ACCEPT, PASS, DROP, WORKLOAD = "10000", "20000", "80000", "40000"
"""Felix's mark bits, in hexadecimal."""

RULES = json.dumps([{"priority": n, "src": "all", "table": name} for n, name in ((0, "local"), (32766, "main"))])
_FORWARDING = ("ipv4.ip_forward", "ipv4.conf.all.forwarding", "ipv6.conf.all.forwarding")
SYSCTLS = "".join(f"net.{key} = 1\n" for key in _FORWARDING)


def allow(match: str = "") -> tuple[str, ...]:
    return (f"{match} mark|{ACCEPT}", f"mark&{ACCEPT}={ACCEPT} return")


def passed(match: str = "") -> tuple[str, ...]:
    return (f"{match} mark|{PASS}", f"mark&{PASS}={PASS} return")


def deny(match: str = "", verdict: str = "drop") -> tuple[str, ...]:
    return (f"{match} mark|{DROP}", f"mark&{DROP}={DROP} {verdict}")


def policy(kind: str, name: str, direction: str, *rules: Sequence[str]) -> dict[str, list[str]]:
    """A policy's chain: ``kind`` np, gnp or knp, ``name`` with its namespace."""
    kinds = {"np": "NetworkPolicy", "gnp": "GlobalNetworkPolicy", "knp": "KubernetesNetworkPolicy"}
    first, *rest = [rule for each in rules for rule in each] or ["continue"]
    prefix = "pi" if direction == "ingress" else "po"
    return {f"filter-cali-{prefix}-{kind}/{name}": [f"{first} # cali:p; {kinds[kind]} {name} {direction}", *rest]}


@dataclass(frozen=True)
class Tier:
    """``policies`` as ``kind/name``; ``default`` Deny or Pass."""

    name: str
    policies: Sequence[str] = ()
    default: str = "Deny"


def endpoint(
    chain: str, tiers: Iterable[Tier], profile: str = "kns.shop", deny: str = "drop", before: Sequence[str] = ()
) -> dict[str, list[str]]:
    """An endpoint's chain: ``cali-fw-cali1``, ``cali-th-eth0``."""
    prefix, profiles = ("po", "pro") if chain.startswith(("cali-fw", "cali-th")) else ("pi", "pri")
    rules = ["ct=established,related accept", f"ct=invalid {deny}", *before, "mark-30000"]
    for tier in tiers:
        rules.append(f"mark-{PASS} # cali:t; Start of tier {tier.name}")
        for name in tier.policies:
            rules.append(f"mark&{PASS}=0 jump:filter-cali-{prefix}-{name}")
            rules.append(f"mark&{ACCEPT}={ACCEPT} return # cali:a; Return if policy accepted")
        if tier.policies and tier.default == "Deny":
            word = "Reject" if deny == "reject" else "Drop"
            text = f"End of tier {tier.name}. {word} if no policies passed packet"
            rules.append(f"mark&{PASS}=0 {deny} # cali:e; {text}")
    if profile:
        rules.append(f"jump:filter-cali-{profiles}-{profile}")
        rules.append(f"mark&{ACCEPT}={ACCEPT} return # cali:r; Return if profile accepted")
    rules.append(f"{deny} # cali:n; Drop if no profiles matched")
    return {f"filter-{chain}": rules}


@dataclass
class Node:
    """One node. ``pods`` are numbers; ``chains`` replace or add chains of table calico, ``tables`` other tables."""

    number: int = 1
    pods: Sequence[int] = (1, 2)
    chains: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    first_tables: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    host_action: str = "accept"
    routes: Sequence[Json] = ()
    conntrack: str = ""
    files: Mapping[str, str | None] = field(default_factory=dict)
    peers: Sequence[int] = (1, 2)
    family: int = 4
    calico: bool = True

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return node_address(self.number, self.family)

    def evidence(self) -> MemoryNode:
        calico = {"ip calico" if self.family == 4 else "ip6 calico": self._chains()} if self.calico else {}
        tables = {**self.first_tables, **calico, **self.tables}
        routes = self._routes()
        files: dict[str, str | None] = {
            "nft-ruleset.json": ruleset(tables),
            "ip-addr.json": json.dumps(self._links()),
            "ip-link.json": json.dumps(self._links()),
            "ip-route-all.json": json.dumps(routes if self.family == 4 else []),
            "ip6-route-all.json": json.dumps(routes if self.family == 6 else []),
            "ip-rule.json": RULES,
            "ip6-rule.json": RULES,
            "sysctl.txt": SYSCTLS,
            "conntrack.txt": self.conntrack,
            **self.files,
        }
        return MemoryNode({name: text for name, text in files.items() if text is not None}, self.name)

    def _links(self) -> list[Json]:
        family, length = ("inet", 24) if self.family == 4 else ("inet6", 64)
        loopback = ("127.0.0.1", 8) if self.family == 4 else ("::1", 128)
        addresses = {"lo": (*loopback, "host"), "eth0": (self.address, length, "global")}
        links: list[Json] = []
        for index, name in enumerate(("lo", "eth0", *(f"cali{pod}" for pod in self.pods)), 1):
            flags = ["UP", "LOWER_UP", *(["LOOPBACK"] if name == "lo" else [])]
            link: Json = {"ifindex": index, "ifname": name, "flags": flags, "operstate": "UP", "addr_info": []}
            if name in addresses:
                local, size, scope = addresses[name]
                link["addr_info"] = [{"family": family, "local": local, "prefixlen": size, "scope": scope}]
            links.append(link)
        return links

    def _routes(self) -> list[Json]:
        pods = [
            {"dst": pod_address(self.number, pod, self.family), "dev": f"cali{pod}", "scope": "link"}
            for pod in self.pods
        ]
        length = 24 if self.family == 4 else 64
        others = [
            {
                "dst": str(ip_network(f"{pod_address(n, 0, self.family)}/{length}", strict=False)),
                "gateway": node_address(n, self.family),
                "dev": "eth0",
            }
            for n in self.peers
            if n != self.number
        ]
        wire = str(ip_network(f"{self.address}/{length}", strict=False))
        own = [
            {"dst": wire, "dev": "eth0", "scope": "link", "prefsrc": self.address},
            {"dst": "default", "gateway": node_address(254, self.family), "dev": "eth0"},
            {
                "type": "local",
                "dst": self.address,
                "dev": "eth0",
                "table": "local",
                "scope": "host",
                "prefsrc": self.address,
            },
        ]
        return [*pods, *others, *own, *self.routes]

    def _chains(self) -> dict[str, Sequence[str]]:
        made: dict[str, Sequence[str]] = {
            "raw-PREROUTING@prerouting:-300": ["jump:raw-cali-PREROUTING"],
            "raw-cali-PREROUTING": [f"iif=cali* mark|{WORKLOAD}", f"mark&{WORKLOAD}={WORKLOAD} spoofed drop"],
            "filter-FORWARD@forward:0": [
                "jump:filter-cali-FORWARD",
                f"mark&{ACCEPT}={ACCEPT} accept # cali:f; Policy explicitly accepted packet.",
            ],
            "filter-cali-FORWARD": [
                "mark-b0000",
                "iif=cali* jump:filter-cali-from-wl-dispatch",
                "oif=cali* jump:filter-cali-to-wl-dispatch",
            ],
            "filter-INPUT@input:0": ["jump:filter-cali-INPUT"],
            "filter-cali-INPUT": ["iif=cali* goto:filter-cali-wl-to-host"],
            "filter-cali-wl-to-host": [
                "jump:filter-cali-from-wl-dispatch",
                f"{self.host_action} # cali:h; Configured DefaultEndpointToHostAction",
            ],
            "filter-OUTPUT@output:0": ["jump:filter-cali-OUTPUT"],
            "filter-cali-OUTPUT": ["oif=cali* return"],
            "filter-cali-pro-kns.shop": [f"mark|{ACCEPT} # cali:o; Profile kns.shop egress"],
            "filter-cali-pri-kns.shop": [f"mark|{ACCEPT} # cali:i; Profile kns.shop ingress"],
        }
        for way, prefix in (("from", "fw"), ("to", "tw")):
            match = "iif" if way == "from" else "oif"
            made[f"filter-cali-{way}-wl-dispatch"] = [
                *(f"{match}=cali{pod} goto:filter-cali-{prefix}-cali{pod}" for pod in self.pods),
                "drop # cali:u; Unknown interface",
            ]
            for pod in self.pods:
                made |= endpoint(f"cali-{prefix}-cali{pod}", ())
        return {**made, **self.chains}


def node_address(number: int, family: int = 4) -> str:
    return f"172.30.0.{number}" if family == 4 else f"fd00:30::{number}"


def pod_address(node: int, number: int, family: int = 4) -> str:
    return f"10.244.{node}.{number}" if family == 4 else f"fd00:244:{node}::{number}"


def objects(nodes: Sequence[Node], **more: Sequence[Json]) -> dict[str, str]:
    """The cluster's lists: nodes and pods of ``nodes``, a pool; ``more`` are lists with "_" for "." in their names."""
    pools = [
        {"metadata": {"name": f"p{v}"}, "spec": {"cidr": cidr}}
        for v, cidr in ((4, "10.244.0.0/16"), (6, "fd00:244::/32"))
    ]
    lists: dict[str, Sequence[Any]] = {
        "nodes": [
            {"metadata": {"name": n.name}, "status": {"addresses": [{"type": "InternalIP", "address": n.address}]}}
            for n in nodes
        ],
        "pods": [
            {
                "metadata": {"namespace": "shop", "name": f"pod{n.number}{pod}"},
                "spec": {"nodeName": n.name, "containers": [{"ports": [{"containerPort": 80}]}]},
                "status": {"phase": "Running", "podIPs": [{"ip": pod_address(n.number, pod, n.family)}]},
            }
            for n in nodes
            for pod in n.pods
        ],
        "ippools.crd.projectcalico.org": pools,
        **{name.replace("_", "."): items for name, items in more.items()},
    }
    return {f"{name}.json": json.dumps({"kind": "List", "items": items}) for name, items in lists.items()}


def policy_object(name: str, tier: str = "default", namespace: str = "", **spec: Any) -> Json:
    """A NetworkPolicy or GlobalNetworkPolicy of Calico's."""
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"metadata": metadata, "spec": {"tier": tier, **spec}}


class World:
    """A cluster that questions can be put to."""

    def __init__(self, *nodes: Node, cluster: Mapping[str, str] | None = None, absent: Sequence[str] = ()) -> None:
        self.nodes = nodes
        made = objects(nodes) if cluster is None else cluster
        self.source = MemorySource(made, {n.name: n.evidence() for n in nodes if n.name not in absent})
        self.engine = Engine(self.source)
        self.resolver = Resolver(self.engine.cluster, self.engine.states)

    def ask(self, source: str, destination: str, protocol: str = "tcp", via: str | None = None) -> FlowExplanation:
        """The explanation of a flow; ends as on the command line, ``11`` for the first pod of n1."""
        return self.engine.explain(
            self.resolver.resolve(_end(source), _end(destination), protocol=protocol, namespace="shop", via=via)
        )


def _end(text: str) -> str:
    name, colon, port = text.partition(":")
    return f"pod/shop/pod{name}{colon}{port}" if name.isdigit() else text


def decided(answer: FlowExplanation) -> tuple[str, str, str]:
    """Verdict, reason and node: what most tests compare."""
    assert answer.decision is not None
    return answer.verdict, answer.decision.reason, answer.decision.node


def told(answer: FlowExplanation, *, hypothetical: bool | None = None) -> list[str]:
    """The steps, each as ``node stage action: detail``."""
    return [line(step) for step in answer.steps if hypothetical is None or step.hypothetical is hypothetical]


def line(step: Step) -> str:
    tier = f" {step.tier}" if step.tier else ""
    return f"{step.node} {step.stage}{tier} {step.action}: {step.detail}"
