"""The second and third witness: counters, traced packets and probes on every node of a flow, at the same time."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.activity import say
from calico_debug.agent.probe import LONGEST as PROBE_SECONDS
from calico_debug.agent.watch import Watch
from calico_debug.errors import EvidenceError
from calico_debug.explain.counted import places
from calico_debug.explain.observed import flow_tuples
from calico_debug.explain.packet_story import flow_ends
from calico_debug.explain.phrases import AT_CONNECT
from calico_debug.explain.witnesses import Gathered
from calico_debug.model.explanation import Witness
from calico_debug.model.observation import Observation, ProbeReport
from calico_debug.state.combined import IPTABLES_LEGACY, IPTABLES_NFT, CombinedRuleset
from calico_debug.state.dataplane import EBPF, IPTABLES
from calico_debug.state.node import NodeState
from calico_debug.state.ruleset import KernelRuleset
from calico_debug.walk.bpf_services import CONNECT_FAILS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.agent.instruments import Instruments, Observing
    from calico_debug.evidence.source import NetlinkDump, NodeEvidence
    from calico_debug.explain.observed import Namer
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.observation import FlowTuple, TracedPacket, Wanted


START_SECONDS = 10.0
"""How long other nodes may take until they observe, too."""


class Post:
    """One node of the flow while witnesses are gathered: `count`, `observe`, `start`, perhaps `probe`, then `finish`.
    Closed at the end.

    What fails on this node is told by what `finish` gives, and keeps no other node from being asked.
    """

    def __init__(
        self, node: NodeEvidence, explanation: FlowExplanation, wanted: Wanted, name: Namer, instruments: Instruments
    ) -> None:
        """``name`` names the node's rules. Nothing is touched yet."""
        self._node = node
        self._explanation = explanation
        self._wanted = wanted
        self._name = name
        self._instruments = instruments
        self._state = NodeState(node)
        self._flows = flow_tuples(explanation, node.name)
        self._watch: Watch | None = None
        self._observing: Observing | None = None
        self._refusal = ""
        self._begun = 0.0

    @property
    def name(self) -> str:
        """The node's name."""
        return self._node.name

    @property
    def is_source(self) -> bool:
        """Whether the flow starts on this node."""
        return self._explanation.source.node == self._node.name

    def count(self) -> None:
        """Read the counters. Raises `EvidenceError`."""
        if self._wanted.watch is not None or self._wanted.probe:
            interfaces = _program_interfaces(self._state, self._explanation)
            self._watch = Watch(self._node, places(self._explanation, self._node.name), interfaces)

    def observe(self) -> None:
        """Begin to observe; packets are seen from its return on. Raises `EvidenceError`."""
        wanted = self._wanted
        if wanted.observe is None:
            return
        try:
            self._observe(wanted.observe + START_SECONDS + (PROBE_SECONDS if wanted.probe else 0.0))
        except EvidenceError as error:
            if self._watch is None:
                raise
            self._refusal = f"{self._node.name}: {error}"

    def start(self) -> None:
        """Let the time that is wanted pass from now on."""
        self._begun = time.monotonic()

    def _observe(self, seconds: float) -> None:
        self._refusal = _no_trace(self._state, self._explanation)
        if not self._refusal:
            self._observing = self._instruments.trace_rules(self._flows, seconds)
            return
        try:
            self._observing = self._instruments.watch_packets(self._state, flow_ends(self._explanation), seconds)
            self._refusal = ""
        except EvidenceError as error:
            self._refusal = f"{self._refusal}; nor can packets be watched at the interfaces: {error}"

    def probe(self) -> ProbeReport:
        """Send probes, if the flow starts on this node and no connection of anybody's is in the way."""
        source = self._explanation.source
        words = f"{source.interface} of {self._node.name}" if source.interface else self._node.name
        error = ""
        if not self.is_source:
            place = f"on {source.node}" if source.node else "outside of the cluster, or on a node that is not known"
            error = f"the flow starts {place}: run there, or send a packet by hand and use --observe"
        elif self._explanation.new_connection is not None:
            error = "the connection exists, and a probe would break it: leave out the source port"
        elif (decision := self._explanation.decision) is not None and CONNECT_FAILS in decision.detail:
            error = "a process is refused as it connects, and sends no packet that could be tried"
        elif _is_chosen_at_connect(self._explanation) and len(self._explanation.backends) > 1:
            error = "the backend is chosen as a process connects, and may be any: ask for one by its address"
        if error:
            return ProbeReport(0, words, self._flows[0], error=error)
        return self._instruments.probe(_as_sent(self._flows[0], self._explanation), source.interface, words)

    def finish(self, report: ProbeReport | None, *, probed_here: bool) -> Gathered:
        """Wait until what is wanted has passed, and give what was seen. Raises `EvidenceError`."""
        wanted = self._wanted
        seen: Observation | Witness | None = None
        if self._observing is not None and wanted.observe is not None:
            seen = self._observing.finish(max(0.0, wanted.observe - (time.monotonic() - self._begun)))
        if wanted.watch is not None:
            time.sleep(max(0.0, wanted.watch - (time.monotonic() - self._begun)))
        watched = self._watch.finish() if self._watch is not None else None
        observation = seen if isinstance(seen, Observation) else None
        if observation is not None:
            packets = _as_evidence(self._state, self._node.nftables, observation.packets)
            observation = replace(observation, packets=packets)
        return Gathered(
            self._node.name,
            {index: link.name for index, link in self._state.interfaces_by_index.items()},
            self._name,
            watched,
            observation,
            report,
            self._refusal,
            seen if isinstance(seen, Witness) else None,
            probed_here,
            () if self.is_source else tuple(name for name, link in self._state.interfaces.items() if link.xdp),
        )

    def close(self) -> None:
        """Let everything go."""
        if self._observing is not None:
            self._observing.close()


def gather(posts: Sequence[Post], wanted: Wanted) -> tuple[list[Gathered], dict[str, str]]:
    """Do what is wanted on every node at the same time: what was seen, and of nodes where that failed, why.

    Counters of every node are read before anything else begins, which takes its time where there are many, and after
    everything has ended; every node observes before the time that is wanted begins, and before a probe leaves. Whatever
    ends this early, nothing of it stays on a node.
    """
    failed: dict[str, str] = {}
    gathered: list[Gathered] = []
    with ExitStack() as stack:
        for post in posts:
            stack.callback(post.close)
        begun = _each(_each(posts, Post.count, failed), Post.observe, failed)
        for post in begun:
            post.start()
        if seconds := max(wanted.observe or 0, wanted.watch or 0):
            say(f"watching {', '.join(post.name for post in begun)} from now on for {seconds:g} s")
        prober = next((post for post in begun if post.is_source), begun[0] if begun else None)
        report = prober.probe() if wanted.probe and prober is not None else None
        for post in begun:
            try:
                gathered.append(post.finish(report, probed_here=post is prober))
            except EvidenceError as error:
                failed[post.name] = str(error)
    return gathered, failed


def _is_chosen_at_connect(explanation: FlowExplanation) -> bool:
    return any(step.detail.endswith(AT_CONNECT) for step in explanation.steps if step.stage == "service")


def _as_sent(flow: FlowTuple, explanation: FlowExplanation) -> FlowTuple:
    """The ends of packets as the flow's sender makes them: to the backend, where it is chosen as a process connects."""
    if not explanation.backends or not _is_chosen_at_connect(explanation):
        return flow
    backend = explanation.backends[0]
    return replace(flow, destination=ip_address(backend.ip), destination_port=backend.port)


def _each(posts: Sequence[Post], do: Callable[[Post], None], failed: dict[str, str]) -> list[Post]:
    """Those of the nodes where it can be done."""
    done = []
    for post in posts:
        try:
            do(post)
        except EvidenceError as error:
            failed[post.name] = str(error)
        else:
            done.append(post)
    return done


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
