"""Explanations name the policy and the rule that decided, in the shape of every release, against model and kernel."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.kernel.expected import Answer, Expected, expected
from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.generate import models
from tests.lab.lab import Lab
from tests.lab.model import Entity, Felix, HostEndpoint, Model, Policy, Rule, Selector, Service, ServicePort, Tier
from tests.lab.topology import OUTSIDE_OTHER_V4, small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.model.explanation import FlowExplanation
    from tests.lab.traffic import Flow, Outcome

pytestmark = pytest.mark.kernel

CLUSTER = small_cluster()
WEB, DB, CLIENT = (Selector("app", (app,)) for app in ("web", "db", "client"))
TIERS = (
    Tier("default", 1_000_000),
    Tier("security", 100),
    Tier("platform", 300, "Pass"),
    Tier("audit", 400),
    Tier("app", 500),
)
MANY_PORTS = tuple(range(9001, 9030))
"""More than one rule of the kernel takes."""
CLIENT1, NODE2_PODS = "10.244.1.12/32", ("10.244.2.0/24", "fd00:244:2::/64")
LONG = "a-name-that-is-too-long-for-a-chain-of-v3.29"


def policy(name: str, tier: str, selector: Selector, *ingress: Rule, egress: tuple[Rule, ...] | None = None) -> Policy:
    return Policy("GlobalNetworkPolicy", name, tier, "", None, selector, ingress or None, egress)


SECURITY = (
    policy(
        "security.quarantine",
        "security",
        WEB,
        Rule("Log", "tcp"),
        Rule("Deny", "tcp", source=Entity(nets=(CLIENT1,)), destination=Entity(ports=(9001,))),
        Rule("Allow", "icmp", ip_version=4),
        Rule("Deny", "icmpv6", ip_version=6, annotations=(("why", "nobody pings"),)),
        Rule("Pass", source=Entity(nets=("10.0.0.0/8", "fd00::/16"), not_nets=("10.9.0.0/16", "10.8.0.0/16"))),
    ),
    policy("security.log-only", "security", WEB, Rule("Log"), egress=(Rule("Log"), Rule("Pass"))),
)
# Neighbours with one selector make a group; from the sixth on it looks at the verdict between them.
GROUP = (
    *(policy(f"platform.p{number}", "platform", WEB, Rule("Deny", "sctp")) for number in range(3)),
    policy("platform.p3", "platform", WEB, Rule("Deny", "tcp", destination=Entity(ports=(443, *MANY_PORTS)))),
    policy("platform.p4", "platform", WEB, Rule("Log"), Rule("Log")),
    policy(
        "platform.p5",
        "platform",
        WEB,
        Rule("Deny", "tcp", source=Entity(selector=DB), destination=Entity(ports=(*MANY_PORTS, "http"))),
        Rule("Allow", "tcp", source=Entity(selector=DB)),
    ),
    policy("platform.p6", "platform", WEB, Rule("Pass", "udp"), Rule("Allow", "udp")),
)
STAGED = (
    replace(policy("audit.one", "audit", WEB, Rule("Deny")), staged=True),
    replace(policy("audit.two", "audit", DB, Rule("Deny"), egress=(Rule("Deny"),)), staged=True),
)
APP = (
    Policy(
        "NetworkPolicy",
        f"app.{LONG}",
        "app",
        "blue",
        10,
        WEB,
        (
            Rule("Allow", "tcp", source=Entity(selector=CLIENT), destination=Entity(ports=("http", 443))),
            Rule("Deny", "udp", source=Entity(nets=NODE2_PODS), destination=Entity(ports=((50, 60),))),
            Rule("Pass", not_protocol="tcp"),
        ),
        None,
    ),
    Policy("NetworkPolicy", "app.web", "app", "red", 10, WEB, (Rule("Pass"),), (Rule("Pass"),)),
)
KUBERNETES = Policy(
    "KubernetesNetworkPolicy",
    "db",
    "default",
    "red",
    1000,
    DB,
    (
        Rule("Allow", "udp", source=Entity(selector=WEB), destination=Entity(ports=(53,))),
        Rule("Allow", "tcp", source=Entity(selector=CLIENT), destination=Entity(ports=(80,))),
    ),
    None,
)
EGRESS = (
    Policy(
        "NetworkPolicy",
        "clients",
        "default",
        "red",
        5,
        CLIENT,
        None,
        (
            Rule("Deny", "udp", destination=Entity(nets=NODE2_PODS, not_selector=WEB)),
            Rule("Deny", "tcp", destination=Entity(selector=DB, ports=(8080, 8081), not_ports=(9001, (22, 79)))),
            Rule("Allow"),
        ),
    ),
    policy("empty", "default", Selector("pod", ("db1",)), egress=()),
    policy("rest", "default", Selector("pod", ("cli2",)), egress=(Rule("Allow", "tcp"),)),
)
MODEL = Model(TIERS, (*SECURITY, *GROUP, *STAGED, *APP, KUBERNETES, *EGRESS))

RELEASES = ("v3.29", "v3.30", "v3.31", "v3.32")
VARIANTS = {
    "plain": Felix(),
    "flow logs": Felix(flow_logs=True),
    "no groups": Felix(group_policies=False),
    "marks": Felix(mark_mask=0x1F0F0000, flow_logs=True),
    "return": Felix(allow_action="Return"),
    "reject": Felix(deny_action="Reject", flow_logs=True),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(CLUSTER) as built:
        for node in CLUSTER.nodes:
            # Hundreds of refusals at once: more than the kernel sends a second.
            limits = {"net/ipv4/icmp_msgs_per_sec": "100000", "net/ipv4/icmp_msgs_burst": "100000"}
            namespaces.sysctl(built.namespace(node.name), limits)
        yield built


class Explained:
    """The lab's cluster as it is before the flows, explained from what the kernel says of it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        lab.evidence(directory, complete=False)
        self.engine = Engine(open_bundle(str(directory)))
        self.resolver = Resolver(self.engine.cluster, self.engine.states)

    def explain(self, flow: Flow, source_port: int) -> FlowExplanation:
        asked = self.lab.question(flow)
        source = asked["from"]
        if flow.port is not None:
            source = f"[{source}]:{source_port}" if flow.version == 6 else f"{source}:{source_port}"
        return self.engine.explain(
            self.resolver.resolve(source, asked["to"], protocol=asked["protocol"], via=asked.get("via"))
        )


def check(explained: Explained, model: Model, flow: Flow, verdict: str, source_port: int) -> Expected:
    wanted = expected(CLUSTER, model, flow, source_port)
    assert wanted.verdict == verdict, f"{flow}: the model says {wanted.verdict}, the kernel {verdict}"
    found = explained.explain(flow, source_port)
    told = f"{flow}: {found.verdict}, {found.decision}, {found.findings}"
    assert found.verdict == verdict, told
    assert found.decision is not None
    assert (found.decision.reason, found.decision.direction) == (wanted.reason, wanted.direction), told
    assert steps(found) == wanted.tiers, told
    decider = wanted.decider
    if decider is not None:
        assert found.decision.tier == decider.tier, told
        assert found.decision.policy == decider.policy, told
        rule = found.decision.rule
        assert (rule and rule.index, rule.action if rule else "") == (decider.index, decider.action), told
    else:
        assert found.decision.policy is not None, told
        assert found.decision.policy.kind == "Profile", told
    assert found.decision.evidence is not None
    assert found.decision.evidence.handle is not None, told
    assert not [finding for finding in found.findings if finding.severity == "error"], told
    return wanted


def steps(found: FlowExplanation) -> list[Answer]:
    """What the explanation says of each tier that the packet really met."""
    return [
        Answer(
            step.direction,  # type: ignore[arg-type]
            step.tier,
            step.action,
            step.policy,
            step.rule.index if step.rule else None,
            step.rule.action if step.rule else "",
        )
        for step in found.steps
        if step.tier and step.action != "closest" and not step.hypothetical
    ]


def every_flow(lab: Lab) -> list[Flow]:
    pods = [pod.place for pod in CLUSTER.pods]
    return [
        lab.flow(source, target, protocol, port, version)
        for version in CLUSTER.versions
        for source in pods
        for target in pods
        if source != target
        for protocol, port in (("tcp", 80), ("tcp", 443), ("tcp", 8080), ("tcp", 9001), ("udp", 53), ("icmp", None))
    ]


def send(lab: Lab, flows: list[Flow]) -> list[Outcome]:
    """All at once, but for pings: a raw socket hears the refusals of every ping that its host sent."""
    if lab.model.felix.deny_action != "Reject":
        return lab.send_all(flows)
    pings = [flow for flow in flows if flow.protocol.startswith("icmp")]
    found = {flow: lab.send(flow) for flow in pings}
    others = [flow for flow in flows if flow not in found]
    found |= dict(zip(others, lab.send_all(others), strict=True))
    return [found[flow] for flow in flows]


@pytest.mark.parametrize(
    ("release", "variant"),
    [
        pytest.param(release, variant, marks=pytest.mark.slow if variant != "plain" and release != RELEASES[-1] else ())
        for release in RELEASES
        for variant in VARIANTS
    ],
)
def test_attribution(lab: Lab, tmp_path: Path, release: str, variant: str) -> None:
    felix = replace(VARIANTS[variant], release=release)  # type: ignore[arg-type]
    # Staged policies are there since v3.30.
    policies = tuple(p for p in MODEL.policies if not (p.staged and release == "v3.29"))
    model = replace(MODEL, felix=felix, policies=policies)
    lab.program(model)
    flows = every_flow(lab)
    explained = Explained(lab, tmp_path)
    outcomes = send(lab, flows)
    met = set()
    for flow, outcome in zip(flows, outcomes, strict=True):
        wanted = check(explained, model, flow, outcome.verdict, outcome.source_port)
        met |= {(wanted.verdict, wanted.reason)} | {(tier.outcome, tier.action) for tier in wanted.tiers}
    denied = "rejected" if felix.deny_action == "Reject" else "denied"
    assert met >= {
        ("allowed", "rule"),
        ("allowed", "profile"),
        (denied, "rule"),
        (denied, "end-of-tier"),
        ("passed", "Pass"),
        ("passed", ""),
    }


HOST = Selector("host", ("node2",))


def to_ports(*ports: int) -> Entity:
    return Entity(ports=ports)


HOST_MODEL = Model(
    TIERS,
    (
        Policy(
            "GlobalNetworkPolicy",
            "security.host",
            "security",
            "",
            10,
            HOST,
            (Rule("Deny", "tcp", destination=to_ports(8080)), Rule("Pass", "tcp")),
            (Rule("Deny", "udp", destination=to_ports(8053)), Rule("Pass")),
        ),
        Policy(
            "GlobalNetworkPolicy",
            "host",
            "default",
            "",
            20,
            HOST,
            (Rule("Allow", "icmp", ip_version=4), Rule("Allow", "tcp", destination=to_ports(80))),
            (Rule("Allow", "tcp"),),
        ),
        Policy(
            "GlobalNetworkPolicy",
            "app.forward",
            "app",
            "",
            30,
            HOST,
            (Rule("Log"), Rule("Deny", "tcp", destination=to_ports(443)), Rule("Pass")),
            (Rule("Pass"),),
            apply_on_forward=True,
        ),
        Policy(
            "GlobalNetworkPolicy",
            "app.guard",
            "app",
            "",
            5,
            HOST,
            (Rule("Allow", "tcp", destination=to_ports(22)), Rule("Deny", "tcp", destination=to_ports(30081))),
            None,
            pre_dnat=True,
            apply_on_forward=True,
        ),
    ),
    host_endpoints=(HostEndpoint("node2-eth0", "node2", "eth0", {"host": "node2"}),),
    services=(
        Service(
            "red",
            "web",
            (ServicePort(80, 80, "tcp", "a", 30080), ServicePort(81, 80, "tcp", "b", 30081)),
            "10.96.1.1",
            "",
            ("red/db2",),
        ),
    ),
)
# Source, target, protocol, port; then verdict, reason, tier, policy, index of the rule.
HOST_FLOWS: dict[str, tuple[tuple[str, str, str, int | None], tuple[str, str, str, str, int | None]]] = {
    "failsafe": (("external", "node2", "tcp", 22), ("allowed", "failsafe", "", "", None)),
    "rule": (("external", "node2", "tcp", 80), ("allowed", "rule", "default", "host", 1)),
    "ping": (("external", "node2", "icmp", None), ("denied", "end-of-tier", "security", "", None)),
    "denied": (("external", "node2", "tcp", 8080), ("denied", "rule", "security", "security.host", 0)),
    "forward tier": (("external", "node2", "tcp", 443), ("denied", "rule", "app", "app.forward", 1)),
    "end of tier": (("external", "node2", "udp", 53), ("denied", "end-of-tier", "security", "", None)),
    "egress": (("node2", "external", "udp", 8053), ("denied", "rule", "security", "security.host", 0)),
    "forwarded": (("external", "red/db2", "tcp", 443), ("denied", "rule", "app", "app.forward", 1)),
    "forwarded to a pod": (("external", "red/db2", "udp", 53), ("allowed", "profile", "", "kns.red", None)),
    "node port": (("external", "node2", "tcp", 30080), ("allowed", "profile", "", "kns.red", None)),
    "guarded": (("external", "node2", "tcp", 30081), ("denied", "rule", "app", "app.guard", 1)),
}


@pytest.mark.parametrize("variant", ["plain", "marks", "return"])
@pytest.mark.parametrize("release", RELEASES)
def test_attribution_of_host_endpoints(lab: Lab, tmp_path: Path, release: str, variant: str) -> None:
    lab.program(replace(HOST_MODEL, felix=replace(VARIANTS[variant], release=release)))  # type: ignore[arg-type]
    explained = Explained(lab, tmp_path)
    flows = [lab.flow(*ends) for ends, _ in HOST_FLOWS.values()]
    behind_node2 = CLUSTER.address("red/db2")
    flows = [replace(f, source_address=OUTSIDE_OTHER_V4) if f.destination == behind_node2 else f for f in flows]
    outcomes = lab.send_all(flows)
    for (name, (_, wanted)), flow, outcome in zip(HOST_FLOWS.items(), flows, outcomes, strict=True):
        found = explained.explain(flow, outcome.source_port)
        decision = found.decision
        assert decision is not None
        told = (
            found.verdict,
            decision.reason,
            decision.tier,
            decision.policy.name if decision.policy else "",
            decision.rule.index if decision.rule else None,
        )
        assert (outcome.verdict, told) == (wanted[0], wanted), (name, decision, found.findings)
        assert decision.node == "node2", name


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(model=models(CLUSTER), data=st.data())
def test_attribution_of_generated_policies(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, model: Model, data: st.DataObject
) -> None:
    lab.program(model := replace(model, host_endpoints=()))
    flows = data.draw(st.lists(st.sampled_from(every_flow(lab)), min_size=12, max_size=12, unique=True))
    explained = Explained(lab, tmp_path_factory.mktemp("bundle"))
    outcomes = send(lab, flows)
    for flow, outcome in zip(flows, outcomes, strict=True):
        check(explained, model, flow, outcome.verdict, outcome.source_port)
