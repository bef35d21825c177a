"""The third witness: packets of the flow, traced through the rules, and answers to probes."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.explain.counted import STOPS, place_of
from calico_debug.explain.packet_story import NOTHING_SEEN
from calico_debug.model.explanation import Witness
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.observation import FlowTuple, RulePlace
from calico_debug.policy.chains import ChainKind, chain_role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.observation import Observation, ProbeReport, TracedPacket, TraceEvent

Namer = Callable[["TracedPacket", "TraceEvent"], str]
"""A rule that a packet met, for people: its policy where it has one."""

OPENED = frozenset({"syn-ack", "echo reply", "udp answer"})
"""Answers that only the destination gives."""
REFUSAL = "reset"
MOST_TUPLES = 128
"""Of a service with more backends on one node, the others are not observed there."""
_TCP_SYN, _TCP_ACK = 0x02, 0x10
_SILENT_BY_NATURE = frozenset({17})
"""Protocols whose packets need no answer."""


def flow_tuples(explanation: FlowExplanation, node: str) -> tuple[FlowTuple, ...]:
    """The flow as it may come to a node: as it was sent, and translated on another node to a backend on this one.

    What is translated on the node itself is followed by the connection's original direction.
    """
    protocol = explanation.protocol
    number = PROTOCOL_NUMBERS.get(protocol, int(protocol) if protocol.isdigit() else 0)
    source, port = ip_address(explanation.source.ip), explanation.source.port
    targets = [(explanation.destination.ip, explanation.destination.port)]
    if explanation.source.node != node:
        targets += [(backend.ip, backend.port) for backend in explanation.backends if backend.node in (node, "")]
    found = dict.fromkeys(FlowTuple(number, source, ip_address(ip), port, to) for ip, to in targets)
    return tuple(found)[:MOST_TUPLES]


def renamed(explanation: FlowExplanation, node: str) -> str:
    """What to know where no packet of the flow is seen on a node that gets them from another address, which is that of
    other flows, too; "" where that is not so.
    """
    there = next((number for number, step in enumerate(explanation.steps) if step.node == node), None)
    if there is None:
        return ""
    before = [step for step in explanation.steps[:there] if step.action == "masqueraded" and not step.hypothetical]
    return f" ({before[-1].detail} on {before[-1].node}: others have that, too)" if before else ""


def rejects(explanation: FlowExplanation, event: TraceEvent) -> bool | None:
    """Whether the rule of an event answers what it drops; None when the explanation does not know the rule."""
    place = event_place(event)
    for step in explanation.steps:
        if place_of(step.evidence) == place and step.action in ("denied", "rejected"):
            return step.action == "rejected"
    if explanation.decision is not None and place_of(explanation.decision.evidence) == place:
        return explanation.verdict == "rejected"
    return None


def event_place(event: TraceEvent) -> RulePlace:
    """Where the rule of an event stands, as evidence writes it."""
    return RulePlace(f"{event.family} {event.table}", event.chain, event.handle)


def asked(observation: Observation, probe: ProbeReport | None) -> list[TracedPacket]:
    """The packets that the question is about: the probes where there are any, else all of the flow's direction."""
    requests = [packet for packet in observation.packets if not packet.reply]
    if probe is None or not probe.sent:
        return requests
    # What closes a connection that a probe opened is none itself.
    requests = [packet for packet in requests if opens(packet)]
    if probe.ends.source_port is None:
        return requests
    return [p for p in requests if p.headers is not None and p.headers.source_port == probe.ends.source_port]


class Observed:
    """Says what was observed. ``verdict`` is "undetermined" where that settles nothing."""

    def __init__(
        self,
        explanation: FlowExplanation,
        node: str,
        interfaces: dict[int, str],
        name: Namer,
        observation: Observation | None,
        probe: ProbeReport | None,
        watched: bool = False,
    ) -> None:
        """``interfaces`` names the node's interfaces by index; an observation or a probe is there. ``watched`` tells
        that packets are watched at the interfaces, too.
        """
        self._explanation = explanation
        self._node = node
        self._interfaces = interfaces
        self._name = name
        self._observation = observation
        self._probe = probe if probe is not None and not probe.error else None
        self._hint = "" if watched else ": --observe tells"
        self.seen = 0
        """Packets of the flow that were seen."""

    def witness(self) -> Witness:
        """The witness."""
        observation = self._observation
        if self._probe is not None and not self._probe.sent:
            # The sender is told at once; for a way that is missing the prediction calls that denied, too.
            verdict = self._explanation.verdict if self._explanation.verdict in STOPS else "rejected"
            return Witness(verdict, self._node, f"probe packet {', '.join(self._probe.answers)}", self._probe.at)
        at = observation.ended if observation is not None else ""
        if observation is None:
            verdict, detail = self._answered()
            return Witness(verdict, self._node, detail, self._probe.at if self._probe is not None else "")
        packets = asked(observation, self._probe)
        self.seen = len(packets)
        if not packets:
            verdict, detail = self._nothing(observation)
        else:
            verdict, detail = self._traced(observation, packets)
        return Witness(verdict, self._node, detail, at)

    # ------------------------------------------------------------------------------------------------------ answers

    def _answered(self) -> tuple[str, str]:
        """What the answers to probes alone say."""
        probe = self._probe
        assert probe is not None
        sent = _probes(probe.sent)
        answers = dict.fromkeys(probe.answers)
        if any(answer in OPENED for answer in answers):
            return "allowed", f"{sent} answered by {probe.answered_by}: {', '.join(answers)}"
        if REFUSAL in answers or any(answer.startswith("icmp") for answer in answers):
            text = f"{sent} answered by {probe.answered_by}: {', '.join(answers)}"
            if probe.answered_by == str(probe.ends.destination) and self._explanation.verdict != "rejected":
                return "undetermined", f"{text}; nothing may listen there, or a rule refuses{self._hint}"
            return "rejected", text
        if probe.ends.protocol in _SILENT_BY_NATURE:
            return "undetermined", f"{sent} got no answer, which may be so by nature{self._hint}"
        return "denied", f"{sent} got no answer"

    def _answer_words(self) -> str:
        """The answer to probes in a few words behind what the trace says."""
        if self._probe is None:
            return ""
        if not self._probe.answers:
            return ", no answer"
        return f", answer {', '.join(dict.fromkeys(self._probe.answers))} from {self._probe.answered_by}"

    # -------------------------------------------------------------------------------------------------------- traces

    def _nothing(self, observation: Observation) -> tuple[str, str]:
        if self._probe is None:
            elsewhere = renamed(self._explanation, self._node)
            return "undetermined", f"{NOTHING_SEEN} on {self._node}{elsewhere}"
        sent = _probes(self._probe.sent)
        if observation.lost:
            return "undetermined", f"{sent} not seen, but the kernel lost events"
        if elsewhere := renamed(self._explanation, self._node):
            return "undetermined", f"{sent} not looked for{elsewhere}{self._answer_words()}"
        return "undetermined", f"{sent} did not come to the node's rules{self._answer_words()}"

    def _traced(self, observation: Observation, packets: Sequence[TracedPacket]) -> tuple[str, str]:
        outcomes: dict[tuple[str, str], int] = {}
        for packet in packets:
            outcome = self._outcome(packet, observation.lost)
            outcomes[outcome] = outcomes.get(outcome, 0) + 1
        what = "probe packet" if self._probe is not None else "packet"
        told = "; ".join(f"{_number(count, what)} {text}" for (_, text), count in outcomes.items())
        verdicts = {verdict for verdict, _ in outcomes}
        verdict = verdicts.pop() if len(verdicts) == 1 else "undetermined"
        if verdict == "allowed":
            verdict, more = self._answer(observation)
            told += more
        else:
            told += self._answer_words()
        if observation.full:
            told += f" (no more than {len(observation.packets)} packets were followed)"
        return verdict, told

    def _outcome(self, packet: TracedPacket, lossy: bool) -> tuple[str, str]:
        """Verdict and words for one packet of the request."""
        drop = packet.drop
        if drop is not None:
            rejected = rejects(self._explanation, drop)
            if rejected is None:
                refusals = self._probe.answers if self._probe is not None else ()
                rejected = any(answer == REFUSAL or answer.startswith("icmp") for answer in refusals)
            decision = self._explanation.decision
            there = decision is not None and place_of(decision.evidence) == event_place(drop)
            where = "there" if there and drop.handle is not None else f"by {self._name(packet, drop)}"
            return ("rejected", f"rejected {where}") if rejected else ("denied", f"dropped {where}")
        match packet.ending:
            case "delivered":
                return "allowed", f"delivered to {self._node} itself"
            case "sent":
                return "allowed", f"sent out of {self._interface(packet)}"
        last = packet.hooks[-1] if packet.hooks else "the start"
        if lossy:
            return "undetermined", f"last seen at {last}, and the kernel lost events"
        refused = self._probe is not None and any(answer.startswith("icmp") for answer in self._probe.answers)
        return (
            "rejected" if refused else "denied",
            f"lost behind {last}: no rule of nftables dropped it, so routing, or rules of iptables-legacy, did",
        )

    def _answer(self, observation: Observation) -> tuple[str, str]:
        """The request got through this node: what of the way beyond, and the way back."""
        replies = [packet for packet in observation.packets if packet.reply]
        dropped = next((packet for packet in replies if packet.drop is not None), None)
        if dropped is not None and dropped.drop is not None:
            return "denied", f"; its answer dropped by {self._name(dropped, dropped.drop)}"
        through = any(packet.ending in ("sent", "delivered") for packet in replies)
        words = self._answer_words()
        if through and self._probe is not None and not self._probe.answers:
            return "undetermined", f", answers seen on {self._node}, none of which came to the sender"
        if through:
            return "allowed", words or ", answers seen"
        if self._probe is not None and any(answer in OPENED for answer in self._probe.answers):
            return "allowed", words
        if self._ends_here(observation):
            return "allowed", words or ", no answer seen"
        return "undetermined", f"{words or ', no answer seen'}: what happened beyond is not visible from {self._node}"

    def _ends_here(self, observation: Observation) -> bool:
        """Whether every request came to an end that is on this node: the node itself, or a workload's interface."""
        return all(
            packet.ending == "delivered" or self._reached_workload(packet) for packet in asked(observation, self._probe)
        )

    def _reached_workload(self, packet: TracedPacket) -> bool:
        """Whether the packet left by the destination's interface, or by one whose own chain it went through."""
        interface = self._interface(packet)
        if interface == self._explanation.destination.interface:
            return True
        roles = (chain_role(event.chain) for event in packet.events)
        return any(role and role.kind is ChainKind.WORKLOAD and role.subject == interface for role in roles)

    def _interface(self, packet: TracedPacket) -> str:
        index = packet.output_index
        return self._interfaces.get(index, f"interface {index}") if index is not None else "an interface"


def opens(packet: TracedPacket) -> bool:
    """Whether a packet may open a connection: of TCP, a SYN alone."""
    headers = packet.headers
    if headers is None or headers.flags is None:
        return True
    return headers.flags & (_TCP_SYN | _TCP_ACK) == _TCP_SYN


def _number(count: int, what: str) -> str:
    return what if count == 1 else f"{count} {what}s"


def _probes(number: int) -> str:
    return "probe packet" if number == 1 else f"{number} probe packets"
