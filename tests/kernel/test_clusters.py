"""The whole walk against the kernel: generated clusters, real packets, verdicts and the rules that counted them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import MAX_ALTERNATIVES, Engine
from calico_debug.policy.chains import ChainKind, chain_role
from calico_debug.state.resolve import Resolver
from calico_debug.walk.choices import explore
from tests.lab.conftest import need_lab
from tests.lab.counters import RuleKey
from tests.lab.generate import Case, cases
from tests.lab.lab import Lab
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow as ResolvedFlow
    from calico_debug.walk.journey import Journey
    from tests.lab.traffic import Flow

FLOWS = 4
POLICY_CHAINS = frozenset(
    {ChainKind.POLICY, ChainKind.POLICY_GROUP, ChainKind.PROFILE, ChainKind.FAILSAFE, ChainKind.WORKLOAD_TO_HOST}
)
"""Chains that only the first packet of a connection meets, so that a TCP flow's later packets do not blur them."""

Counts = dict[str, Counter[RuleKey]]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster()) as built:
        yield built


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def _check(lab: Lab, directory: Path, case: Case) -> None:
    lab.program(case.model)
    bundle = directory / f"case-{len(list(directory.iterdir()))}"
    lab.evidence(bundle)
    engine = Engine(open_bundle(bundle))
    resolver = Resolver(engine.cluster, engine.states)
    for flow in case.flows:
        before = lab.counters()
        outcome = lab.send(flow)
        moved = lab.moved(before)
        lab_question = lab.question(flow)
        asked = resolver.resolve(
            _with_port(lab_question["from"], outcome.source_port if flow.protocol in ("tcp", "udp") else 0),
            lab_question["to"],
            protocol=lab_question["protocol"],
            via=lab_question.get("via"),
        )
        explained = engine.explain(asked)
        event(f"{outcome.verdict}: {explained.decision.reason if explained.decision else ''}")
        _same_verdict(lab, flow, outcome.verdict, explained)
        _same_counters(engine, asked, flow, outcome.verdict, moved)


def _with_port(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _same_verdict(lab: Lab, flow: Flow, verdict: str, explained: FlowExplanation) -> None:
    if explained.verdict == "undetermined" and lab.topology.owner(flow.destination) is None and not explained.backends:
        # An address of a service that no rule translates: nobody has it, and nothing in the evidence says who would.
        assert explained.decision is not None
        assert explained.decision.reason == "missing-evidence", (flow, explained.decision)
    elif explained.verdict == "undetermined" and not explained.backends:
        # The answer takes another way; flows go to ports where something listens.
        assert explained.decision is not None
        assert "says whether something listens" in explained.decision.detail, (flow, explained.decision)
        assert verdict == "denied", (flow, verdict)
    elif explained.verdict == "undetermined":
        # Legal only where the kernel itself rolls a die; reality must then be one of the backends' outcomes.
        assert len(explained.backends) > 1, (flow, explained.decision)
        assert verdict in {backend.verdict for backend in explained.backends}, (flow, explained.backends)
    elif "answer-from-outside" in {finding.code for finding in explained.findings} and verdict == "denied":
        event("the answer from outside came back through another node")
    else:
        assert explained.verdict == verdict, (flow, verdict, explained.verdict, explained.decision)


def _same_counters(
    engine: Engine, asked: ResolvedFlow, flow: Flow, verdict: str, moved: dict[str, dict[RuleKey, int]]
) -> None:
    opening = engine._opening(asked, [])
    journeys = [
        alternative.result
        for alternative in explore(lambda c: engine._traveller.travel(opening, c, False), MAX_ALTERNATIVES)
    ]
    # One packet each way, no refusal that counts as well, and none of IPv6's neighbour discovery; how an answer from
    # outside comes back is the outside's choice.
    outside = any(journey.arrived == "outside" for journey in journeys)
    one_packet = flow.protocol in ("udp", "icmp") and verdict != "rejected"
    whole = one_packet and not outside and asked.source.address.version == 4
    real = {node: _relevant(Counter(rules), whole) for node, rules in moved.items()}
    walked = [_walked(journey, whole, real) for journey in journeys]
    assert real in walked, (flow, verdict, _difference(real, walked[0]))


def _walked(journey: Journey, whole: bool, nodes: dict[str, Counter[RuleKey]]) -> Counts:
    counts: Counts = {node: Counter() for node in nodes}
    for leg in journey.legs:
        trace = leg.made.trace
        first = next((denial.counted for denial in trace.denials if not denial.hypothetical), None)
        hypothetical = first is None and trace.hypothetical
        counted = [] if hypothetical else trace.counted[:first]
        for rule in counted:
            counts[leg.made.node][RuleKey(rule.family, rule.table, rule.chain, rule.handle)] += 1
    return {node: _relevant(rules, whole) for node, rules in counts.items()}


def _relevant(rules: Counter[RuleKey], whole: bool) -> Counter[RuleKey]:
    if whole:
        # The output hook counts ICMP redirects of the node as well.
        return Counter({key: n for key, n in rules.items() if key.family == "ip" and not key.chain.endswith("OUTPUT")})
    return Counter({key: 1 for key in rules if (role := chain_role(key.chain)) and role.kind in POLICY_CHAINS})


def _difference(real: dict[str, Counter[RuleKey]], walked: Counts) -> dict[str, dict[str, list[RuleKey]]]:
    return {
        node: {"kernel only": list(real[node] - walked[node]), "walk only": list(walked[node] - real[node])}
        for node in real
        if real[node] != walked[node]
    }


UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@pytest.mark.kernel
@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(case=cases(small_cluster(), flows=FLOWS))
def test_generated_clusters(lab: Lab, directory: Path, case: Case) -> None:
    _check(lab, directory, case)
