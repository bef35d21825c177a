"""Every finding of ``switch check``: what it means and what to do. docs/switch.md has the same table."""

from __future__ import annotations

from collections.abc import Mapping

from calico_debug.doctor.catalogue import Entry

_ADDRESS = (
    "create ConfigMap kubernetes-services-endpoint (namespace tigera-operator, or kube-system for an installation by "
    "manifest) with KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT of the API server's own address or its load "
    "balancer's, and wait until calico-node has restarted"
)

REQUIREMENTS: Mapping[str, Entry] = {
    "already-there": Entry(
        "a node, or the Installation, has the dataplane already that is asked for",
        "nothing needs to be done for it; switch compare still tells what differs from a record",
    ),
    "api-server-address": Entry(
        "the API server's address that Calico is told of does not work without kube-proxy, or is not read where it is",
        _ADDRESS,
    ),
    "api-server-missing": Entry(
        "Calico is not told how to reach the API server without kube-proxy; calico-node loses it as kube-proxy's "
        "rules go",
        _ADDRESS + "; from v3.31 the operator can find it by itself (bpfNetworkBootstrap: Enabled)",
    ),
    "api-server-twice": Entry(
        "the API server's address comes from a ConfigMap, and the operator is to find it by itself: it refuses both",
        "delete the ConfigMap, or set bpfNetworkBootstrap to Disabled",
    ),
    "connections-asked-anew": Entry(
        "open connections that are not TCP: the next packet of each meets policy, and translation, as a new one",
        "nothing, where policy allows them as new and peers do not mind another backend",
    ),
    "connections-at-risk": Entry(
        "open TCP connections that Linux's conntrack does not know as they are, since eBPF carries them: it picks them "
        "up in the middle, as new ones of whoever sends next, so policy is asked, and a service's address translated "
        "anew; those of a node's own processes to a service's address were seen to be cut (v3.32.1)",
        "let the clients connect again, or restart the pods that do not do so by themselves",
    ),
    "connections-stay": Entry(
        "open TCP connections go on: eBPF leaves what it does not know to Linux's conntrack",
        "nothing; they take the old way, without what eBPF adds, until they end",
    ),
    "data-interface": Entry(
        "the interface with the node's address does not match BPFDataIfacePattern: Felix attaches no program there, so "
        "node ports and host endpoints are not served",
        "set FelixConfiguration bpfDataIfacePattern so that it matches",
    ),
    "host-ports": Entry(
        "host ports are made with iptables rules of the portmap plugin; the operator refuses hostPorts Enabled with "
        "eBPF (releases are known that do; which newer one does not is not known)",
        "set spec.calicoNetwork.hostPorts of the Installation to null as you set linuxDataplane, and publish those "
        "ports by services",
    ),
    "icmp-type-and-code": Entry(
        "a rule names an ICMP type and code: with nft 1.0.6, Felix of v3.29.1 and v3.32.1 was seen to fail over "
        "that and to program nothing at all on nodes that need the policy, where everything is allowed then",
        "leave the code out of the rule before the switch",
    ),
    "kernel-old": Entry(
        "the kernel does for eBPF; Calico's documentation recommends v5.8 or later, with CO-RE",
        "nothing must be done; a newer kernel is faster",
    ),
    "kernel-too-old": Entry(
        "the kernel lacks what the dataplane needs: Felix of v3.28 to v3.32 stays with rules on a kernel before v5.3 "
        "(Red Hat's before v4.18.0-193) though eBPF is asked for",
        "upgrade the node's kernel first",
    ),
    "kube-proxy-elsewhere": Entry(
        "kube-proxy's rules are on a node and no DaemonSet kube-proxy is known: something else runs it",
        "find what does (k3s, RKE and others build it in) and turn it off as you switch; where that cannot be, set "
        "bpfKubeProxyIptablesCleanupEnabled to false",
    ),
    "kube-proxy-mode": Entry(
        "kube-proxy makes rules of another kind than Calico is to make; they are to be of one kind",
        "set mode in kube-proxy's configuration (ConfigMap kube-proxy), and restart it together with the switch",
    ),
    "kube-proxy-runs": Entry(
        "kube-proxy runs, and Felix in eBPF mode removes its rules as often as kube-proxy writes them",
        'as you switch, stop it (a nodeSelector that no node has, in its DaemonSet, such as non-calico: "true"), or '
        "let the operator (kubeProxyManagement: Enabled, v3.31 and later); where it may not be stopped, as on AKS, set "
        "bpfKubeProxyIptablesCleanupEnabled to false",
    ),
    "kube-proxy-stopped": Entry(
        "kube-proxy does not run, and without eBPF nobody serves services",
        "take the nodeSelector out of its DaemonSet as you switch back",
    ),
    "log-rules": Entry(
        "rules with action Log: with eBPF lines go to the kernel's trace pipe (/sys/kernel/debug/tracing/trace_pipe), "
        "one at the end of policy, and not to the kernel's log",
        "change what reads them",
    ),
    "protocol-name": Entry(
        "a rule names a protocol that eBPF's policy compiler does not know by name: it becomes protocol 0 and never "
        "matches (read in the source of v3.32.1)",
        "write the protocol's number: 58 for ICMPv6, 136 for UDPLite",
    ),
    "release-too-old": Entry(
        "Calico's release does not have the dataplane: nftables mode is there from v3.29",
        "upgrade Calico first",
    ),
    "services-refuse": Entry(
        "services without endpoints: eBPF refuses connections to them before policy is asked; with rules, policy may "
        "drop them in silence before kube-proxy refuses, or the other way round",
        "nothing; who waits for a time-out sees a refusal, or the other way round",
    ),
    "session-affinity": Entry(
        "services with session affinity: who has which backend is kept in another place, which starts empty",
        "expect clients to come to another backend once",
    ),
    "settings-of-iptables": Entry(
        "settings of FelixConfiguration that have a twin for nftables, which goes with nftablesMode Enabled",
        "set the twin (nftablesFilterAllowAction, nftablesMarkMask and so on) to the same value",
    ),
    "source-address": Entry(
        "services that are reached from outside the cluster: kube-proxy puts the node's address in the client's place "
        "where it sends on to another node, eBPF keeps the client's address",
        "see that policy of their pods speaks of clients (to eBPF) or of nodes (from it): record before, compare after",
    ),
    "unsupported": Entry(
        "features are in use that the dataplane does not support",
        "turn them off, or see whether a later release supports them",
    ),
    "vxlan-between-nodes": Entry(
        "with eBPF, what comes to a node port goes to a backend on another node in VXLAN, or straight back with DSR",
        "let UDP port 4789 pass between nodes, and leave 50 bytes of MTU for it",
    ),
}
"""Every code that the checks before a switch give."""
