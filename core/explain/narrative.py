"""One journey told: its verdict, the decision, and the steps in the order the packet met them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from calico_debug.explain.attribution import Attributor, evidence_of, profile_ref
from calico_debug.explain.bpf_answers import answers
from calico_debug.explain.bpf_closest import closest_step
from calico_debug.explain.bpf_policy import tell_policy, with_names
from calico_debug.explain.closest import closest_rule, tell
from calico_debug.explain.dataplane import dataplane_on
from calico_debug.explain.denials import cause_of
from calico_debug.explain.evaluation import ALLOWED, DENIED, EndpointVisit, TierVisit, endpoint_visits
from calico_debug.explain.hookorder import order_finding
from calico_debug.explain.kube_proxy import is_kube_proxy
from calico_debug.explain.phrases import AT_CONNECT, OUTSIDE_TIERS, end_of_tier, spot, undecided_tier
from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.explanation import Decision, Finding, RuleRef, Step
from calico_debug.model.routing import address_from_int
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment
from calico_debug.walk.bpf_policy import Verdict
from calico_debug.walk.context import (
    Matched,
    PassedUnasked,
    PolicyRan,
    Routed,
    Tracked,
    Translated,
    Tunnelled,
    Unrouted,
)
from calico_debug.walk.passage import DELIVERED, LOST, SENT, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calico_debug.explain.attribution import NamedPolicy
    from calico_debug.walk.bpf_outcomes import PolicyResult
    from calico_debug.walk.context import Denial, Event
    from calico_debug.walk.journey import Journey, Leg
    from calico_debug.walk.node import NodeWalker
    from calico_debug.walk.packet import Ends, Port

_ANSWER_TRACKED = "conntrack lets the answer through"
STATE_NAMES = {number: name for name, number in STATE_BITS.items()}

Namer: TypeAlias = "Callable[[int, int], str]"
"""(family, address) to a name for people, "" when there is none."""


@dataclass(slots=True)
class Narrative:
    """What one journey amounts to. ``backend`` is where service translation sent it, (address, port)."""

    verdict: str = "undetermined"
    decision: Decision | None = None
    steps: list[Step] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    backend: tuple[int, Port] | None = None


def narrate(
    journey: Journey, walkers: Mapping[str, NodeWalker], attributor: Attributor, name: Namer, with_steps: bool = True
) -> Narrative:
    """Tell a journey; without steps only the verdict, the decision and the backend are found out."""
    return _Narrator(journey, walkers, attributor, name, with_steps).tell()


class _Narrator:
    def __init__(
        self,
        journey: Journey,
        walkers: Mapping[str, NodeWalker],
        attributor: Attributor,
        name: Namer,
        with_steps: bool,
    ) -> None:
        self._journey = journey
        self._walkers = walkers
        self._attributor = attributor
        self._name = name
        self._with_steps = with_steps
        self._told = Narrative()
        self._accepted: Decision | None = None

    def tell(self) -> Narrative:
        told, journey = self._told, self._journey
        for leg in journey.legs:
            self._leg(leg)
        if told.decision is None:
            self._conclude()
        told.findings.extend(Finding("assumption", "info", assumed) for assumed in journey.assumed)
        for step in answers(journey):
            self._step(step)
        return told

    # ------------------------------------------------------------------------------------------------- conclusions

    def _conclude(self) -> None:
        """Nothing denied: the flow arrived and was answered, or the evidence ends before that."""
        told, journey = self._told, self._journey
        last = journey.legs[-1].made.node if journey.legs else ""
        stopped = journey.stopped if not journey.arrived else journey.reply_stopped
        if not journey.arrived or stopped:
            detail = stopped or "the walk did not get to the destination"
            told.decision = Decision(last, self._dataplane(last), "missing-evidence", detail=detail)
            return
        if journey.untranslated is not None:
            self._untranslated(journey.untranslated)
            return
        told.verdict = "allowed"
        first = journey.legs[0].made
        if self._accepted is not None:
            told.decision = self._accepted
        elif not first.arrived and journey.arrived == "workload" and journey.place and journey.place.node == first.node:
            told.decision = Decision(
                first.node,
                self._dataplane(first.node),
                "host-to-own-pod",
                detail="a node's traffic to its own pods is not policed",
            )
        else:
            told.decision = Decision(
                first.node,
                self._dataplane(first.node),
                "no-policy",
                detail="no policy applies to either end on this path",
            )

    def _untranslated(self, leg: Leg) -> None:
        """The answer passes the node by that translated its request."""
        node, family = leg.made.node, leg.made.packet.family
        event = next(e for e in leg.made.trace.events if isinstance(e, Translated) and e.side == "dst")
        asked, came = (spot(family, end.destination, end.destination_port) for end in (event.before, event.after))
        detail = _UNTRANSLATED.format(node=node, asked=asked, came=came)
        evidence = evidence_of(event.rule) if event.rule is not None else None
        decision = Decision(node, self._dataplane(node), "untranslated", detail=detail, evidence=evidence)
        self._decide("denied", decision)
        self._step(Step(node, "reply", "denied", detail, evidence=evidence))

    def _accept(self, decision: Decision) -> None:
        """Remember what let the packet on last; that nobody had anything against it says less than a rule that did."""
        if self._accepted is None or decision.reason != "no-policy":
            self._accepted = decision

    def _decide(self, verdict: str, decision: Decision) -> None:
        if self._told.decision is None:
            self._told.verdict, self._told.decision = verdict, decision

    def _dataplane(self, node: str) -> str:
        return dataplane_on(node, self._walkers)

    # --------------------------------------------------------------------------------------------------------- legs

    def _leg(self, leg: Leg) -> None:
        made = leg.made
        visits = {visit.position: visit for visit in endpoint_visits(made.trace.events)}
        settled_before = self._told.decision is not None
        denials = {denial.position: denial for denial in made.trace.denials}
        current: EndpointVisit | None = None
        for position, event in enumerate(made.trace.events):
            if (visit := visits.get(position)) is not None:
                current = visit
                self._visit(leg, visit)
            self._event(leg, event)
            if (denial := denials.pop(position + 1, None)) is not None:
                self._denied(leg, denial, current)
        for denial in denials.values():  # the policy of a base chain has no rule and so no event
            self._denied(leg, denial, current)
        if made.ending == UNDECIDED and not settled_before:
            reason = "missing-evidence" if made.trace.missing else "not-understood"
            why, hypothetical = made.trace.undecided, made.trace.hypothetical
            if not hypothetical:
                self._decide("undetermined", Decision(made.node, self._dataplane(made.node), reason, detail=why))
            self._step(Step(made.node, "netfilter", "undetermined", why, hypothetical=hypothetical))
        if leg.reply and not leg.outer and made.ending in (SENT, DELIVERED):
            untracked = made.packet.tracking is not None and made.packet.tracking.untracked
            detail = "nothing stops the answer, which is not tracked" if untracked else _ANSWER_TRACKED
            self._step(Step(made.node, "reply", "passed", detail))

    def _event(self, leg: Leg, event: Event) -> None:
        node = leg.made.node
        match event:
            case Unrouted(reason, detail, answer):
                verdict = "rejected" if answer else "denied"
                if leg.made.ending == LOST and not leg.made.trace.hypothetical:
                    self._decide(verdict, Decision(node, self._dataplane(node), reason, detail=detail))
                action = "rejected" if answer else "dropped"
                self._step(Step(node, "routing", action, detail, hypothetical=leg.made.trace.hypothetical))
            case PolicyRan(result, hypothetical):
                self._program_ran(leg, result, hypothetical)
            case Matched():
                self._host_action(leg, event)
            case Tracked(tracking, _) if tracking.existing and self._walkers[node].datapath is not None:
                detail = OUTSIDE_TIERS["established"]
                self._accepted = Decision(node, self._dataplane(node), "established", detail=detail)
                self._step(Step(node, "conntrack", "established", detail))
            case PassedUnasked(reason, direction):
                detail = OUTSIDE_TIERS[reason]
                if not leg.made.trace.hypothetical:
                    self._accept(Decision(node, self._dataplane(node), reason, direction, detail=detail))
                self._step(Step(node, "host", ALLOWED, detail, direction, hypothetical=leg.made.trace.hypothetical))
            case _ if not self._with_steps or leg.reply:
                return
            case Tracked(_, state):
                known = STATE_NAMES.get(state, str(state))
                self._step(Step(node, "conntrack", known, _outer(leg, "the packet's connection")))
            case Routed(route, interface, local, hypothetical):
                way = "to the node itself" if local else f"out of {interface}"
                prefix = f" (route {route.destination})" if route is not None else ""
                self._step(Step(node, "routing", "routed", _outer(leg, f"{way}{prefix}"), hypothetical=hypothetical))
            case Translated():
                self._translated(leg, event)
            case Tunnelled(address, hypothetical):
                whose = self._name(leg.made.packet.family, address) or str(
                    address_from_int(leg.made.packet.family, address)
                )
                detail = f"the programs' own tunnel to {whose}, which has the backend"
                self._step(Step(node, "wire", "tunnelled", detail, hypothetical=hypothetical))

    def _program_ran(self, leg: Leg, result: PolicyResult, hypothetical: bool) -> None:
        """A policy program of the eBPF dataplane: its rules are the steps."""
        node = leg.made.node
        datapath = self._walkers[node].datapath
        assert datapath is not None
        result = with_names(result, self._attributor.section)
        told = tell_policy(result, node, self._attributor.index, datapath, hypothetical)
        for step in told.steps:
            self._step(replace(step, stage="reply") if leg.reply else step)
        if self._with_steps and result.denied:
            index, packet = self._attributor.index, leg.made.packet
            closest = closest_step(result, node, packet, index, datapath, self._name, hypothetical)
            if closest is not None:
                self._step(closest)
        if hypothetical:
            return
        self._told.findings.extend(result.findings)
        if result.denied:
            decision = told.decision
            detail = ": ".join(filter(None, ("the answer", decision.detail))) if leg.reply else decision.detail
            self._decide("denied", replace(decision, detail=detail))
        elif result.run.verdict is not Verdict.PASSED and not leg.reply:
            self._accept(told.decision)

    def _translated(self, leg: Leg, event: Translated) -> None:
        node, family = leg.made.node, leg.made.packet.family
        evidence = evidence_of(event.rule) if event.rule is not None else None
        if event.side == "dst":
            target = spot(family, event.after.destination, event.after.destination_port)
            known = self._name(family, event.after.destination)
            service = event.service or (event.rule is not None and is_kube_proxy(event.rule))
            origin = spot(family, event.before.destination, event.before.destination_port)
            asked = self._name(family, event.before.destination).removeprefix("service ")
            detail = f"{asked}{' ' if asked else ''}{origin} -> {target}{f' ({known})' if known else ''}"
            if event.at_connect:
                detail = f"{detail}, {AT_CONNECT}"
            stage = "service" if service else "nat"
            self._step(Step(node, stage, "translated", detail, evidence=evidence, hypothetical=event.hypothetical))
        else:
            before, after = address_from_int(family, event.before.source), address_from_int(family, event.after.source)
            detail = f"source {before} becomes {after}"
            self._step(Step(node, "nat", "masqueraded", detail, evidence=evidence, hypothetical=event.hypothetical))

    def _host_action(self, leg: Leg, event: Matched) -> None:
        """DefaultEndpointToHostAction lets a pod's packet in to its own node."""
        role = chain_role(event.rule.chain)
        if role is None or role.kind is not ChainKind.WORKLOAD_TO_HOST or event.verdict is None:
            return
        if parse_comment(event.rule.comment).kind is not CommentKind.HOST_ACTION or leg.reply or leg.outer:
            return
        accepts = getattr(event.verdict, "kind", "") in ("accept", "return")
        if accepts:
            detail = OUTSIDE_TIERS["host-default"]
            evidence = evidence_of(event.rule)
            node, hypothetical = leg.made.node, event.hypothetical
            self._step(Step(node, "host", "accepted", detail, evidence=evidence, hypothetical=hypothetical))
            if not hypothetical:
                self._accepted = Decision(
                    node, self._dataplane(node), "host-default", "egress", detail=detail, evidence=evidence
                )

    # -------------------------------------------------------------------------------------------------------- visits

    def _visit(self, leg: Leg, visit: EndpointVisit) -> None:
        walker = self._walkers[leg.made.node]
        if leg.reply:
            return
        names = self._attributor.tiers(walker, visit.family, visit.table, visit.chain)
        for tier in visit.tiers:
            tier.name = names.get(id(tier.first), tier.name)
        if visit.outcome == ALLOWED and not visit.hypothetical:
            self._accept(self._visit_decision(leg, walker, visit))
        if not self._with_steps:
            return
        stage = visit.role.direction if visit.role.kind is ChainKind.WORKLOAD else "host"
        for tier in visit.tiers:
            self._tier_step(leg, walker, visit, tier, stage)
        if visit.outcome == ALLOWED and visit.reason != "rule":
            evidence = evidence_of(visit.rule)
            ref = profile_ref(visit.profile) if visit.reason == "profile" else None
            detail = OUTSIDE_TIERS[visit.reason].format(profile=visit.profile)
            self._step(
                Step(
                    leg.made.node,
                    stage,
                    ALLOWED,
                    detail,
                    visit.role.direction,
                    policy=ref,
                    evidence=evidence,
                    hypothetical=visit.hypothetical,
                )
            )

    def _tier_step(self, leg: Leg, walker: NodeWalker, visit: EndpointVisit, tier: TierVisit, stage: str) -> None:
        node, direction = leg.made.node, visit.role.direction
        action = tier.outcome or "no match"
        if tier.outcome == DENIED and visit.rejected:
            action = "rejected"
        ref = rule = None
        detail, evidence = "", evidence_of(tier.rule) if tier.rule is not None else None
        if tier.by is not None:
            named = self._policy(walker, visit, tier.by.chain)
            ref, rule = named.ref, named.rule_ref(tier.by.rule)
            evidence = evidence_of(tier.by.rule)
        elif tier.outcome == DENIED:
            detail = self._end_of_tier(walker, visit, tier)
        else:
            detail = undecided_tier(visit, tier)
        self._step(Step(node, stage, action, detail, direction, tier.name, ref, rule, evidence, visit.hypothetical))
        if tier.outcome == DENIED and tier.by is None:
            self._closest(leg, walker, visit, tier, stage)

    def _end_of_tier(self, walker: NodeWalker, visit: EndpointVisit, tier: TierVisit) -> str:
        return end_of_tier(
            visit.role.kind is ChainKind.WORKLOAD,
            [self._policy(walker, visit, policy.chain).ref for policy in tier.policies],
        )

    def _closest(self, leg: Leg, walker: NodeWalker, visit: EndpointVisit, tier: TierVisit, stage: str) -> None:
        denial = next((d for d in leg.made.trace.denials if d.rule is visit.rule), None)
        if denial is None:
            return
        policies = [self._policy(walker, visit, policy.chain) for policy in tier.policies]
        near = closest_rule(walker, policies, leg.made.packet, denial.ends)
        if near is None:
            return
        text = tell(near, leg.made.packet, denial.ends, self._name)
        index = near.policy.indices[near.position]
        group = near.policy.groups[near.position]
        self._step(
            Step(
                leg.made.node,
                stage,
                "closest",
                text,
                visit.role.direction,
                tier.name,
                near.policy.ref,
                RuleRef(group.action, index),
                evidence_of(group.main),
                visit.hypothetical,
            )
        )

    def _visit_decision(self, leg: Leg, walker: NodeWalker, visit: EndpointVisit) -> Decision:
        ref = rule = None
        tier_name = ""
        detail = OUTSIDE_TIERS.get(visit.reason, "").format(profile=visit.profile)
        evidence = evidence_of(visit.rule)
        tier = visit.tier
        if visit.reason == "rule" and tier is not None and tier.by is not None:
            named = self._policy(walker, visit, tier.by.chain)
            ref, rule, tier_name = named.ref, named.rule_ref(tier.by.rule), tier.name
            # What denied counts the drops; what allowed counts in the rule that matched.
            evidence = evidence_of(visit.rule if visit.outcome == DENIED else tier.by.rule)
        elif visit.reason == "end-of-tier" and tier is not None:
            tier_name = tier.name
            detail = self._end_of_tier(walker, visit, tier)
        elif visit.reason == "profile":
            ref = profile_ref(visit.profile)
        return Decision(
            leg.made.node,
            self._dataplane(leg.made.node),
            visit.reason,
            visit.role.direction,
            tier_name,
            ref,
            rule,
            detail,
            evidence,
        )

    def _policy(self, walker: NodeWalker, visit: EndpointVisit, chain: str) -> NamedPolicy:
        marks = self._attributor.marks(walker, visit.family, visit.table, visit.chain)
        return self._attributor.policy(walker, visit.family, visit.table, chain, marks)

    # ------------------------------------------------------------------------------------------------------- denials

    def _denied(self, leg: Leg, denial: Denial, visit: EndpointVisit | None) -> None:
        node = leg.made.node
        verdict = "rejected" if denial.reject is not None else "denied"
        if visit is not None and visit.outcome == DENIED and visit.rule is denial.rule:
            decision = self._visit_decision(leg, self._walkers[node], visit)
            if leg.later:
                decision = replace(decision, reason="ct-invalid", detail=_ANSWERED_ELSEWHERE)
            if visit.reason not in ("rule", "end-of-tier"):
                self._step(_denial_step(leg, decision, verdict, denial))
        else:
            cause = cause_of(denial)
            evidence = evidence_of(denial.rule, f"{denial.chain.family} {denial.chain.table}", denial.chain.name)
            direction = _direction(denial)
            detail = _outer(leg, cause.detail)
            decision = Decision(node, self._dataplane(node), cause.reason, direction, detail=detail, evidence=evidence)
            if leg.later:
                decision = replace(decision, reason="ct-invalid", detail=_ANSWERED_ELSEWHERE)
            self._step(_denial_step(leg, decision, verdict, denial))
        if leg.discovery:
            verdict, decision = "denied", replace(decision, reason="neighbour-discovery", detail=_CUT_DISCOVERY)
        if not denial.hypothetical:
            self._decide(verdict, decision)
            if self._with_steps and (finding := order_finding(self._walkers[node], leg.made)) is not None:
                self._told.findings.append(finding)

    def _step(self, step: Step) -> None:
        if self._with_steps:
            self._told.steps.append(step)


_ANSWERED_ELSEWHERE = (
    "the answer takes another way, so that conntrack has not seen it and finds the connection's next packet invalid: "
    "let requests and answers pass the same node"
)

_UNTRANSLATED = (
    "the answer comes to the client from {came} and not from {asked}, which it asked, since it does not pass {node}, "
    "which translated the request: masquerade there, or let requests and answers pass the same node"
)

_CUT_DISCOVERY = (
    "IPv6 neighbour discovery is cut between the nodes, so nothing crosses the link: the host endpoint's policy has to "
    "allow ICMPv6 types 135 and 136 both ways"
)


def _denial_step(leg: Leg, decision: Decision, verdict: str, denial: Denial) -> Step:
    stage = "conntrack" if leg.later else "reply" if leg.reply else decision.direction or "netfilter"
    return Step(
        leg.made.node,
        stage,
        verdict,
        decision.detail,
        decision.direction,
        decision.tier,
        decision.policy,
        decision.rule,
        decision.evidence,
        denial.hypothetical,
    )


def _direction(denial: Denial) -> str:
    """The pod's own view, where the chain has one."""
    for chain in reversed(denial.stack):
        role = chain_role(chain)
        if role is not None and role.direction:
            return role.direction
    return ""


def _outer(leg: Leg, text: str) -> str:
    if leg.discovery:
        return f"neighbour discovery: {text}"
    return f"tunnel packet: {text}" if leg.outer else text


def service_backend(journey: Journey) -> tuple[int, Port] | None:
    """Where destination translation sent the opening packet last, None when nothing translated it."""
    found: Ends | None = None
    for leg in journey.legs:
        if leg.reply or leg.outer:
            continue
        for event in leg.made.trace.events:
            if isinstance(event, Translated) and event.side == "dst":
                found = event.after
    return (found.destination, found.destination_port) if found is not None else None
