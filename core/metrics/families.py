"""Every metric there is: name, type, unit and labels. docs/metrics.md has the same tables; a test compares them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

COUNTER, GAUGE = "counter", "gauge"

LABELS: Mapping[str, str] = {
    "action": "what the rule does: Allow, Deny, Pass or Log",
    "category": "how calico-bpf groups the counter: Total, Accepted, Dropped, Other, Redirect, Unknown",
    "counter": "the counter as calico-bpf prints it",
    "dataplane": "nftables, iptables or ebpf",
    "direction": "egress leaves the pod or host endpoint, ingress enters it; empty where it is neither",
    "family": "the metric whose series were dropped",
    "interface": "the host's side of the pod's link",
    "interface_kind": "workload, host, tunnel; any where rules are shared, unknown where the interface is not known",
    "kind": "kind of the policy: NetworkPolicy, KubernetesNetworkPolicy, Profile …; empty at the end of a tier",
    "namespace": "namespace of the policy or pod; empty for global ones and where it is not known",
    "observer": "who watched packets: capture, drops (streams of them), observation (of a flow)",
    "pod": "the pod behind the interface; empty where it is not known",
    "policy": "name of the policy or profile as kubectl shows it; empty at the end of a tier",
    "reason": (
        "why: the reasons of json.md, policy for Calico's eBPF counter of that name, other; of observers no-room, "
        "rate-limit, passed-over"
    ),
    "rule": (
        "index of the API's rule from 0; #N the rule's place among those of the chain where no object tells the index, "
        "with /ip6 for IPv6; id:HEX an eBPF rule without a name; end-of-tier; no-profile"
    ),
    "source": "what was read: rules, ebpf, conntrack; names, the cluster's policies and pods",
    "table": "netfilter, or ebpf-v4 and ebpf-v6 for the maps of the eBPF dataplane",
    "tier": "tier of the policy; empty for profiles and where it is not known",
    "version": "version of calico-debug",
}
"""Every label with its meaning."""


class Family(NamedTuple):
    """One metric. ``name`` has the unit, and ``_total`` for counters; ``labels`` in the order of a sample's values."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


class Sample(NamedTuple):
    """One value of a metric, with the values of its labels."""

    family: Family
    labels: tuple[str, ...]
    value: float


_RULE = ("dataplane", "direction", "tier", "kind", "namespace", "policy", "rule", "action")
_DROP = ("dataplane", "direction", "reason", "interface_kind")

RULE_PACKETS = Family(
    "calico_debug_policy_rule_packets_total",
    COUNTER,
    "Packets that matched a rule of a policy (nftables, iptables). Packets of known connections are not asked again.",
    _RULE,
)
RULE_BYTES = Family(
    "calico_debug_policy_rule_bytes_total",
    COUNTER,
    "Bytes of the packets that matched a rule of a policy (nftables, iptables).",
    _RULE,
)
RULE_EVALUATIONS = Family(
    "calico_debug_policy_rule_evaluations_total",
    COUNTER,
    "Evaluations of policy in which a rule matched (ebpf), one for a packet that starts a connection.",
    _RULE,
)
DROPS = Family(
    "calico_debug_dropped_packets_total",
    COUNTER,
    "Packets that Calico's rules or programs dropped or rejected.",
    _DROP,
)
POD_DROPS = Family(
    "calico_debug_pod_dropped_packets_total",
    COUNTER,
    "Packets dropped at a pod's interface, where that is told apart. Only with --metrics-pods.",
    ("dataplane", "direction", "reason", "interface", "namespace", "pod"),
)
BPF_PACKETS = Family(
    "calico_debug_bpf_packets_total",
    COUNTER,
    "Packets by Calico's own eBPF counters, over all interfaces of a kind.",
    ("direction", "interface_kind", "category", "counter"),
)
CONNTRACK_ENTRIES = Family("calico_debug_conntrack_entries", GAUGE, "Entries of a table of connections.", ("table",))
CONNTRACK_LIMIT = Family(
    "calico_debug_conntrack_entries_limit", GAUGE, "Most entries that a table of connections can have.", ("table",)
)
OBSERVER_EVENTS = Family(
    "calico_debug_observer_events_total",
    COUNTER,
    "Events that observers of packets were to tell, a packet once wherever it was seen; lost ones are among them.",
    ("observer",),
)
OBSERVER_LOST = Family(
    "calico_debug_observer_lost_events_total",
    COUNTER,
    "Events that observers of packets did not tell. Those passed over were not looked at, and are of any packet.",
    ("observer", "reason"),
)
SOURCE_UP = Family("calico_debug_source_up", GAUGE, "Whether the source could be read (1) or not (0).", ("source",))
SOURCE_AGE = Family(
    "calico_debug_source_age_seconds", GAUGE, "Seconds since the source was last read without an error.", ("source",)
)
SOURCE_SECONDS = Family(
    "calico_debug_source_read_seconds", GAUGE, "Seconds that the last reading of the source took.", ("source",)
)
SERIES_DROPPED = Family(
    "calico_debug_series_dropped", GAUGE, "Series left out because a metric has as many as it may have.", ("family",)
)
INFO = Family("calico_debug_build_info", GAUGE, "Always 1.", ("version",))

FAMILIES: tuple[Family, ...] = (
    RULE_PACKETS,
    RULE_BYTES,
    RULE_EVALUATIONS,
    DROPS,
    POD_DROPS,
    BPF_PACKETS,
    CONNTRACK_ENTRIES,
    CONNTRACK_LIMIT,
    OBSERVER_EVENTS,
    OBSERVER_LOST,
    SOURCE_UP,
    SOURCE_AGE,
    SOURCE_SECONDS,
    SERIES_DROPPED,
    INFO,
)
"""All of them, in the order of the page."""

POLICY_FAMILIES = (RULE_PACKETS, RULE_BYTES, RULE_EVALUATIONS)
