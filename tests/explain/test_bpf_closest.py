"""The closest rule after a denial of the eBPF dataplane, on the recorded cluster."""

from __future__ import annotations

from itertools import product

from calico_debug.explain.engine import Engine
from calico_debug.model.explanation import FlowExplanation, PolicyRef, RuleRef, Step
from calico_debug.state.resolve import Resolver
from tests.recordings import recordings
from tests.walk.recorded_bpf import POLICY, RecordedCluster

CLIENT, UI = "10.244.1.30", "10.244.2.32"
NAMESPACES = ("client", "stars", "management-ui")


def closest(answer: FlowExplanation) -> Step | None:
    return next((step for step in answer.steps if step.action == "closest"), None)


def asked(cluster: RecordedCluster, destination: str) -> FlowExplanation:
    return cluster.engine.explain(cluster.resolver.resolve(CLIENT, destination))


def test_the_rule_and_the_clauses_in_the_object_s_words() -> None:
    step = closest(asked(RecordedCluster(), f"{UI}:9001"))
    assert step is not None
    assert (step.policy, step.rule) == (
        PolicyRef("NetworkPolicy", "platform.client-egress", "client"),
        RuleRef("Allow", 0),
    )
    assert step.detail == (
        "rule 0 (Allow TCP to namespace stars, ports 80, 6379): destination 10.244.2.32 (management-ui/mgmt-ui-79f4) "
        "is not in namespace stars; destination port 9001 is not one of 80, 6379"
    )
    assert step.evidence is not None
    assert step.evidence.rule_id


def test_an_object_that_was_changed_since_is_not_quoted() -> None:
    cluster = RecordedCluster()
    for policy in cluster.engine.cluster.policies():
        if policy.name == "platform.client-egress":
            policy.spec["egress"][0]["action"] = "Deny"  # type: ignore[index]
    step = closest(asked(cluster, f"{UI}:9001"))
    assert step is not None
    assert step.rule == RuleRef("Allow", None)
    assert step.detail.startswith("rule 0 as programmed (Allow): destination 10.244.2.32")
    assert "not one of 80, 6379" in step.detail


def test_nothing_is_said_of_code_without_comments() -> None:
    def without_debug(files: dict[str, bytes]) -> None:
        for file in [name for name in files if name.startswith(POLICY)]:
            del files[file]

    answer = asked(RecordedCluster(without_debug), f"{UI}:9001")
    assert answer.decision is not None
    assert answer.decision.reason == "end-of-tier"
    assert closest(answer) is None


def test_both_dataplanes_say_the_same() -> None:
    """The recorded nftables cluster has the same objects: what its rules miss by, the programs miss by."""
    told = []
    for name in ("v3.32.1-bpf", "v3.32.1-nft"):
        engine = Engine(recordings(name)[0].source)
        resolver = Resolver(engine.cluster, engine.states)
        pods = sorted(f"{pod.namespace}/{pod.name}" for pod in engine.cluster.pods if pod.namespace in NAMESPACES)
        answers = {}
        for source, destination, port in product(pods, pods, (80, 6379, 9001)):
            for protocol in ("tcp", "udp") if source != destination else ():
                step = closest(engine.explain(resolver.resolve(source, f"{destination}:{port}", protocol=protocol)))
                if step is not None:
                    answers[source, destination, port, protocol] = (step.policy, step.rule, step.tier, step.detail)
        told.append(answers)
    programs, rules = told
    assert programs == rules
    assert len(programs) > 20
