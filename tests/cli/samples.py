"""Explanations made by hand, one for every kind of story that the renderers tell."""

from __future__ import annotations

from calico_debug.model.explanation import (
    Advice,
    BackendOutcome,
    Decision,
    Evidence,
    Finding,
    FlowEnd,
    FlowExplanation,
    NewConnection,
    PolicyRef,
    RuleRef,
    Step,
    Witness,
)

NODE1, NODE2 = "node1", "node2"
CLIENT = {"namespace": "client", "name": "client"}
QUARANTINE = PolicyRef("GlobalNetworkPolicy", "security.quarantine")
CLIENT_EGRESS = PolicyRef("NetworkPolicy", "platform.client-egress", "client")
MANAGEMENT = PolicyRef("GlobalNetworkPolicy", "platform.management")
PREDICTED = "predicted from the rules in the kernel"
AT = "2026-11-21T09:30:00Z"
NO_MATCH = "client/platform.client-egress selects the pod, none of its rules matched"


def predicted(verdict: str, node: str, at: str = "") -> dict[str, Witness]:
    return {"predicted": Witness(verdict, node, PREDICTED, at)}


def denied_end_of_tier() -> FlowExplanation:
    """The example of the design: two tiers passed and met, a service, a closest rule, the other end."""
    drop = Evidence(
        table="ip calico",
        chain="filter-cali-fw-cali0123456789a",
        handle=214,
        comment="cali:aBcD; Drop if no policies passed packet",
        rule_id="platform|deny",
        counter=2,
    )
    decision = Decision(
        NODE1,
        "nftables",
        "end-of-tier",
        direction="egress",
        tier="platform",
        policy=CLIENT_EGRESS,
        detail=f"end of tier: {NO_MATCH}",
        evidence=drop,
    )
    egress = {"node": NODE1, "stage": "egress", "direction": "egress"}
    ingress = {"node": NODE2, "stage": "ingress", "direction": "ingress", "hypothetical": True}
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("10.244.1.30", pod=CLIENT, node=NODE1, interface="cali0123456789a"),
        destination=FlowEnd(
            "10.96.20.3",
            80,
            service={"namespace": "management-ui", "name": "management-ui", "port": 80, "portName": "http"},
        ),
        verdict="denied",
        decision=decision,
        backends=(
            BackendOutcome(
                "10.244.2.32",
                9001,
                "denied",
                pod={"namespace": "management-ui", "name": "management-ui"},
                node=NODE2,
                decision=decision,
            ),
        ),
        steps=(
            Step(NODE1, "source", "accepted", "client/client on cali0123456789a"),
            Step(NODE1, "conntrack", "new", "no connection with these ends"),
            Step(NODE1, "service", "translated", "management-ui:80 -> 10.244.2.32:9001 (1 of 1 backends)"),
            Step(NODE1, "routing", "routed", "out of eth0 by 172.30.0.12"),
            Step(
                **egress,
                tier="security",
                action="passed",
                detail="",
                policy=QUARANTINE,
                rule=RuleRef("Pass", 1),
                evidence=Evidence("ip calico", "filter-cali-po-security.quarantine", 98, "", "", 7),
            ),
            Step(
                **egress,
                tier="platform",
                action="no match",
                detail="none of the rules matched",
                policy=CLIENT_EGRESS,
            ),
            Step(**egress, tier="platform", action="denied", detail=f"end of tier: {NO_MATCH}", evidence=drop),
            Step(
                **egress,
                tier="platform",
                action="closest",
                detail="rule 0 allows ports 80, 6379 of namespace stars; this flow goes to management-ui:9001",
            ),
            Step(**ingress, tier="security", action="passed", detail="", policy=QUARANTINE, rule=RuleRef("Pass", 0)),
            Step(**ingress, tier="platform", action="allowed", detail="", policy=MANAGEMENT, rule=RuleRef("Allow", 0)),
        ),
        witnesses={
            "predicted": Witness("denied", NODE1, PREDICTED, AT),
            "counted": Witness("denied", NODE1, "drop counter of that rule +2 in 3 s", AT),
            "observed": Witness("denied", NODE1, "probe packet dropped there", AT),
        },
        advice=(
            Advice(
                "add to client/platform.client-egress an egress rule: TCP, namespace management-ui, port 9001",
                {
                    "apiVersion": "projectcalico.org/v3",
                    "kind": "NetworkPolicy",
                    "metadata": {"namespace": "client", "name": "platform.client-egress"},
                    "spec": {
                        "egress": [
                            {
                                "action": "Allow",
                                "protocol": "TCP",
                                "destination": {
                                    "namespaceSelector": "projectcalico.org/name == 'management-ui'",
                                    "ports": [9001],
                                },
                            }
                        ]
                    },
                },
            ),
        ),
    )


def allowed_same_node() -> FlowExplanation:
    rule = Evidence("ip calico", "filter-cali-pi-stars/knp.default.frontend", 31, "", "", 0)
    frontend = PolicyRef("KubernetesNetworkPolicy", "frontend", "stars")
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("10.244.1.30", pod=CLIENT, node=NODE1, interface="cali0123456789a"),
        destination=FlowEnd(
            "10.244.1.31",
            80,
            pod={"namespace": "stars", "name": "frontend"},
            node=NODE1,
            interface="cali0123456789b",
        ),
        verdict="allowed",
        decision=Decision(
            NODE1,
            "nftables",
            "rule",
            direction="ingress",
            tier="default",
            policy=frontend,
            rule=RuleRef("Allow", 0),
            evidence=rule,
        ),
        steps=(
            Step(
                NODE1,
                "egress",
                "allowed",
                "",
                direction="egress",
                policy=PolicyRef("Profile", "kns.client"),
                rule=RuleRef("Allow"),
            ),
            Step(
                NODE1,
                "ingress",
                "allowed",
                "",
                direction="ingress",
                tier="default",
                policy=frontend,
                rule=RuleRef("Allow", 0),
                evidence=rule,
            ),
            Step(NODE1, "wire", "delivered", "to cali0123456789b"),
            Step(NODE1, "reply", "accepted", "conntrack knows the connection"),
        ),
        witnesses=predicted("allowed", NODE1),
    )


def rejected_no_endpoints() -> FlowExplanation:
    reject = Evidence("ip kube-proxy", "services", 12, "", "", 3)
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("10.244.1.30", 40000, pod=CLIENT, node=NODE1),
        destination=FlowEnd("10.96.20.9", 80, service={"namespace": "stars", "name": "ghost", "port": 80}),
        verdict="rejected",
        decision=Decision(NODE1, "nftables", "no-endpoints", evidence=reject),
        steps=(
            Step(NODE1, "service", "rejected", "stars/ghost:80 has no ready endpoints", evidence=reject),
            Step(NODE1, "egress", "denied", "", hypothetical=True, tier="platform", policy=CLIENT_EGRESS),
        ),
        witnesses=predicted("rejected", NODE1),
        advice=(Advice("make a pod of service stars/ghost ready"),),
    )


def undetermined_backends() -> FlowExplanation:
    allow = Decision(NODE1, "nftables", "rule", "egress", "platform", CLIENT_EGRESS, RuleRef("Allow", 0))
    deny = Decision(NODE2, "nftables", "end-of-tier", "ingress", "default", PolicyRef("NetworkPolicy", "db", "stars"))
    return FlowExplanation(
        protocol="udp",
        source=FlowEnd("10.244.1.30", pod=CLIENT, node=NODE1),
        destination=FlowEnd(
            "10.96.0.10", 53, service={"namespace": "kube-system", "name": "dns", "port": 53, "portName": "dns"}
        ),
        verdict="undetermined",
        decision=Decision(NODE1, "nftables", "alternatives", detail="the outcome depends on the backend"),
        backends=(
            BackendOutcome("10.244.1.8", 53, "allowed", {"namespace": "kube-system", "name": "dns-a"}, NODE1, allow),
            BackendOutcome("10.244.2.108", 53, "denied", {"namespace": "kube-system", "name": "dns-b"}, NODE2, deny),
            BackendOutcome("172.30.0.44", 53, "undetermined"),
        ),
        steps=(Step(NODE1, "service", "translated", "kube-system/dns:53 -> one of 3 backends"),),
        witnesses={
            "predicted": Witness("undetermined", NODE1, PREDICTED),
            "counted": Witness("denied", NODE2, "drop counter +1 in 3 s"),
        },
        findings=(
            Finding("backends-differ", "warning", "1 of 3 backends is denied, 1 allowed, 1 undetermined"),
            Finding("node-missing", "info", "the bundle has nothing of the node of 172.30.0.44"),
        ),
        advice=(Advice("ask for each backend by its address"),),
    )


def established() -> FlowExplanation:
    known = Evidence("ip calico", "filter-cali-fw-cali0123456789a", 201, "", "", 88)
    new = Decision(
        NODE1,
        "nftables",
        "rule",
        "egress",
        "platform",
        PolicyRef("GlobalNetworkPolicy", "platform.freeze"),
        RuleRef("Deny", 0),
    )
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("10.244.1.30", 43210, pod=CLIENT, node=NODE1),
        destination=FlowEnd("10.244.2.31", 80, pod={"namespace": "stars", "name": "backend"}, node=NODE2),
        verdict="allowed",
        decision=Decision(NODE1, "nftables", "established", "egress", evidence=known),
        new_connection=NewConnection("denied", new),
        steps=(Step(NODE1, "conntrack", "accepted", "ESTABLISHED, 431990 s left", evidence=known),),
        witnesses=predicted("allowed", NODE1),
        findings=(Finding("stale-connection", "warning", "policy changed since this connection was made"),),
    )


def host_endpoint_pre_dnat() -> FlowExplanation:
    drop = Evidence("ip calico", "raw-cali-fh-eth0", 7, "", "", 11)
    no_nodeports = PolicyRef("GlobalNetworkPolicy", "no-nodeports")
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("203.0.113.70"),
        destination=FlowEnd("172.30.0.11", 30180, node=NODE1, interface="eth0"),
        verdict="denied",
        decision=Decision(NODE1, "nftables", "rule", "ingress", "default", no_nodeports, RuleRef("Deny", 2), "", drop),
        steps=(
            Step(
                NODE1,
                "host",
                "denied",
                "before service translation (preDNAT)",
                "ingress",
                "default",
                no_nodeports,
                RuleRef("Deny", 2),
                drop,
            ),
        ),
        witnesses=predicted("denied", NODE1),
        findings=(Finding("assumed-via", "info", "assumed to arrive by node1, which owns the address"),),
    )


HOSTILE = "x\x1b[2J\x9b31m\u202egpj\u2028\ud800\x7f\ny\u0301"


def hostile_names() -> FlowExplanation:
    """Everything that someone else wrote tries to steer the terminal."""
    policy = PolicyRef(HOSTILE, HOSTILE, HOSTILE)
    evidence = Evidence(HOSTILE, HOSTILE, 1, HOSTILE, HOSTILE, 1)
    end = FlowEnd(
        HOSTILE, 1, {"namespace": HOSTILE, "name": HOSTILE}, {"namespace": HOSTILE, "name": HOSTILE}, HOSTILE, HOSTILE
    )
    decision = Decision(HOSTILE, "nftables", "rule", "egress", HOSTILE, policy, RuleRef(HOSTILE, 0), HOSTILE, evidence)
    return FlowExplanation(
        protocol=HOSTILE,
        source=end,
        destination=end,
        verdict="denied",
        decision=decision,
        backends=(BackendOutcome(HOSTILE, 1, "denied", end.pod, HOSTILE, decision),),
        new_connection=NewConnection("denied", decision),
        steps=(
            Step(HOSTILE, "egress", "denied", HOSTILE, "egress", HOSTILE, policy, RuleRef(HOSTILE, 0), evidence),
            Step(HOSTILE, "ingress", HOSTILE, HOSTILE, "ingress", HOSTILE, policy, hypothetical=True),
        ),
        witnesses={"predicted": Witness("denied", HOSTILE, HOSTILE, HOSTILE)},
        findings=(Finding(HOSTILE, "warning", HOSTILE),),
        advice=(Advice(HOSTILE, {HOSTILE: [HOSTILE]}),),
    )


def ipv6_host() -> FlowExplanation:
    """IPv6 addresses with and without ports, a decision that no step carries, a hole in the evidence."""
    return FlowExplanation(
        protocol="tcp",
        source=FlowEnd("fd00:244:1::1e", 40001, pod=CLIENT, node=NODE1),
        destination=FlowEnd("fd00:244:2::20", 9001),
        verdict="undetermined",
        decision=Decision(NODE2, "nftables", "missing-evidence", "ingress", detail="nothing was recorded of node2"),
        steps=(
            Step(NODE1, "egress", "allowed", "", "egress", "platform", CLIENT_EGRESS, RuleRef("Allow", 3)),
            Step(NODE1, "nat", "masqueraded", "to fd00:30::11"),
        ),
        witnesses=predicted("undetermined", NODE1),
        findings=(Finding("node-missing", "error", "the bundle has no nodes/node2"),),
    )


SAMPLES = {
    made.__name__: made()
    for made in (
        denied_end_of_tier,
        allowed_same_node,
        rejected_no_endpoints,
        undetermined_backends,
        established,
        host_endpoint_pre_dnat,
        hostile_names,
        ipv6_host,
    )
}
