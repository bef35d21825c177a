"""Every finding of the doctor: what it means and what to do. docs/doctor.md has the same table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calico_debug.model.explanation import FINDINGS


@dataclass(frozen=True, slots=True)
class Entry:
    """``meaning`` and ``remedy`` are one sentence each, without a full stop."""

    meaning: str
    remedy: str


_RESTART = "look at the log of calico-node on that node for the reason, then restart its pod there"

_SHARED: Mapping[str, str] = {
    "bpf-attached-twice": "wait for Felix to finish; if it stays, restart calico-node on that node",
    "bpf-attachments-incomplete": "record what the message names, and look again",
    "bpf-leftover-map": "nothing needs to be done; a reboot of the node removes it",
    "bpf-map-gone": "record the lists of programs and maps again, together",
    "bpf-map-migration": "wait for Felix to finish; if it stays, look at the log of calico-node for why it died",
    "bpf-no-counters": "restart calico-node on that node",
    "bpf-no-program": "look at the log of calico-node on that node, and for another program that replaced Calico's",
    "bpf-old-programs": "wait until Felix has programmed every interface; if it stays, look at the log of calico-node",
    "bpf-policy-debug-leftover": "nothing needs to be done; explanations do not use the file",
    "bpf-policy-differs": "wait for Felix to finish; if it stays, restart calico-node on that node",
    "bpf-policy-missing": _RESTART,
    "bpf-policy-not-loaded": "wait for Felix to finish; if it stays, look at the log of calico-node on that node",
    "bpf-several-maps": "wait for Felix to finish; if it stays, restart calico-node on that node",
    "bpf-unknown-entries": "use a newer calico-debug",
    "bpf-unknown-map": "use a newer calico-debug",
    "bpf-unreadable": "record or allow what the message names, and look again",
    "nftables-beside-iptables": "know that their rules are met, too; foreign-drop-rule names those that drop",
    "node-not-programmed": "look at the log of calico-node on that node: a rule that nft refuses keeps all others out",
    "two-dataplanes": "see which mode Felix runs in (FelixConfiguration bpfEnabled, nftablesMode) and take out what "
    "the other left: nft delete table ip calico, or restart the node",
    "two-iptables-backends": "let one backend own the rules (FelixConfiguration iptablesBackend) and clear the other's",
}
"""Findings that explanations of flows have, too, with what to do about each. Those of a program that is run for a flow
are not the doctor's, who runs none.
"""

_OWN: Mapping[str, Entry] = {
    "conntrack-full": Entry(
        "the kernel's table of connections is full or nearly so; packets of new connections are dropped",
        "raise net.netfilter.nf_conntrack_max, and look for who opens so many connections",
    ),
    "endpoint-not-ready": Entry(
        "Felix has not called the programs of a pod's interface ready; packets to the pod are dropped",
        _RESTART,
    ),
    "endpoint-not-reported": Entry(
        "Felix has reported other endpoints of the node as up and not this pod's: its policy is not programmed",
        _RESTART,
    ),
    "foreign-drop-policy": Entry(
        "a base chain of somebody else drops whatever its own rules do not accept, also what Calico allowed",
        "let that chain accept pods' traffic, or stop the service that owns it on nodes of the cluster",
    ),
    "foreign-drop-rule": Entry(
        "rules of somebody else drop or reject packets, also what Calico allowed",
        "see whether they are meant for pods' traffic; trace names the rule that drops a given flow",
    ),
    "kube-proxy-beside-bpf": Entry(
        "kube-proxy programs rules beside the eBPF dataplane, which serves services itself; with the clean-up on, "
        "Felix and kube-proxy undo each other's work",
        "stop kube-proxy (nodeSelector of its DaemonSet); where it may not be stopped set "
        "bpfKubeProxyIptablesCleanupEnabled to false",
    ),
    "map-full": Entry(
        "a map of the eBPF dataplane is full or nearly so; new connections, services or members do not fit",
        "raise the map's size in FelixConfiguration (bpfMapSize…); Felix then copies the map",
    ),
    "mtu-pod": Entry(
        "packets of pods are larger than what is left after encapsulation; large ones are lost where nobody may "
        "answer that they are too big",
        "set the MTU that Calico gives to pods (Installation calicoNetwork.mtu, or veth_mtu), and restart the pods",
    ),
    "mtu-tunnel": Entry(
        "a tunnel device takes larger packets than the device below can carry with encapsulation",
        "set the tunnel's MTU in FelixConfiguration (vxlanMTU, ipipMTU, wireguardMTU), or leave it to Felix",
    ),
    "no-calico": Entry(
        "nothing of Calico's dataplane is on the node, so no policy is applied there",
        "see whether calico-node runs on the node, and look at its log",
    ),
    "node-local-dns": Entry(
        "NodeLocal DNSCache runs on an eBPF node, where services are translated before the cache's address is met",
        'annotate the DNS service with projectcalico.org/natExcludeService: "true", so that it is left to the cache',
    ),
    "notrack": Entry(
        "a rule of somebody else keeps connections from being tracked; their answers meet policy like new connections",
        "allow the answers by policy, too, or leave out the rule; NodeLocal DNSCache makes such rules",
    ),
    "pod-without-interface": Entry(
        "a running pod's address leads to no interface of the node, so nothing reaches the pod",
        "look at the logs of calico-node and of the CNI plugin on that node; restarting the pod wires it anew",
    ),
    "policy-log-only": Entry(
        "a policy that only logs selects endpoints, and no other policy of its tier does: nothing is allowed in the "
        "tier, so its end denies everything",
        "add a rule to the policy behind Log: Pass, Allow or a Deny that is meant",
    ),
    "policy-selects-nothing": Entry(
        "a policy selects no endpoint, so it does nothing",
        "compare its selectors with the labels of pods, namespaces and host endpoints",
    ),
    "rpf-strict": Entry(
        "the kernel's own reverse path filter is strict where the eBPF dataplane needs it off or loose",
        "see what sets net.ipv4.conf.*.rp_filter on the node (sysctl.d, a tuning daemon), and restart calico-node",
    ),
    "rule-shadowed": Entry(
        "no packet gets to a rule of a policy on the node: rules before it take all that would match",
        "see whether that is meant (calico-debug hits names all of them); else move the rule in front, or take it out",
    ),
    "rule-unreachable": Entry(
        "a rule stands behind one that matches everything, so it is never reached",
        "move the rule in front, or take it out",
    ),
    "service-without-endpoints": Entry(
        "a service has no ready backend; connections to it are refused or time out",
        "compare the service's selector with the pods' labels, and see whether the pods are ready",
    ),
    "set-full": Entry(
        "an ipset is full or nearly so; members that do not fit are treated as if they were not selected",
        "raise FelixConfiguration maxIpsetSize",
    ),
    "unknown-interface": Entry(
        "an interface begins like a pod's and Calico has no endpoint for it; everything from it is dropped",
        "see which pod is behind it; if none is, delete it, else look at the log of calico-node on that node",
    ),
    "unsupported": Entry(
        "features are on together that are not supported together",
        "turn one of them off, or see whether a later release supports them",
    ),
}

CATALOGUE: Mapping[str, Entry] = dict(
    sorted({**_OWN, **{code: Entry(FINDINGS[code], remedy) for code, remedy in _SHARED.items()}}.items())
)
"""Every code of `calico_debug.doctor.model.Symptom`."""
