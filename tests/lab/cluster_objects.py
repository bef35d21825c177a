"""The cluster's objects as ``kubectl get -A -o json`` lists them, made from a model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.lab.model import Node, Pod

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.lab.model import Entity, Model, Policy, PortSpec, Rule, Selector, Service, ServicePort
    from tests.lab.topology import Topology

Object = dict[str, Any]
_CALICO = "crd.projectcalico.org/v1"


def cluster_files(topology: Topology, model: Model) -> dict[str, Object]:
    """{file name: list object}; lists without items are left out, as a recorded bundle does.

    Raises ValueError for a policy of a kind that has no list here.
    """
    for policy in model.policies:
        if policy.kind == "KubernetesClusterNetworkPolicy" or (policy.staged and policy.kind.startswith("Kubernetes")):
            raise ValueError(f"no object form for policy {policy.name} of kind {_api_kind(policy)}")
    policies = [(policy, policy_object(policy)) for policy in model.policies]

    def of(kind: str) -> list[Object]:
        return [made for policy, made in policies if _api_kind(policy) == kind]

    found = {
        "nodes": [_node(node) for node in topology.nodes],
        "namespaces": _namespaces(topology, model),
        "pods": [_pod(topology, pod) for pod in topology.pods],
        "services": [_service(service) for service in model.services],
        "endpointslices.discovery.k8s.io": [s for service in model.services for s in _slices(topology, service)],
        "tiers.crd.projectcalico.org": [
            _calico("Tier", tier.name, "", _without_none(order=tier.order, defaultAction=tier.default_action))
            for tier in model.tiers
        ],
        "networkpolicies.crd.projectcalico.org": of("NetworkPolicy"),
        "globalnetworkpolicies.crd.projectcalico.org": of("GlobalNetworkPolicy"),
        "stagednetworkpolicies.crd.projectcalico.org": of("StagedNetworkPolicy"),
        "stagedglobalnetworkpolicies.crd.projectcalico.org": of("StagedGlobalNetworkPolicy"),
        "networkpolicies.networking.k8s.io": of("KubernetesNetworkPolicy"),
        "globalnetworksets.crd.projectcalico.org": [
            _calico("GlobalNetworkSet", one.name, "", {"nets": list(one.nets)}, labels=dict(one.labels))
            for one in model.network_sets
        ],
        "hostendpoints.crd.projectcalico.org": [
            _calico(
                "HostEndpoint",
                one.name,
                "",
                {"node": one.node, "interfaceName": one.interface, "profiles": list(one.profiles)},
                labels=dict(one.labels),
            )
            for one in model.host_endpoints
        ],
    }
    return {
        f"{name}.json": {"apiVersion": "v1", "kind": "List", "items": items} for name, items in found.items() if items
    }


# --------------------------------------------------------------------------------------------------------- policies


def policy_object(policy: Policy) -> Object:
    """A policy as the API has it. Kubernetes kinds are given in Calico's rule form only as far as it can be said."""
    if policy.kind == "KubernetesNetworkPolicy":
        return _kubernetes_policy(policy)
    spec: Object = _without_none(tier=policy.tier, order=policy.order, selector=str(policy.selector))
    types = [name for name, rules in (("Ingress", policy.ingress), ("Egress", policy.egress)) if rules is not None]
    spec["types"] = types
    for direction, rules in (("ingress", policy.ingress), ("egress", policy.egress)):
        if rules:
            spec[direction] = [_rule(rule, policy.namespace) for rule in rules]
    for key, value in (
        ("preDNAT", policy.pre_dnat),
        ("applyOnForward", policy.apply_on_forward),
        ("doNotTrack", policy.do_not_track),
    ):
        if value:
            spec[key] = True
    return _calico(
        _api_kind(policy), policy.name, policy.namespace, spec, labels={"projectcalico.org/tier": policy.tier}
    )


def _api_kind(policy: Policy) -> str:
    return f"Staged{policy.kind}" if policy.staged else policy.kind


def _rule(rule: Rule, namespace: str) -> Object:
    made: Object = {"action": rule.action}
    for key, protocol in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
        if protocol is not None:
            made[key] = _protocol(protocol)
    for key, side in (("source", rule.source), ("destination", rule.destination)):
        if entity := _entity(side, namespace):
            made[key] = entity
    if rule.icmp_type is not None:
        made["icmp"] = _without_none(type=rule.icmp_type, code=rule.icmp_code)
    if rule.not_icmp_type is not None:
        made["notICMP"] = {"type": rule.not_icmp_type}
    if rule.ip_version is not None:
        made["ipVersion"] = rule.ip_version
    if rule.annotations:
        made["metadata"] = {"annotations": dict(rule.annotations)}
    return made


def _protocol(protocol: str | int) -> str | int:
    names = {"icmp": "ICMP", "icmpv6": "ICMPv6", "udplite": "UDPLite"}
    return protocol if isinstance(protocol, int) else names.get(protocol, protocol.upper())


def _entity(side: Entity, namespace: str) -> Object:
    made: Object = {}
    for key, nets in (("nets", side.nets), ("notNets", side.not_nets)):
        if nets:
            made[key] = list(nets)
    if side.selector is not None:
        made |= _selector(side.selector, namespace)
    if side.not_selector is not None:
        made["notSelector"] = str(side.not_selector)
    for key, ports in (("ports", side.ports), ("notPorts", side.not_ports)):
        if ports:
            made[key] = [_port(port) for port in ports]
    if side.service is not None:
        made["services"] = {"namespace": side.service[0], "name": side.service[1]}
    return made


def _selector(selector: Selector, namespace: str) -> Object:
    """In a namespaced policy a bare selector means the policy's own namespace, in a global one everything."""
    made = {"selector": str(replace(selector, namespace=""))}
    if selector.namespace and selector.namespace != namespace:
        made["namespaceSelector"] = f"projectcalico.org/name == '{selector.namespace}'"
    elif namespace and not selector.namespace:
        made["namespaceSelector"] = "all()"
    return made


def _port(port: PortSpec) -> int | str:
    return f"{port[0]}:{port[1]}" if isinstance(port, tuple) else port


def _kubernetes_policy(policy: Policy) -> Object:
    """Only allow rules of the forms that networking.k8s.io/v1 has."""
    types = [name for name, rules in (("Ingress", policy.ingress), ("Egress", policy.egress)) if rules is not None]
    labels = {policy.selector.key: policy.selector.values[0]} if policy.selector.key else {}
    spec: Object = {"podSelector": {"matchLabels": labels}, "policyTypes": types}
    for direction, rules, peers in (("ingress", policy.ingress, "from"), ("egress", policy.egress, "to")):
        entries = []
        for rule in rules or ():
            peer = rule.source if direction == "ingress" else rule.destination
            entry: Object = {}
            if rule.protocol is not None:
                ports: list[PortSpec | None] = [*rule.destination.ports] or [None]
                entry["ports"] = [_kubernetes_port(str(rule.protocol).upper(), port) for port in ports]
            blocks: list[Object] = [
                {"ipBlock": _without_none(cidr=net, **{"except": list(peer.not_nets) or None})} for net in peer.nets
            ]
            if peer.selector is not None:
                blocks.append({"podSelector": {"matchLabels": {peer.selector.key: peer.selector.values[0]}}})
            if blocks:
                entry[peers] = blocks
            entries.append(entry)
        if rules is not None:
            spec[direction] = entries
    meta = {"name": policy.name, "namespace": policy.namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}


def _kubernetes_port(protocol: str, port: PortSpec | None) -> Object:
    if isinstance(port, tuple):
        return {"protocol": protocol, "port": port[0], "endPort": port[1]}
    return _without_none(protocol=protocol, port=port)


# ---------------------------------------------------------------------------------------------------------- the rest


def _calico(kind: str, name: str, namespace: str, spec: Object, labels: dict[str, str] | None = None) -> Object:
    meta = _without_none(name=name, namespace=namespace or None, labels=labels or None)
    return {"apiVersion": _CALICO, "kind": kind, "metadata": meta, "spec": spec}


def _node(node: Node) -> Object:
    annotations = {"projectcalico.org/IPv4Address": f"{node.v4}/24"}
    addresses = [{"type": "InternalIP", "address": node.v4}]
    if node.v6:
        annotations["projectcalico.org/IPv6Address"] = f"{node.v6}/64"
        addresses.append({"type": "InternalIP", "address": node.v6})
    if node.tunnel:
        annotations["projectcalico.org/IPv4VXLANTunnelAddr"] = node.tunnel
    cidrs = [cidr for cidr in (node.pods_v4, node.pods_v6) if cidr]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "annotations": annotations},
        "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        "status": {"addresses": [*addresses, {"type": "Hostname", "address": node.name}]},
    }


def _namespaces(topology: Topology, model: Model) -> list[Object]:
    names = {pod.namespace for pod in topology.pods}
    names |= {service.namespace for service in model.services}
    names |= {policy.namespace for policy in model.policies if policy.namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
        }
        for name in sorted(names)
    ]


def _pod(topology: Topology, pod: Pod) -> Object:
    ports = [
        {"name": named.name, "containerPort": named.number, "protocol": named.protocol.upper()} for named in pod.ports
    ]
    spec = {
        "nodeName": pod.node,
        "serviceAccountName": pod.service_account,
        "containers": [{"name": "c", "image": "lab", "ports": ports}],
    }
    addresses = [address for address in (pod.v4, pod.v6) if address]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)},
        "spec": spec,
        "status": {
            "phase": "Running",
            "hostIP": topology.node(pod.node).v4,
            "podIP": addresses[0],
            "podIPs": [{"ip": address} for address in addresses],
        },
    }


def _service(service: Service) -> Object:
    addresses = [address for address in (service.cluster_v4, service.cluster_v6) if address]
    spec = _without_none(
        type=service.kind,
        clusterIP=addresses[0],
        clusterIPs=addresses,
        ports=[_service_port(port) for port in service.ports],
        externalIPs=list(service.external_addresses) or None,
        loadBalancerSourceRanges=list(service.source_ranges) or None,
        internalTrafficPolicy=service.internal_policy,
        externalTrafficPolicy=service.external_policy if service.kind != "ClusterIP" else None,
        sessionAffinity="ClientIP" if service.affinity_seconds else "None",
    )
    balanced = {"ingress": [{"ip": address} for address in service.load_balancer]} if service.load_balancer else {}
    meta = {"name": service.name, "namespace": service.namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec, "status": {"loadBalancer": balanced}}


def _service_port(port: ServicePort) -> Object:
    return _without_none(
        name=port.name or None,
        port=port.port,
        targetPort=port.target_port,
        protocol=port.protocol.upper(),
        nodePort=port.node_port or None,
    )


def _slices(topology: Topology, service: Service) -> Iterable[Object]:
    for version in topology.versions:
        endpoints = []
        for place in service.backends:
            thing = topology.places[place]
            endpoint: Object = {"addresses": [topology.address(place, version)], "conditions": {"ready": True}}
            if isinstance(thing, Pod):
                endpoint["nodeName"] = thing.node
                endpoint["targetRef"] = {"kind": "Pod", "name": thing.name, "namespace": thing.namespace}
            elif isinstance(thing, Node):
                endpoint["nodeName"] = thing.name
            endpoints.append(endpoint)
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": f"IPv{version}",
            "metadata": {
                "name": f"{service.name}-v{version}",
                "namespace": service.namespace,
                "labels": {"kubernetes.io/service-name": service.name},
            },
            "endpoints": endpoints,
            "ports": [
                {"name": port.name, "port": port.target_port, "protocol": port.protocol.upper()}
                for port in service.ports
            ],
        }


def _without_none(**values: Any) -> Object:
    return {key: value for key, value in values.items() if value is not None}
