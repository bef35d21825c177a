"""JSON of ``ip`` and of Kubernetes, with addresses and names replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from calico_debug.errors import EvidenceError
from calico_debug.redact.text import TextRedactor

MAPS_OF_NAMES = frozenset({"labels", "matchLabels", "annotations", "selector", "nodeSelector", "labelsToApply"})
"""Keys of Kubernetes objects whose members are called as users like."""

VERBATIM = frozenset({"apiVersion", "kind", "creationTimestamp", "deletionTimestamp"})

METADATA = "projectcalico.org/metadata"
"""An annotation that holds JSON of an object's metadata."""

ANNOTATIONS = frozenset(
    {
        METADATA,
        "cni.projectcalico.org/podIP",
        "cni.projectcalico.org/podIPs",
        "projectcalico.org/IPv4Address",
        "projectcalico.org/IPv6Address",
        "projectcalico.org/IPv4VXLANTunnelAddr",
        "projectcalico.org/IPv6VXLANTunnelAddr",
        "projectcalico.org/IPv4IPIPTunnelAddr",
        "projectcalico.org/IPv4WireguardInterfaceAddr",
        "projectcalico.org/IPv6WireguardInterfaceAddr",
    }
)
"""Annotations that explanations use; the others are left out (`calico_debug.decode.kubernetes`)."""

_FIELDS = """
    apiVersion kind items metadata name namespace labels annotations creationTimestamp deletionTimestamp
    generateName spec status nodeName hostNetwork serviceAccountName containers initContainers restartPolicy ports
    containerPort hostPort protocol phase podIP podIPs hostIP hostIPs ip conditions ready serving terminating type
    clusterIP clusterIPs externalIPs selector sessionAffinity internalTrafficPolicy externalTrafficPolicy
    ipFamilies ipFamilyPolicy loadBalancer loadBalancerIP loadBalancerSourceRanges ingress egress port targetPort
    nodePort publishNotReadyAddresses trafficDistribution externalName addressType addresses address endpoints
    targetRef subsets notReadyAddresses appProtocol podCIDR podCIDRs order defaultAction tier types action source
    destination nets notNets notPorts notProtocol notSelector icmp notICMP code namespaceSelector serviceAccounts
    names services applyOnForward preDNAT doNotTrack serviceAccountSelector stagedAction performanceHints
    ipVersion domains podSelector namespaces matchLabels matchExpressions key operator values from to ipBlock cidr
    except endPort policyTypes priority subject pods networks nodes portNumber portRange start end namedPort
    domainNames tcp udp sctp number range sameLabels notSameLabels node interfaceName expectedIPs profiles
    blockSize ipipMode vxlanMode natOutgoing disabled nodeSelector allowedUses assignmentMode disableBGPExport
    labelsToApply data KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT calicoNetwork linuxDataplane hostPorts
    kubeProxyManagement bpfNetworkBootstrap kubernetesProvider template desiredNumberScheduled calicoVersion
    clusterType nodeInfo architecture operatingSystem kernelVersion osImage bpfEnabled bpfExternalServiceMode
    bpfKubeProxyIptablesCleanupEnabled bpfDataIfacePattern bpfConnectTimeLoadBalancing nftablesMode floatingIPs
    wireguardEnabled wireguardEnabledV6 protocols destinationPort destinationNamedPort
    failsafeInboundHostPorts failsafeOutboundHostPorts net
    wireguardListeningPort vxlanPort defaultEndpointToHostAction
"""
FIELDS: frozenset[str] = frozenset(_FIELDS.split())
"""Fields of objects that explanations may use; the others are left out, since nobody knows what is in them."""


def redact_ip(document: Any, text: TextRedactor) -> Any:
    """What ``ip -j`` prints."""
    if isinstance(document, str):
        return text.text(document)
    if isinstance(document, list):
        return [redact_ip(entry, text) for entry in document]
    if isinstance(document, dict):
        return {key: redact_ip(value, text) for key, value in document.items()}
    return document


def redact_objects(document: Any, text: TextRedactor) -> Any:
    """A list of Kubernetes objects. Raises `EvidenceError` for an annotation that cannot be looked through."""
    return _object(document, "", text)


def redact_spec(spec: Mapping[str, Any], text: TextRedactor) -> dict[str, Any]:
    """The ``spec`` of an object. Raises `EvidenceError` as `redact_objects`."""
    return {name: _object(entry, name, text) for name, entry in spec.items() if name in FIELDS}


def _object(value: Any, key: str, text: TextRedactor) -> Any:
    if isinstance(value, str):
        return value if key in VERBATIM else text.text(value, is_name=True)
    if isinstance(value, list):
        return [_object(entry, key, text) for entry in value]
    if not isinstance(value, dict):
        return value
    if key == "annotations":
        return {name: _annotation(name, value[name], text) for name in value if name in ANNOTATIONS}
    if key in MAPS_OF_NAMES and all(isinstance(entry, str) for entry in value.values()):
        return {text.text(name, is_name=True): text.text(entry, is_name=True) for name, entry in value.items()}
    return {name: _object(entry, name, text) for name, entry in value.items() if name in FIELDS}


def _annotation(name: str, value: Any, text: TextRedactor) -> Any:
    if name != METADATA or not isinstance(value, str):
        return _object(value, name, text)
    try:
        return json.dumps(_object(json.loads(value), "metadata", text))
    except ValueError as error:
        raise EvidenceError(f"an annotation {METADATA} is not JSON: {error}") from None
