"""The same pods, policies and flows in three dataplanes: where outcomes differ, and why.

1. A service without endpoints: eBPF refuses before it asks policy; with netfilter, policy and kube-proxy share a hook,
   and whichever runs first answers.
2. A node port, or another service that masquerades: eBPF keeps the client's address, so policy sees the pod; kube-proxy
   rewrites it, so policy sees the node.
3. A pod that reaches itself through its service: netfilter asks the pod's ingress policy about the node's address, eBPF
   asks nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from calico_debug.explain.engine import Engine
from calico_debug.state.resolve import Resolver
from tests.recordings import DATA, Recording

if TYPE_CHECKING:
    from calico_debug.model.explanation import FlowExplanation

MODES = ("nft", "iptables", "bpf")
Key = tuple[str, str, int, str]


def _explained(mode: str) -> dict[Key, FlowExplanation]:
    recording = Recording(DATA / f"v3.32.1-{mode}.tar.xz")
    engine = Engine(recording.source)
    resolver = Resolver(engine.cluster, engine.states)
    answers = {}
    for probe in recording.json("probes.json"):
        flow = resolver.resolve(
            probe["src_ip"],
            _target(probe),
            protocol=probe["proto"],
            via=_via(probe),
        )
        answers[probe["src"], probe["dst"], probe["dport"], probe["proto"]] = engine.explain(flow)
    return answers


def _via(probe: dict[str, Any]) -> str | None:
    """The outside client's default route is node1; node2 it reaches directly, as it would be answered."""
    if not probe["src_ip"].endswith(".100"):
        return None
    return "node2" if probe["dst_ip"] == "172.30.0.12" else "node1"


def _target(probe: dict[str, Any]) -> str:
    return probe["dst_ip"] if probe["proto"] == "icmp" else f"{probe['dst_ip']}:{probe['dport']}"


def _why(answers: dict[str, FlowExplanation]) -> str:
    if any(answer.decision and answer.decision.reason == "no-endpoints" for answer in answers.values()):
        return "no endpoints"
    if any(backend.ip == answers["bpf"].source.ip for backend in answers["bpf"].backends):
        return "to itself through a service"
    masqueraded = {mode: any(s.action == "masqueraded" for s in answer.steps) for mode, answer in answers.items()}
    if masqueraded == {"nft": True, "iptables": True, "bpf": False}:
        return "the client's address is kept"
    return "unexplained"


def test_where_dataplanes_differ_and_why() -> None:
    by_mode = {mode: _explained(mode) for mode in MODES}
    whys = Counter[str]()
    for key in by_mode["nft"]:
        answers = {mode: by_mode[mode][key] for mode in MODES}
        if len({answer.verdict for answer in answers.values()}) > 1:
            whys[_why(answers)] += 1
    assert set(whys) == {"no endpoints", "to itself through a service", "the client's address is kept"}
    assert whys.total() < len(by_mode["nft"]) // 20
