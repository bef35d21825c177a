"""The three witnesses in one answer: who agrees, who dissents, and what the likely reason is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from calico_debug.explain.counted import counted
from calico_debug.explain.observed import Observed, asked, opens, renamed
from calico_debug.explain.packet_story import NONE_OPENS, NOTHING_SEEN
from calico_debug.explain.xdp import dropped_before
from calico_debug.model.explanation import Finding, Witness

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.explain.observed import Namer
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.observation import Observation, ProbeReport, Watched

OPEN = "undetermined"
KNOWN = "the packets are of a connection that conntrack knows already, which policy is not asked about again"


@dataclass(frozen=True, slots=True)
class Gathered:
    """What was gathered on one node; None for what was not asked for.

    ``interfaces`` names the node's interfaces by index, ``name`` a rule that a packet met. ``not_observed`` says why
    packets could not be traced although that was asked for. ``packets`` is what tracepoints showed instead of rules.
    ``probed_here`` tells that the probes left from this node, and not from another that was asked at the same time.
    ``xdp`` are interfaces with XDP programs, where packets come to this node.
    """

    node: str
    interfaces: Mapping[int, str]
    name: Namer
    watched: Watched | None = None
    observation: Observation | None = None
    probe: ProbeReport | None = None
    not_observed: str = ""
    packets: Witness | None = None
    probed_here: bool = True
    xdp: tuple[str, ...] = ()


def with_witnesses(
    explanation: FlowExplanation, gathered: Sequence[Gathered], failed: Mapping[str, str] = MappingProxyType({})
) -> FlowExplanation:
    """The explanation with the witnesses ``counted`` and ``observed`` and what follows from all three.

    ``gathered`` are the nodes in the flow's order; ``failed`` says of others why nothing could be gathered there. The
    verdict stays the predicted one: a dissent is a finding.
    """
    witnesses = dict(explanation.witnesses)
    findings = list(explanation.findings)
    counts: list[Witness] = []
    seen: list[Witness] = []
    for one in gathered:
        if one.watched is not None:
            count, found = counted(
                explanation, one.node, one.watched, one.observation, one.probe, dropped_before(one.xdp)
            )
            counts.append(count)
            findings.extend(found)
        findings.extend(_not_gathered(one))
        observed = _joined(_packets(explanation, one), _told(explanation, one))
        if observed is not None:
            seen.append(observed)
            findings.extend(_gaps(one.observation, one.node))
    findings.extend(Finding("not-observed", "warning", f"{node}: {why}") for node, why in failed.items())
    deciding = explanation.decision.node if explanation.decision is not None else ""
    if counts:
        witnesses["counted"] = together(counts, deciding)
    if seen:
        observed = witnesses["observed"] = together(seen, deciding)
        there = next((one for one in gathered if one.node == observed.node), gathered[0])
        findings.extend(_dissent(explanation, observed, there))
        findings.extend(_unconfirmed(explanation, observed))
    findings.extend(_agreement(explanation, witnesses, findings))
    return replace(explanation, witnesses=witnesses, findings=tuple(dict.fromkeys(findings)))


def together(parts: Sequence[Witness], deciding: str) -> Witness:
    """One witness of what was seen on several nodes: where those that can tell agree, that, as seen on the node that
    decides if it is one of them. Nodes have clocks of their own, so nothing is concluded from the order of times.
    """
    if len(parts) == 1:
        return parts[0]
    telling = [one for one in parts if one.verdict != OPEN]
    agreed = len({one.verdict for one in telling}) == 1
    first = next((one for one in telling if one.node == deciding), telling[0]) if agreed else parts[0]
    detail = "; ".join(f"on {one.node} {one.detail}" for one in parts)
    return Witness(telling[0].verdict if agreed else OPEN, first.node, detail, first.at, tuple(parts))


def _not_gathered(one: Gathered) -> list[Finding]:
    found = []
    if one.not_observed:
        found.append(Finding("not-observed", "warning", one.not_observed))
    if one.probe is not None and one.probe.error and one.probed_here:
        found.append(Finding("not-probed", "warning", f"no probe packet was sent: {one.probe.error}"))
    return found


def _told(explanation: FlowExplanation, one: Gathered) -> Witness | None:
    """What traced packets say, and where the probes left what their answers do."""
    answered = one.probe is not None and not one.probe.error and one.probed_here
    if one.observation is None and not answered:
        return None
    names, watched = dict(one.interfaces), one.packets is not None
    observed = Observed(explanation, one.node, names, one.name, one.observation, one.probe, watched)
    witness = observed.witness()
    if one.observation is None or observed.seen:
        return witness
    return replace(witness, detail=f"{witness.detail}{dropped_before(one.xdp)}")


def _packets(explanation: FlowExplanation, one: Gathered) -> Witness | None:
    """What tracepoints showed, with the reason why that may be nothing."""
    if one.packets is None or not one.packets.detail.startswith(NOTHING_SEEN):
        return one.packets
    more = f"{renamed(explanation, one.node)}{dropped_before(one.xdp)}"
    return replace(one.packets, detail=f"{one.packets.detail}{more}")


def _joined(packets: Witness | None, told: Witness | None) -> Witness | None:
    """What tracepoints and answers to probes say together; where they contradict each other, that is open."""
    if packets is None or told is None:
        return packets or told
    verdicts = {one.verdict for one in (packets, told)} - {OPEN}
    verdict = verdicts.pop() if len(verdicts) == 1 else OPEN
    return Witness(verdict, packets.node, f"{packets.detail}; {told.detail}", packets.at)


def _gaps(observation: Observation | None, node: str) -> list[Finding]:
    if observation is None or not observation.lost:
        return []
    return [
        Finding(
            "observation-incomplete",
            "warning",
            f"the kernel of {node} had more trace events than could be read: packets were missed; observe again, or "
            "for less time",
        )
    ]


def _dissent(explanation: FlowExplanation, observed: Witness, gathered: Gathered) -> list[Finding]:
    """The packets fared otherwise than predicted."""
    if OPEN in (observed.verdict, explanation.verdict) or observed.verdict == explanation.verdict:
        return []
    if (explanation.verdict, observed.verdict) == ("rejected", "denied"):
        message = (
            f"stopped on {observed.node} as predicted, but no refusal came back to the sender ({observed.detail}): the "
            "kernel limits how many it sends"
        )
        return [Finding("refusal-not-seen", "info", message)]
    likely = _likely_reason(observed, gathered)
    return [
        Finding(
            "witness-dissents",
            "error",
            f"predicted {explanation.verdict}, observed {observed.verdict} on {observed.node} ({observed.detail}): "
            f"{likely}",
        )
    ]


def _likely_reason(observed: Witness, gathered: Gathered) -> str:
    observation = gathered.observation
    requests = asked(observation, gathered.probe) if observation is not None else []
    if requests and not any(opens(packet) for packet in requests):
        return KNOWN
    if gathered.packets is not None and NONE_OPENS in gathered.packets.detail:
        return KNOWN
    if gathered.packets is not None and gathered.packets.verdict == observed.verdict == "denied":
        return "it may be no policy that drops there; else the rules have changed since they were read: trace again"
    if observation is None and observed.verdict == "denied":
        return "the destination may be down, or another node or network on the way dropped it; --observe tells"
    if any(packet.drop is not None for packet in requests):
        return "the rules may have changed since they were read, or the prediction erred; trace again"
    if any(packet.ending == "lost" for packet in requests):
        return "something outside nftables took the packet; look at the routes, rp_filter and iptables-legacy"
    return "the rules may have changed since they were read, or the prediction erred; trace again"


def _unconfirmed(explanation: FlowExplanation, observed: Witness) -> list[Finding]:
    if explanation.verdict != "allowed" or observed.verdict != OPEN:
        return []
    message = f"allowed is predicted, and observation did not confirm it: {observed.detail}"
    return [Finding("not-confirmed", "warning", message)]


def _agreement(
    explanation: FlowExplanation, witnesses: Mapping[str, Witness], findings: list[Finding]
) -> list[Finding]:
    """All that settle something say the same; where the prediction is open, what the others say is all there is."""
    if any(finding.code in ("witness-dissents", "refusal-not-seen") for finding in findings):
        return []
    others = {name: w.verdict for name, w in witnesses.items() if name != "predicted" and w.verdict != OPEN}
    if not others:
        return []
    if explanation.verdict == OPEN:
        return [
            Finding("settled-by-packets", "info", f"the prediction is open; {name}, packets of the flow were {verdict}")
            for name, verdict in others.items()
        ]
    *names, last = others
    return [
        Finding(
            "witnesses-agree", "info", f"{', '.join(['predicted', *names])} and {last} agree: {explanation.verdict}"
        )
    ]
