"""The second and third witness on this node: counters, traced packets and probes, all at once."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.agent.observe import Observer
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.agent.probe import probe
from calico_debug.agent.watch import Watch
from calico_debug.errors import EvidenceError
from calico_debug.explain.counted import places
from calico_debug.explain.observed import flow_tuples
from calico_debug.explain.witnesses import Gathered
from calico_debug.model.observation import ProbeReport
from calico_debug.state.combined import IPTABLES_LEGACY, IPTABLES_NFT, CombinedRuleset
from calico_debug.state.dataplane import EBPF, IPTABLES
from calico_debug.state.node import NodeState
from calico_debug.state.ruleset import KernelRuleset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.evidence.source import NetlinkDump, NodeEvidence
    from calico_debug.explain.observed import Namer
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.observation import FlowTuple, Observation, TracedPacket, Wanted, Watched


def gather(node: NodeEvidence, explanation: FlowExplanation, wanted: Wanted, name: Namer) -> Gathered:
    """Do what is wanted, and give what was seen. Raises `EvidenceError`.

    Counters are read before anything else begins and after everything has ended. Whatever ends this early, nothing of
    it stays on the node.
    """
    state = NodeState(node)
    interfaces = {index: link.name for index, link in state.interfaces_by_index.items()}
    flows = flow_tuples(explanation, node.name)
    refusal = _no_trace(state, explanation) if wanted.observe is not None else ""
    watched: Watched | None = None
    observation: Observation | None = None
    report: ProbeReport | None = None
    with ExitStack() as stack:
        watch = None
        if wanted.watch is not None or wanted.probe:
            watch = Watch(node, places(explanation, node.name), _program_interfaces(state, explanation))
        begun = time.monotonic()
        observer = None
        packets: PacketWitness | None = None
        if wanted.observe is not None and not refusal:
            observer = stack.enter_context(Observer(flows))
        elif wanted.observe is not None:
            try:
                packets = stack.enter_context(PacketWitness(state, explanation, wanted.observe))
            except EvidenceError as error:
                refusal = f"{refusal}; nor can packets be watched at the interfaces: {error}"
        if wanted.probe:
            report = _probe(explanation, node, flows[0])
        if observer is not None and wanted.observe is not None:
            observer.watch(wanted.observe - (time.monotonic() - begun))
            observation = observer.finish()
            observer.close()
        seen = packets.finish() if packets is not None else None
        if wanted.watch is not None:
            time.sleep(max(0.0, wanted.watch - (time.monotonic() - begun)))
        if watch is not None:
            watched = watch.finish()
    if observation is not None:
        observation = replace(observation, packets=_as_evidence(state, node.nftables, observation.packets))
    if seen is not None:
        refusal = ""
    return Gathered(node.name, interfaces, name, watched, observation, report, refusal, seen)


def _program_interfaces(state: NodeState, explanation: FlowExplanation) -> tuple[str, ...]:
    """The flow's interfaces on this node, where eBPF programs are at them."""
    if state.dataplane != EBPF:
        return ()
    ends = (explanation.source, explanation.destination)
    return tuple(dict.fromkeys(end.interface for end in ends if end.node == state.name and end.interface))


def _no_trace(state: NodeState, explanation: FlowExplanation) -> str:
    """Why the rules that decide here cannot be traced; "" when they can."""
    if state.dataplane == EBPF:
        return (
            "policy on this node is decided by eBPF programs, which nftables does not trace: use --probe, which shows "
            "the answer, and --watch, which shows the rules' counters"
        )
    if state.dataplane != IPTABLES:
        return ""
    ruleset = state.ruleset
    kinds = ruleset.kinds() if isinstance(ruleset, CombinedRuleset) else {}
    family = "ip6" if ":" in explanation.source.ip else "ip"
    calico = [
        table
        for (own, table) in ruleset.tables()
        if own == family and ruleset.rules(own, table, "cali-FORWARD") is not None
    ]
    if any(kinds.get((family, table)) == IPTABLES_LEGACY for table in calico):
        return (
            "Calico's rules on this node are of iptables-legacy, which nftables does not trace, and a rule that does "
            "would outlive a command that is killed: use --probe and --watch, which show the answer and the counters"
        )
    return ""


def _probe(explanation: FlowExplanation, node: NodeEvidence, flow: FlowTuple) -> ProbeReport:
    """Send probes, if the flow starts on this node and no connection of anybody's is in the way."""
    source = explanation.source
    error = ""
    if source.node != node.name:
        place = f"on {source.node}" if source.node else "outside of the cluster, or on a node that is not known"
        error = f"the flow starts {place}: run there, or send a packet by hand and use --observe"
    elif explanation.new_connection is not None:
        error = "the connection exists, and a probe would break it: leave out the source port"
    words = f"{source.interface} of {node.name}" if source.interface else node.name
    if error:
        return ProbeReport(0, words, flow, error=error)
    return probe(flow, source.interface, words)


def _as_evidence(
    state: NodeState, dump: NetlinkDump | None, packets: Sequence[TracedPacket]
) -> tuple[TracedPacket, ...]:
    """Rules of iptables-nft have positions for handles in evidence; the kernel's trace has the kernel's handles."""
    ruleset = state.ruleset
    if dump is None or not isinstance(ruleset, CombinedRuleset):
        return tuple(packets)
    translated = {place for place, kind in ruleset.kinds().items() if kind == IPTABLES_NFT}
    positions = _Positions(dump)
    return tuple(
        replace(
            packet,
            events=tuple(
                replace(event, handle=positions.of(event.family, event.table, event.chain).get(event.handle))
                if event.handle is not None and (event.family, event.table) in translated
                else event
                for event in packet.events
            ),
        )
        for packet in packets
    )


class _Positions:
    """Positions of rules by the kernel's handle, chain by chain."""

    def __init__(self, dump: NetlinkDump) -> None:
        self._kernel = KernelRuleset(dump)
        self._known: dict[tuple[str, str, str], Mapping[int, int]] = {}

    def of(self, family: str, table: str, chain: str) -> Mapping[int, int]:
        place = (family, table, chain)
        if place not in self._known:
            rules = self._kernel.rules(*place) or ()
            self._known[place] = {rule.handle: number for number, rule in enumerate(rules, 1)}
        return self._known[place]
