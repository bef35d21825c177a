"""What a walk found and what the objects decide are told in the same terms, or the two could not be compared."""

from __future__ import annotations

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.engine import Engine
from calico_debug.intent.decide import Intent
from calico_debug.intent.model import PolicyFlow
from calico_debug.matrix.by_walk import flow_between
from calico_debug.matrix.model import Asked
from calico_debug.matrix.reasons import of_explanation, of_intent
from calico_debug.model.explanation import Decision, Evidence, FlowEnd, FlowExplanation
from calico_debug.state.cluster import load_cluster
from tests.recordings import DATA

ENDS = FlowEnd("10.0.0.1"), FlowEnd("10.0.0.2")


@pytest.mark.parametrize("dataplane", ["nft", "iptables", "bpf"])
def test_the_same_terms(dataplane: str) -> None:
    engine = Engine(open_bundle(DATA / f"v3.32.1-{dataplane}.tar.xz"))
    intent = Intent(engine.cluster.cluster)
    pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
    kinds = set()
    for source in pods:
        for target in pods:
            for asked in (Asked(6, 80), Asked(6, 6379), Asked(17, 53)):
                if source is target:
                    continue
                explanation = engine.explain(flow_between(source, target, asked, 4), as_new=True)
                walked = of_explanation(explanation, engine.cluster)
                flow = PolicyFlow(
                    source.addresses[0], target.addresses[0], asked.protocol, asked.source_port, asked.port
                )
                meant = of_intent(intent.decide(flow).stages, intent.matching, flow)
                assert walked.key == meant.key, (str(source), str(target), str(asked))
                # On eBPF nodes a closest rule is told only where programs leave no doubt of it.
                assert walked.closest in ((meant.closest, "") if dataplane == "bpf" else (meant.closest,))
                kinds |= {decision.reason for decision in walked.decisions}
    assert kinds == {"rule", "end-of-tier", "profile"}


def test_a_node_is_named_where_it_matters() -> None:
    cluster = load_cluster(open_bundle(DATA / "v3.32.1-nft.tar.xz"))
    for reason, node in (("rule", ""), ("no-route", "n1")):
        decision = Decision("n1", "nftables", reason, detail="so", evidence=Evidence(table="ip calico"))
        (shown,) = of_explanation(FlowExplanation("tcp", *ENDS, "denied", decision), cluster).decisions
        assert (shown.node, shown.evidence, shown.detail) == (node, None, "so")


def test_without_a_decision() -> None:
    cluster = load_cluster(open_bundle(DATA / "v3.32.1-nft.tar.xz"))
    assert of_explanation(FlowExplanation("tcp", *ENDS, "undetermined"), cluster).decisions == ()
    own = Decision("n1", "nftables", "no-policy", detail="a pod reaches its own address inside of the pod")
    assert len(of_explanation(FlowExplanation("tcp", *ENDS, "allowed", own), cluster).decisions) == 1
