"""What a bundle holds: the file names of contract 1 and the command that writes each (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping

NODE_COMMANDS: Mapping[str, str] = {
    "nft-ruleset.json": "nft -j list ruleset",
    "iptables-save.txt": "iptables-save -c",
    "iptables-legacy-save.txt": "iptables-legacy-save -c",
    "ip6tables-save.txt": "ip6tables-save -c",
    "ip6tables-legacy-save.txt": "ip6tables-legacy-save -c",
    "ipset-save.txt": "ipset save",
    "ip-addr.json": "ip -j -d addr",
    "ip-link.json": "ip -j -d link",
    "ip-neigh.json": "ip -j neigh",
    "ip-route-all.json": "ip -j route show table all",
    "ip-rule.json": "ip -j rule",
    "ip6-route-all.json": "ip -6 -j route show table all",
    "ip6-rule.json": "ip -6 -j rule",
    "conntrack.txt": "conntrack -L",
    "conntrack6.txt": "conntrack -L -f ipv6",
    "sysctl.txt": "sysctl -a",
    "felix-env.txt": "env | grep ^FELIX_",
}
"""Files of ``nodes/<node>/`` and the command whose standard output they are, run in the node's network namespace
(Felix's environment: in its container).
"""

IPTABLES_FILES: Mapping[str, str] = {"iptables-save.txt": "ip", "ip6tables-save.txt": "ip6"}
"""Listings of iptables rules, of the backend that the node uses by default, and nft's name of the family."""

IPTABLES_LEGACY_FILES: Mapping[str, str] = {"iptables-legacy-save.txt": "ip", "ip6tables-legacy-save.txt": "ip6"}
"""Listings of the rules that the kernel's own ip_tables and ip6_tables hold."""

IPTABLES_TABLES = frozenset({"raw", "mangle", "nat", "filter", "security"})
"""The tables of iptables, by which iptables-nft calls its tables of nf_tables, too."""

CLUSTER_FILES: tuple[str, ...] = (
    "pods.json",
    "services.json",
    "endpointslices.discovery.k8s.io.json",
    "nodes.json",
    "namespaces.json",
)
"""The lists without which a trace cannot name pods, services and nodes; policies come in files of their own kinds."""


NAMED_FILES: Mapping[str, tuple[str, str]] = {
    "configmaps-kubernetes-services-endpoint.json": ("configmaps", "kubernetes-services-endpoint"),
    "daemonsets.apps-kube-proxy.json": ("daemonsets.apps", "kube-proxy"),
}
"""Lists that hold only objects of one name: (resource, name)."""


def remedy(file: str, node: str) -> str:
    """How to get a node's file, for a message."""
    command = NODE_COMMANDS.get(file)
    return f"write it with `{command}` on node {node}" if command else f"record it on node {node}"


def cluster_remedy(file: str) -> str:
    """How to get a list of cluster objects, for a message."""
    resource = file.removesuffix(".json")
    if file in NAMED_FILES:
        resource, name = NAMED_FILES[file]
        return f"write it with `kubectl get {resource} -A --field-selector metadata.name={name} -o json`"
    return f"write it with `kubectl get {resource} -A -o json`"
