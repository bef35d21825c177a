"""Lists of Kubernetes objects, as ``kubectl get <resource> -A -o json`` prints them, to `calico_debug.model.cluster`.

Field names: kubernetes/api core/v1 and discovery/v1; annotations: Calico libcalico-go/lib/backend/k8s/resources/node.go
and libcalico-go/lib/backend/k8s/conversion/constants.go (v3.32.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Generic, TypeVar

from calico_debug.decode.json_text import parse_json
from calico_debug.errors import EvidenceError
from calico_debug.model.cluster import (
    Address,
    Backend,
    FelixConfiguration,
    HostEndpoint,
    NetworkSet,
    Node,
    Pod,
    Service,
    ServicePort,
    Tier,
)
from calico_debug.model.routing import Network

Item = TypeVar("Item")
Object = Mapping[str, Any]

POD_ADDRESS_ANNOTATIONS = ("cni.projectcalico.org/podIPs", "cni.projectcalico.org/podIP")
"""Written by Calico's CNI plugin before the kubelet reports the pod's status; "" once the addresses are taken back."""

NODE_ADDRESS_ANNOTATIONS = ("projectcalico.org/IPv4Address", "projectcalico.org/IPv6Address")
"""The node's own addresses as calico-node found them, with a prefix length."""

TUNNEL_ANNOTATIONS = (
    "projectcalico.org/IPv4VXLANTunnelAddr",
    "projectcalico.org/IPv6VXLANTunnelAddr",
    "projectcalico.org/IPv4IPIPTunnelAddr",
    "projectcalico.org/IPv4WireguardInterfaceAddr",
    "projectcalico.org/IPv6WireguardInterfaceAddr",
)

NODE_ADDRESS_TYPES = ("InternalIP", "ExternalIP")
"""Types of ``status.addresses`` that are addresses, the preferred first."""

METADATA_ANNOTATION = "projectcalico.org/metadata"
"""On objects of crd.projectcalico.org/v1: JSON of the metadata that the projectcalico.org/v3 API shows for them."""

TEMPLATE_HASH = "pod-template-hash"
"""The label that tells ReplicaSets of one Deployment apart; their names end with it (Kubernetes, well-known labels)."""

SERVICE_LABEL = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class DecodedObjects(Generic[Item]):
    """What a list held. ``notes`` names every object that could not be decoded, and why."""

    items: tuple[Item, ...]
    notes: tuple[str, ...] = ()


def decode_objects(data: bytes, what: str, decode: Callable[[Object], Item]) -> DecodedObjects[Item]:
    """Every object of a list that ``decode`` understands. ``what`` names the file and its origin.

    ``decode`` raises `KeyError`, `TypeError`, `ValueError` or `AttributeError` for an object that it cannot use; that
    becomes a note. Raises `EvidenceError` when the file is no list of objects at all.
    """
    found: list[Item] = []
    notes: list[str] = []
    for index, entry in enumerate(_entries(parse_json(data, what), what)):
        try:
            found.append(decode(entry))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, EvidenceError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            notes.append(f"{what}: object {index} ({_shown_name(entry)}) is left out: {reason}")
    return DecodedObjects(tuple(found), tuple(notes))


def metadata(entry: Object) -> Object:
    """An object's metadata as the API of projectcalico.org/v3 shows it: what the annotation has goes first."""
    own: Object = entry["metadata"]
    text = (own.get("annotations") or {}).get(METADATA_ANNOTATION)
    if not isinstance(text, str):
        return own
    shown = parse_json(text.encode(), f"the annotation {METADATA_ANNOTATION}")
    if not isinstance(shown, dict):
        return own
    labels = {**(own.get("labels") or {}), **(shown.get("labels") or {})}
    return {**own, **{key: shown[key] for key in ("name",) if shown.get(key)}, "labels": labels}


def decode_pod(entry: Object) -> Pod:
    """A v1 Pod."""
    meta, spec, status = entry["metadata"], entry.get("spec") or {}, entry.get("status") or {}
    ports: dict[tuple[str, str], int] = {}
    declared: list[tuple[str, int]] = []
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            protocol, number = str(port.get("protocol") or "TCP").upper(), int(port["containerPort"])
            declared.append((protocol, number))
            if port.get("name"):
                ports.setdefault((protocol, str(port["name"])), number)
    return Pod(
        namespace=_name(meta["namespace"]),
        name=_name(meta["name"]),
        node=str(spec.get("nodeName") or ""),
        addresses=_pod_addresses(meta, status),
        host_network=bool(spec.get("hostNetwork")),
        phase=str(status.get("phase") or ""),
        labels=_labels(meta),
        service_account=str(spec.get("serviceAccountName") or ""),
        ports=ports,
        container_ports=tuple(dict.fromkeys(declared)),
        named_ports=_named_ports(spec),
        workload=_workload(meta),
    )


def _workload(meta: Object) -> str:
    """What controls the pod; for a ReplicaSet of a Deployment, whose name ends with the hash, the Deployment
    (Kubernetes pkg/controller/deployment/sync.go, getNewReplicaSet).
    """
    owner = next((one for one in meta.get("ownerReferences") or () if one.get("controller")), None)
    if owner is None:
        return ""
    kind, name = str(owner.get("kind") or ""), str(owner.get("name") or "")
    ending = f"-{_labels(meta).get(TEMPLATE_HASH, '')}"
    if kind == "ReplicaSet" and len(ending) > 1 and name.endswith(ending):
        return f"Deployment {name.removesuffix(ending)}"
    return f"{kind} {name}"


def _named_ports(spec: Object) -> tuple[tuple[str, str, int], ...]:
    ports = [
        (str(port.get("protocol") or "TCP").upper(), str(port["name"]), int(port["containerPort"]))
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
        for port in container.get("ports") or ()
        if port.get("name")
    ]
    return tuple(dict.fromkeys(ports))


def _pod_addresses(meta: Object, status: Object) -> tuple[Address, ...]:
    annotations = meta.get("annotations") or {}
    if meta.get("deletionTimestamp") and any(annotations.get(key) == "" for key in POD_ADDRESS_ANNOTATIONS):
        return ()
    reported = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    if not reported and status.get("podIP"):
        reported = [status["podIP"]]
    if reported:
        return tuple(ip_address(_name(text)) for text in reported)
    for key in POD_ADDRESS_ANNOTATIONS:
        if annotations.get(key):
            return tuple(ip_interface(text.strip()).ip for text in annotations[key].split(","))
    return ()


def decode_service(entry: Object) -> Service:
    """A v1 Service, its backends left empty: they are in the EndpointSlices."""
    meta, spec = entry["metadata"], entry.get("spec") or {}
    cluster = spec.get("clusterIPs") or [spec.get("clusterIP")]
    ingress = ((entry.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return Service(
        namespace=_name(meta["namespace"]),
        name=_name(meta["name"]),
        type=str(spec.get("type") or "ClusterIP"),
        cluster_addresses=_address_list(text for text in cluster if text not in (None, "", "None")),
        ports=tuple(_service_port(port) for port in spec.get("ports") or ()),
        external_addresses=_address_list(spec.get("externalIPs") or ()),
        load_balancer_addresses=_address_list(point["ip"] for point in ingress if point.get("ip")),
        internal_policy=str(spec.get("internalTrafficPolicy") or "Cluster"),
        external_policy=str(spec.get("externalTrafficPolicy") or "Cluster"),
    )


def _service_port(port: Object) -> ServicePort:
    number = int(port["port"])
    target = port.get("targetPort") or number
    return ServicePort(
        name=str(port.get("name") or ""),
        protocol=str(port.get("protocol") or "TCP").upper(),
        port=number,
        target_port=target if isinstance(target, int) else str(target),
        node_port=int(port.get("nodePort") or 0),
    )


def decode_endpoint_slice(entry: Object) -> tuple[tuple[str, str], tuple[Backend, ...]]:
    """A discovery.k8s.io/v1 EndpointSlice: its service's (namespace, name), and a backend for each address and port.

    A slice of no service, or of names instead of addresses, gives ("", "") or no backends.
    """
    meta = entry["metadata"]
    service = (_name(meta["namespace"]), str((meta.get("labels") or {}).get(SERVICE_LABEL) or ""))
    if entry.get("addressType") == "FQDN":
        return service, ()
    ports = [port for port in entry.get("ports") or () if port.get("port")]
    return service, tuple(
        # An absent "ready" is to be read as true (discovery/v1, EndpointConditions).
        _backend(text, port, endpoint, (endpoint.get("conditions") or {}).get("ready") is not False)
        for endpoint in entry.get("endpoints") or ()
        for text in endpoint.get("addresses") or ()
        for port in ports
    )


def decode_endpoints(entry: Object) -> tuple[tuple[str, str], tuple[Backend, ...]]:
    """A v1 Endpoints, which older clusters and hand-made bundles have instead of EndpointSlices."""
    meta = entry["metadata"]
    return (_name(meta["namespace"]), _name(meta["name"])), tuple(
        _backend(endpoint["ip"], port, endpoint, ready)
        for subset in entry.get("subsets") or ()
        for key, ready in (("addresses", True), ("notReadyAddresses", False))
        for endpoint in subset.get(key) or ()
        for port in subset.get("ports") or ()
    )


def _backend(text: Any, port: Object, endpoint: Object, ready: bool) -> Backend:
    target = endpoint.get("targetRef") or {}
    return Backend(
        address=ip_address(_name(text)),
        port=int(port["port"]),
        protocol=str(port.get("protocol") or "TCP").upper(),
        port_name=str(port.get("name") or ""),
        ready=ready,
        node=str(endpoint.get("nodeName") or ""),
        pod=(str(target["namespace"]), str(target["name"])) if target.get("kind") == "Pod" else None,
    )


def decode_node(entry: Object) -> Node:
    """A v1 Node with what calico-node wrote into its annotations."""
    meta, spec, status = entry["metadata"], entry.get("spec") or {}, entry.get("status") or {}
    annotations = meta.get("annotations") or {}
    reported = [
        _name(address["address"])
        for wanted in NODE_ADDRESS_TYPES
        for address in status.get("addresses") or ()
        if address.get("type") == wanted
    ]
    addresses = [ip_address(text) for text in reported] + _annotated(annotations, NODE_ADDRESS_ANNOTATIONS)
    single = [spec["podCIDR"]] if spec.get("podCIDR") else []
    return Node(
        name=_name(meta["name"]),
        addresses=tuple(dict.fromkeys(addresses)),
        tunnel_addresses=tuple(dict.fromkeys(_annotated(annotations, TUNNEL_ANNOTATIONS))),
        pod_cidrs=tuple(spec.get("podCIDRs") or single),
    )


def decode_namespace(entry: Object) -> tuple[str, Mapping[str, str]]:
    """A v1 Namespace: its name and labels."""
    return _name(entry["metadata"]["name"]), _labels(entry["metadata"])


def decode_service_account(entry: Object) -> tuple[tuple[str, str], Mapping[str, str]]:
    """A v1 ServiceAccount: its (namespace, name), and labels."""
    meta = entry["metadata"]
    return (_name(meta["namespace"]), _name(meta["name"])), _labels(meta)


def decode_tier(entry: Object) -> Tier:
    """A Tier of either of Calico's API groups."""
    meta, spec = metadata(entry), entry.get("spec") or {}
    return Tier(_name(meta["name"]), decode_order(spec.get("order")), str(spec.get("defaultAction") or "Deny"))


def decode_host_endpoint(entry: Object) -> HostEndpoint:
    """A HostEndpoint of either of Calico's API groups."""
    meta, spec = metadata(entry), entry.get("spec") or {}
    return HostEndpoint(
        name=_name(meta["name"]),
        node=str(spec.get("node") or ""),
        interface=str(spec.get("interfaceName") or ""),
        expected_addresses=tuple(str(text) for text in spec.get("expectedIPs") or ()),
        labels=_labels(meta),
        profiles=tuple(_name(text) for text in spec.get("profiles") or ()),
        ports=tuple((port["protocol"], _name(port["name"]), int(port["port"])) for port in spec.get("ports") or ()),
    )


def decode_pool(entry: Object) -> Network:
    """The range of an IPPool."""
    return ip_network(_name((entry.get("spec") or {})["cidr"]), strict=False)


def decode_felix_configuration(entry: Object) -> FelixConfiguration:
    """A FelixConfiguration of either of Calico's API groups."""
    spec = entry.get("spec") or {}
    if not isinstance(spec, dict):
        raise ValueError("its spec is not an object")
    return FelixConfiguration(_name(metadata(entry)["name"]), spec)


def decode_network_set(entry: Object) -> NetworkSet:
    """A NetworkSet or GlobalNetworkSet of either of Calico's API groups."""
    meta, spec = metadata(entry), entry.get("spec") or {}
    return NetworkSet(
        namespace=str(meta.get("namespace") or ""),
        name=_name(meta["name"]),
        nets=tuple(ip_network(_name(text), strict=False) for text in spec.get("nets") or ()),
        labels=_labels(meta),
    )


def decode_order(value: object) -> float | None:
    """An ``order``: None, which sorts last, when the object has none."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"its order {value!r} is not a number")
    return float(value)


def _entries(document: Any, what: str) -> Sequence[Object]:
    entries = document
    if isinstance(document, dict):
        if document.get("items") is None and str(document.get("kind", "")).endswith("List"):
            return ()  # how Go prints a list without items
        entries = document.get("items", [document])
    if not isinstance(entries, list):
        raise EvidenceError(f"{what} is not a list of Kubernetes objects: write it with kubectl get -A -o json")
    return entries


def _shown_name(entry: object) -> str:
    meta = entry.get("metadata") if isinstance(entry, dict) else None
    if not isinstance(meta, dict) or not meta.get("name"):
        return "without a name"
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])


def _name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} where a text is expected")
    return value


def _labels(meta: Object) -> Mapping[str, str]:
    return {str(key): str(value) for key, value in (meta.get("labels") or {}).items()}


def _address_list(texts: Any) -> tuple[Address, ...]:
    return tuple(dict.fromkeys(ip_address(_name(text)) for text in texts))


def _annotated(annotations: Object, keys: Sequence[str]) -> list[Address]:
    return [ip_interface(_name(annotations[key])).ip for key in keys if annotations.get(key)]
