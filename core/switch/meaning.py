"""Before a switch: policies and services that mean something else, or nothing, in the other dataplane."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from calico_debug.doctor.model import Symptom, part
from calico_debug.doctor.objects import ORDERED_KINDS, rules_of, shown
from calico_debug.state.dataplane import EBPF
from calico_debug.switch.installation import listed
from calico_debug.switch.platform import NOT_SUPPORTED

if TYPE_CHECKING:
    from calico_debug.doctor.model import ClusterView, Observation
    from calico_debug.model.cluster import Service

UNKNOWN_BY_NAME = frozenset({"ICMPV6", "UDPLITE"})
"""Names of protocols that eBPF's compiler of policies does not know (felix/bpf/polprog, v3.32.1)."""

TWINS = (
    "iptablesFilterAllowAction",
    "iptablesFilterDenyAction",
    "iptablesMangleAllowAction",
    "iptablesMarkMask",
    "iptablesRefreshInterval",
)
"""Settings that have a twin for nftables (felix/config/config_params.go, v3.29 to v3.32)."""


def _rules(cluster: ClusterView, wanted: Callable[[Mapping[str, Any]], bool]) -> list[str]:
    return [
        f"{shown(policy)}, {direction} rule {index}"
        for policy in cluster.state.policies()
        if policy.kind in ORDERED_KINDS
        for direction in ("ingress", "egress")
        for index, rule in enumerate(rules_of(policy, direction))
        if wanted(rule)
    ]


def check_log(cluster: ClusterView) -> Iterator[Observation]:
    """Rules with action Log."""
    if found := _rules(cluster, lambda rule: rule.get("action") == "Log"):
        yield Symptom("log-rules", "info", listed(found))


def check_protocol_names(cluster: ClusterView) -> Iterator[Observation]:
    """Rules that never match with eBPF."""

    def unknown(rule: Mapping[str, Any]) -> bool:
        return any(str(rule.get(key)).upper() in UNKNOWN_BY_NAME for key in ("protocol", "notProtocol"))

    if found := _rules(cluster, unknown):
        yield Symptom("protocol-name", "warning", listed(found))


def check_sctp(cluster: ClusterView) -> Iterator[Observation]:
    """SCTP, of policies and services."""
    found = _rules(cluster, lambda rule: str(rule.get("protocol")).upper() == "SCTP")
    found += [
        f"service {one.namespace}/{one.name}"
        for one in cluster.state.services
        if any(port.protocol == "SCTP" for port in one.ports)
    ]
    if found:
        yield Symptom("unsupported", "warning", f"SCTP ({listed(found)}): {NOT_SUPPORTED}")


def check_icmp_codes(cluster: ClusterView) -> Iterator[Observation]:
    """Rules that keep nft from programming a node."""

    def both(rule: Mapping[str, Any]) -> bool:
        matches = (part(rule, key) for key in ("icmp", "notICMP"))
        return any(one.get("type") is not None and one.get("code") is not None for one in matches)

    if found := _rules(cluster, both):
        yield Symptom("icmp-type-and-code", "error", listed(found))


def check_settings(cluster: ClusterView) -> Iterator[Observation]:
    """Settings that nftables mode has under another name."""
    found = [name for name in TWINS if cluster.felix_setting(name) is not None]
    if found:
        yield Symptom("settings-of-iptables", "info", f"FelixConfiguration has {', '.join(found)}")


def check_services(cluster: ClusterView, target: str) -> Iterator[Observation]:
    """Services that are reached otherwise."""
    services = [one for one in cluster.state.services if one.type != "ExternalName"]
    outside = [_name(one) for one in services if _is_outside(one) and one.external_policy != "Local"]
    if outside:
        yield Symptom("source-address", "info", f"{len(outside)} services: {listed(outside)}")
    if target == EBPF and any(_is_outside(one) for one in services):
        number = sum(map(_is_outside, services))
        yield Symptom("vxlan-between-nodes", "info", f"{number} services with node ports or addresses outside")
    empty = [_name(one) for one in services if one.cluster_addresses and not any(b.ready for b in one.backends)]
    if empty and any(one.backends for one in services):
        yield Symptom("services-refuse", "info", listed(empty))
    sticky = [
        f"{part(one, 'metadata').get('namespace')}/{part(one, 'metadata').get('name')}"
        for one in (cluster.raw("services") if cluster.has("services") else ())
        if part(one, "spec").get("sessionAffinity") == "ClientIP"
    ]
    if sticky:
        yield Symptom("session-affinity", "info", listed(sticky))


def _is_outside(service: Service) -> bool:
    addresses = (*service.load_balancer_addresses, *service.external_addresses)
    return bool(addresses) or any(port.node_port for port in service.ports)


def _name(service: Service) -> str:
    return f"{service.namespace}/{service.name}"
