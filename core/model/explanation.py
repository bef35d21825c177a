"""The answer: contract 3, ``apiVersion: calico-debug/v1``, ``kind: FlowExplanation``.

Field names in `to_dict` output are a public interface (docs/json.md, checked by a test against this module).
An optional field that is None, empty or () is left out of the JSON, apart from ``steps``, ``findings`` and ``advice``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

API_VERSION = "calico-debug/v1"
KIND = "FlowExplanation"

VERDICTS = ("allowed", "denied", "rejected", "undetermined")

REASONS: Mapping[str, str] = {
    "rule": "a rule of a policy decided",
    "end-of-tier": "a tier has policies for the pod, none of their rules matched, and the tier's default is to deny",
    "profile": "no tier decided; the pod's profile allowed",
    "no-profile": "no tier decided and no profile allowed",
    "no-policy": "no policy applies to either end on this path",
    "established": "conntrack knows the connection, policy is not asked again",
    "failsafe": "a failsafe port of a host endpoint",
    "no-endpoints": "the service has no ready endpoints",
    "service-port": "the service address has no such port, or no service has the address",
    "source-ranges": "the load balancer's source ranges do not include the client",
    "rpf": "the reverse path of the source address is not the interface it came from (anti-spoofing)",
    "unknown-interface": "the interface begins like a workload's but has no endpoint in Calico",
    "endpoint-disabled": "the endpoint is administratively down",
    "host-default": "DefaultEndpointToHostAction, for a pod that speaks to its own node",
    "host-to-own-pod": "a node's traffic to its own pods is never policed",
    "ct-invalid": "conntrack finds the packet invalid",
    "untranslated": "the answer does not pass the node that translated the request, so the client does not know it",
    "rate-limit": "a limit on the rate of packets or the number of connections",
    "encapsulation": "encapsulated traffic from a workload, or from a node that is not allowed to send it",
    "service-loop": "the destination is in a service range and no service took it (service loop prevention)",
    "neighbour-discovery": "IPv6 neighbour discovery, which the flow needs to cross a link, is denied",
    "no-route": "the routing table has no way there, or says to discard",
    "not-forwarding": "the node does not forward packets",
    "not-calico": "a rule outside Calico's tables decided",
    "missing-evidence": "a part of the path could not be read",
    "not-understood": "a rule on the path could not be evaluated and matters",
    "alternatives": "the outcome depends on something open: a backend, a rate, a port that was not given, a listener",
}
"""Every value of ``decision.reason`` with its meaning; docs/json.md has the same table."""


FINDINGS: Mapping[str, str] = {
    "answer-from-outside": "the answer is taken to come back the way the request left",
    "assumption": "something that was not given was chosen, and how",
    "backends-differ": "the outcome depends on the backend that the kernel picks",
    "bpf-attached-twice": "programs of Calico's are attached to an interface by more than one mechanism",
    "bpf-attachments-incomplete": "a listing of attached programs is missing, so programs may run that are not known",
    "bpf-leftover-map": "a pinned map of another version that no program uses",
    "bpf-map-gone": "a program uses a map that is not listed",
    "bpf-map-migration": "Calico is moving entries from one version of a map to another",
    "bpf-no-counters": "an interface has no entry in the map of counters, and its program drops every packet",
    "bpf-no-program": "an interface that Felix knows has no program of Calico's",
    "bpf-old-programs": "programs of an older Felix are still there",
    "bpf-policy-debug-leftover": "a debug file of an interface that is gone",
    "bpf-policy-debug-missing": "the loaded policy program was run, as there is no debug file for it",
    "bpf-policy-debug-stale": "the debug file is of another program than the one loaded, which was run",
    "bpf-policy-differs": "the map of interfaces names another policy program than the interface runs",
    "bpf-policy-missing": "a pod's interface has no policy program, and everything is dropped",
    "bpf-policy-not-compared": "the debug file was run without a tag or dump of the loaded program to compare it with",
    "bpf-policy-not-loaded": "an interface still runs the default program that denies or allows everything",
    "bpf-several-maps": "programs of one node use several maps for the same purpose",
    "bpf-unknown-entries": "entries of a map that cannot be decoded",
    "bpf-unknown-map": "a map of a version or size that is not known",
    "bpf-unreadable": "a part of the eBPF dataplane that could not be read",
    "counters-disturbed": "a counter was reset, or its rule rewritten, while it was watched",
    "depends-on": "an open question that the answer depends on, or the deciding rule",
    "evidence": "evidence that is missing or undecodable, and what is assumed instead",
    "hook-order": "another table would have denied too, and which runs first is inferred",
    "missing-evidence": "the flow cannot be followed for lack of evidence",
    "nftables-beside-iptables": "nftables tables beside the rules of iptables",
    "node-not-programmed": "Calico's table is there without endpoints' chains: everything is let through",
    "not-confirmed": "the flow is predicted to be allowed, and no packet that was observed confirms it",
    "not-observed": "packets cannot be traced through the rules that decide here, and why",
    "not-probed": "no probe packet could be sent, and why",
    "observation-incomplete": "the kernel reported more than could be read, and packets were missed",
    "outlived-policy": "an existing connection goes on that a new one could not open",
    "policy-not-as-programmed": "a policy object has other rules than the dataplane",
    "refusal-not-seen": "the packet was stopped as predicted, and the refusal that should tell its sender was not seen",
    "rules-changed": "the rules of a node changed while they were read or recorded",
    "settled-by-packets": "the prediction is open, and packets of the flow settle it",
    "two-dataplanes": "Calico's policy is there in two of its modes",
    "two-iptables-backends": "iptables-nft and iptables-legacy both hold rules",
    "node-not-read": "the evidence of a node of the flow could not be had from its agent, with why and what to do",
    "agent-version": "the agent of another node is of another version than the command",
    "witness-dissents": "counters or packets contradict the prediction, with the likely reason",
    "witnesses-agree": "the prediction and what was counted or observed say the same",
    "xdp-program": "an XDP program sees the packet before any rule, and is not read",
}
"""Every value of ``findings[].code`` with its meaning; docs/json.md has the same table."""


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """The API object a user would get with kubectl. ``kind`` may also be Profile; ``namespace`` is "" for global."""

    kind: str
    name: str
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class RuleRef:
    """A rule of a policy: ``index`` counts the object's rules of that direction from 0, None when it is not known."""

    action: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What in the kernel shows it. ``counter`` is packets at the time the evidence was taken."""

    table: str = ""
    chain: str = ""
    handle: int | None = None
    comment: str = ""
    rule_id: str = ""
    counter: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The one place that decided. ``direction`` is the pod's own view: "egress" is leaving the pod."""

    node: str
    dataplane: str
    reason: str
    direction: str = ""
    tier: str = ""
    policy: PolicyRef | None = None
    rule: RuleRef | None = None
    detail: str = ""
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to the packet, in the order the packet meets them.

    ``stage`` says where: "source", "service", "egress", "ingress", "host", "routing", "nat", "conntrack", "wire",
    "reply", "netfilter". ``hypothetical`` marks what would have happened had an earlier denial not ended the flow.
    """

    node: str
    stage: str
    action: str
    detail: str
    direction: str = ""
    tier: str = ""
    policy: PolicyRef | None = None
    rule: RuleRef | None = None
    evidence: Evidence | None = None
    hypothetical: bool = False


@dataclass(frozen=True, slots=True)
class Witness:
    """One of the three witnesses. ``at`` is RFC 3339 UTC, or "" when evidence does not say.

    ``nodes`` are what was seen on each of several nodes; () where one was asked, or it was.
    """

    verdict: str
    node: str
    detail: str
    at: str = ""
    nodes: tuple[Witness, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know beyond the verdict. ``severity`` is "error", "warning" or "info"."""

    code: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What would change the outcome, in words, with a manifest where one can be given."""

    message: str
    manifest: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class FlowEnd:
    """An end of the flow as shown. ``service`` has namespace, name and port."""

    ip: str
    port: int | None = None
    pod: Mapping[str, str] | None = None
    service: Mapping[str, Any] | None = None
    node: str = ""
    interface: str = ""


@dataclass(frozen=True, slots=True)
class BackendOutcome:
    """One backend of a service, with the verdict for a connection that the service sends there."""

    ip: str
    port: int | None
    verdict: str
    pod: Mapping[str, str] | None = None
    node: str = ""
    decision: Decision | None = None


@dataclass(frozen=True, slots=True)
class NewConnection:
    """What a new connection between the same ends would meet, when the asked one exists already."""

    verdict: str
    decision: Decision | None


@dataclass(frozen=True, slots=True)
class FlowExplanation:
    """The whole answer for one flow."""

    protocol: str
    source: FlowEnd
    destination: FlowEnd
    verdict: str
    decision: Decision | None = None
    backends: tuple[BackendOutcome, ...] = ()
    new_connection: NewConnection | None = None
    steps: tuple[Step, ...] = ()
    witnesses: Mapping[str, Witness] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    advice: tuple[Advice, ...] = ()
