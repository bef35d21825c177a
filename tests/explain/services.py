"""Services as kube-proxy programs them in nftables mode, in miniature (Kubernetes pkg/proxy/nftables)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.explain.world import (
    Node,
    World,
    objects,
)

if TYPE_CHECKING:
    from tests.explain.rules import Json


PODS = "10.244.1.1", "10.244.1.2", "10.244.2.1"
SERVICE, GHOST, BALANCED = "10.96.0.1", "10.96.0.2", "203.0.113.9"


def kube_proxy(*backends: str, port: int = 80) -> dict[str, dict[str, list[str]]]:
    """A service with those backends, one without any, a node port 30080 and a load-balancer address."""
    spread = ["spread=" + ",".join(f"endpoint-{number}" for number in range(len(backends)))]
    services = [
        f"daddr={SERVICE} protocol=tcp dport={port} jump:service-shop",
        f"daddr={BALANCED} protocol=tcp dport={port} goto:external-shop",
        "local protocol=tcp dport=30080 goto:external-shop",
    ]
    endpoints = {
        f"endpoint-{number}": [f"saddr={backend} jump:mark-for-masquerade", f"protocol=tcp dnat:{backend}|{port}"]
        for number, backend in enumerate(backends)
    }
    check = [f"daddr={GHOST} protocol=tcp dport={port} goto:reject-chain"]
    return {
        "ip kube-proxy": {
            "filter-forward@forward:0": ["ct=new jump:service-endpoints-check", "ct=new jump:cluster-ips-check"],
            "filter-output@output:0": ["ct=new jump:service-endpoints-check", "ct=new jump:cluster-ips-check"],
            "nat-prerouting@prerouting:-100:accept:nat": ["jump:services"],
            "nat-output@output:-100:accept:nat": ["jump:services"],
            "nat-postrouting@postrouting:100:accept:nat": ["mark&4000=0 return", "mark-4000", "masquerade"],
            "filter-prerouting-pre-dnat@prerouting:-110": ["ct=new jump:firewall-check"],
            "firewall-check": [f"daddr={BALANCED} protocol=tcp dport={port} jump:firewall-shop"],
            "firewall-shop": ["saddr=198.51.100.0/24 return", "drop"],
            "service-endpoints-check": check,
            "cluster-ips-check": ["daddr=10.96.0.0/24 reject"],
            "reject-chain": ["reject"],
            "services": services,
            "service-shop": spread,
            "external-shop": ["jump:mark-for-masquerade", "goto:service-shop"],
            "mark-for-masquerade": ["mark|4000"],
            **endpoints,
        }
    }


def service_objects(*backends: str) -> dict[str, list[Json]]:
    services = [
        {
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"type": kind, "clusterIPs": [address], "ports": [{"port": 80, "targetPort": 80, **ports}]},
            "status": {"loadBalancer": {"ingress": [{"ip": BALANCED}] if kind == "LoadBalancer" else []}},
        }
        for name, address, kind, ports in (
            ("web", SERVICE, "LoadBalancer", {"nodePort": 30080}),
            ("ghost", GHOST, "ClusterIP", {}),
        )
    ]
    slices = [
        {
            "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
            "ports": [{"port": 80, "protocol": "TCP"}],
            "endpoints": [{"addresses": [backend], "conditions": {"ready": True}} for backend in backends],
        }
    ]
    return {"services": services, "endpointslices_discovery_k8s_io": slices}


def served(*backends: str, nodes: tuple[Node, ...] = ()) -> World:
    """Two nodes with kube-proxy's tables on both."""
    made = nodes or (Node(1, tables=kube_proxy(*backends)), Node(2, tables=kube_proxy(*backends)))
    return World(*made, cluster=objects(made, **service_objects(*backends)))


def sticky(*backends: str) -> str:
    """The same service in iptables mode with ClientIP affinity, as iptables-save prints it (kube-proxy v1.35)."""
    lists = [f"KUBE-SEP-{number}" for number in range(len(backends))]
    match = "-m recent --rcheck --seconds 10800 --reap --name {0} --mask 255.255.255.255 --rsource -j {0}"
    shares = [f"-m statistic --mode random --probability {1 / (len(backends) - n):.11f}" for n in range(len(backends))]
    rules = [
        f"-A PREROUTING -d {SERVICE}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-1",
        *(f"-A KUBE-SVC-1 {match.format(name)}" for name in lists),
        *(f"-A KUBE-SVC-1 {share} -j {name}" for share, name in zip(shares[:-1], lists[:-1], strict=True)),
        f"-A KUBE-SVC-1 -j {lists[-1]}",
        *(
            f"-A {name} -p tcp -m recent --set --name {name} --mask 255.255.255.255 --rsource -m tcp -j DNAT "
            f"--to-destination {backend}:80"
            for name, backend in zip(lists, backends, strict=True)
        ),
    ]
    chains = [":PREROUTING ACCEPT [0:0]", *(f":{name} - [0:0]" for name in ("KUBE-SVC-1", *lists))]
    return "\n".join(["*nat", *chains, *rules, "COMMIT", ""])
