"""From what is meant to what the kernel is told to look for: ends of a flow, addresses of pods, or all drops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.packet_story import flow_ends
from calico_debug.explain.phrases import spot
from calico_debug.intent.decide import Intent
from calico_debug.model.flow import protocol_name
from calico_debug.model.packet_event import Ends, everything_of
from calico_debug.policy.identity import spellings
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.intent.model import Policy, PolicyKey
    from calico_debug.model.explanation import FlowExplanation, Step
    from calico_debug.model.routing import Address
    from calico_debug.model.subject import Subject

END_OF_TIER = "end-of-tier"
"""A value of ``decision.reason``: policies of a tier select the endpoint, and none of their rules matched."""
ALTERNATIVES = "alternatives"
"""Another: what the flow meets depends on something open, such as the backend."""
NAMED = 3
"""As many ends or pods are named in words."""


@dataclass(frozen=True, slots=True)
class NamedPolicy:
    """A policy that was named, with what of it tells whether it decides a flow. ``addresses`` are those of the
    endpoints that it selects on the node.
    """

    key: PolicyKey
    tier: str
    types: frozenset[str]
    addresses: frozenset[Address]

    def decides(self, explanation: FlowExplanation) -> str:
        """How it decides a flow, in words; "" when it does not."""
        decision = explanation.decision
        if decision is None:
            return ""
        step = allowed_before(explanation)
        known = decision.policy or (step.policy if step is not None else None)
        if known is not None and (known.kind, known.namespace, known.name) == tuple(self.key):
            return "decided by the captured policy"
        if decision.reason != END_OF_TIER or decision.tier != self.tier or decision.direction not in self.types:
            return ""
        end = explanation.source if decision.direction == "egress" else explanation.destination
        ips = {end.ip} if decision.direction == "egress" or not explanation.backends else set()
        ips |= {backend.ip for backend in explanation.backends} if decision.direction != "egress" else set()
        selected = {str(address) for address in self.addresses}
        return "decided at the end of the captured policy's tier" if ips and ips <= selected else ""


def allowed_before(explanation: FlowExplanation) -> Step | None:
    """The policy that let the flow go on, where it is open what becomes of it behind: a node whose evidence is not here
    is the usual case. None where backends fare differently: each has its own way, and steps are those of one.
    """
    decision = explanation.decision
    if explanation.verdict != "undetermined" or (decision is not None and decision.reason == ALTERNATIVES):
        return None
    steps = (one for one in reversed(explanation.steps) if one.policy and not one.hypothetical)
    return next((one for one in steps if one.action == "allowed"), None)


@dataclass(frozen=True, slots=True)
class Aim:
    """``ends`` are looked for, None for all drops; ``text`` says the same. ``explanation`` is the flow's prediction,
    ``policy`` the one that was named. ``notes`` are for the user.
    """

    ends: tuple[Ends, ...] | None
    text: str
    explanation: FlowExplanation | None = None
    policy: NamedPolicy | None = None
    notes: tuple[str, ...] = ()


Predict = Callable[[], "FlowExplanation"]
"""Explains the one flow that is watched. Raises `CalicoDebugError`."""


def find_aim(engine: Engine, subject: Subject, node: str, predict: Predict | None = None) -> Aim:
    """What to look for on ``node``; a flow's prediction is made by ``predict``, else from what ``engine`` has.

    Raises `CalicoDebugError` when a name is not known.
    """
    if subject.is_flow:
        return _flow(engine, subject, predict)
    if subject.pod:
        return _pod(engine, subject, node)
    if subject.policy:
        return _policy(engine, subject, node)
    return Aim(None, "all drops")


def _flow(engine: Engine, subject: Subject, predict: Predict | None) -> Aim:
    flow = Resolver(engine.cluster, engine.states).resolve(
        subject.source,
        subject.destination,
        protocol=subject.protocol,
        namespace=subject.namespace,
        via=subject.via,
    )
    notes: tuple[str, ...] = ()
    explanation = None
    try:
        explanation = predict() if predict is not None else engine.explain(flow)
        ends = flow_ends(explanation)
    except EvidenceError as error:
        # Packets are seen all the same, translated ones only as long as they are followed.
        notes = (f"no prediction: {error}",)
        source, target = flow.source, flow.destination
        ends = (Ends(flow.protocol, source.address, target.address, source.port or 0, target.port or 0),)
    first = ends[0]
    targets = " or ".join(_spot(one.destination, one.destination_port) for one in ends[:NAMED])
    text = f"{protocol_name(first.protocol)} {_spot(first.source, first.source_port)} -> {targets}"
    return Aim(ends, text, explanation, notes=notes)


def _pod(engine: Engine, subject: Subject, node: str) -> Aim:
    end = Resolver(engine.cluster, engine.states).find_end(subject.pod, subject.namespace)
    if end.service is not None or end.external or (end.node and end.pod is None):
        raise UsageError(f"--pod {subject.pod!r} is no pod: name one as ns/name, or by its address")
    if end.pod is not None and end.pod.host_network:
        raise UsageError(f"pod {subject.pod} has its node's addresses, so its packets cannot be told from the node's")
    notes: tuple[str, ...] = ()
    if end.node and end.node != node:
        notes = (f"{subject.pod} is on {end.node}: of its packets only those are seen that come by {node}",)
    name = f"{end.pod.namespace}/{end.pod.name}" if end.pod is not None else ""
    addresses = ", ".join(map(str, end.addresses))
    text = f"pod {name} ({addresses})" if name else f"pod {addresses}"
    return Aim(tuple(map(everything_of, end.addresses)), _what(subject, text), notes=notes)


def _policy(engine: Engine, subject: Subject, node: str) -> Aim:
    applicability = Intent(engine.cluster.cluster).applicability
    if not applicability.policies:
        why = "; ".join(engine.cluster.problems) or "name a cluster with --kubeconfig"
        raise EvidenceError(f"{engine.cluster.origin} has no policies, so {subject.policy!r} selects nothing: {why}")
    policy = _named(applicability.policies, subject, engine)
    selected = [(one, sure) for one, sure in applicability.selected_by(policy) if one.node == node]
    notes = []
    if policy.staged:
        notes.append(f"{policy.key} is staged: it decides nothing")
    if doubtful := [str(one) for one, sure in selected if not sure]:
        notes.append(f"{', '.join(doubtful[:NAMED])} may not be selected by {policy.key}: evidence does not tell")
    if without := [str(one) for one, _ in selected if not one.addresses]:
        notes.append(f"packets of {', '.join(without[:NAMED])} are not looked for: evidence has no address of it")
    if not selected:
        notes.append(f"{policy.key} selects nothing on {node} now")
    names = [str(one) for one, _ in selected]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    text = f"{policy.key}: {', '.join(names[:NAMED]) or 'no endpoint'}{more} on {node}"
    ends = tuple(everything_of(address) for one, _ in selected for address in one.addresses)
    addresses = frozenset(address for one, _ in selected for address in one.addresses)
    named = NamedPolicy(policy.key, policy.tier, frozenset(policy.types), addresses)
    return Aim(ends, _what(subject, text), policy=named, notes=tuple(notes))


def _named(policies: tuple[Policy, ...], subject: Subject, engine: Engine) -> Policy:
    """The policy that is meant by ``[KIND/][NS/]NAME``. Raises `UsageError`."""
    kinds = {policy.key.kind.lower() for policy in policies}
    kind, slash, rest = subject.policy.partition("/")
    kind, name = (kind.lower(), rest) if slash and kind.lower() in kinds else ("", subject.policy)
    wanted = {name} | ({f"{subject.namespace}/{name}"} if subject.namespace else set())
    found = [
        policy
        for policy in policies
        if wanted & spellings(policy.source) and (not kind or policy.key.kind.lower() == kind)
    ]
    if not found:
        raise UsageError(
            f"no policy is named {subject.policy!r} in {engine.cluster.origin}: name it as kind/ns/name or ns/name, or "
            "if it is global kind/name or name"
        )
    if len(found) > 1:
        raise UsageError(
            f"{subject.policy!r} could be {' or '.join(str(policy.key) for policy in found[:NAMED])}: name its kind, "
            "such as networkpolicy/ns/name"
        )
    return found[0]


def _what(subject: Subject, text: str) -> str:
    return f"drops of {text}" if subject.drops else text


def _spot(address: Address, port: int) -> str:
    return spot(address.version, int(address), port or None)
