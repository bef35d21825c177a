"""How the parts of an explanation read: one wording for every human output."""

from __future__ import annotations

from calico_debug.model.explanation import (
    REASONS,
    VERDICTS,
    BackendOutcome,
    Decision,
    Evidence,
    FlowEnd,
    FlowExplanation,
    PolicyRef,
    RuleRef,
    Step,
)


def action_word(action: str) -> str:
    """A step's action as shown: what settles a flow stands out in capitals."""
    return action.upper() if action in VERDICTS else action


def address(ip: str, port: int | None) -> str:
    """``10.0.0.1``, ``10.0.0.1:80`` or ``[fd00::1]:80``."""
    if port is None:
        return ip
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def policy_name(policy: PolicyRef) -> str:
    """Kind and name: ``NetworkPolicy client/platform.client-egress``."""
    return f"{policy.kind} {policy.namespace}/{policy.name}" if policy.namespace else f"{policy.kind} {policy.name}"


def rule_name(rule: RuleRef) -> str:
    """The rule by its number; one whose number is not known is still said to be one."""
    return "a rule" if rule.index is None else f"rule {rule.index}"


def attribution(policy: PolicyRef | None, rule: RuleRef | None) -> str:
    """Policy and rule: ``GlobalNetworkPolicy security.quarantine, rule 1``; "" when there is neither."""
    parts = [policy_name(policy)] if policy else []
    if rule:
        parts.append(rule_name(rule))
    return ", ".join(parts)


def step_text(step: Step) -> str:
    """What a step's line says: the rule that matched and the detail, neither twice."""
    who = attribution(step.policy, step.rule)
    if not step.rule or (step.detail and who in step.detail):
        return step.detail or who
    full = f"{who} ({step.rule.action})" if step.rule.action else who
    return f"{full}: {step.detail}" if step.detail else full


def closest_text(step: Step) -> str:
    """The rule that came closest: its policy's short name, then what the step says of the rule."""
    if step.policy is None:
        return step.detail
    name = f"{step.policy.namespace}/{step.policy.name}" if step.policy.namespace else step.policy.name
    return f"{name}, {step.detail or attribution(None, step.rule)}"


def because(decision: Decision) -> str:
    """Why, from a decision: ``by`` the rule that decided, else the reason in words with tier and policy."""
    who = attribution(decision.policy, decision.rule)
    if decision.policy and decision.rule:
        return f"by {who}: {decision.detail}" if decision.detail and who not in decision.detail else f"by {who}"
    why = decision.detail or REASONS.get(decision.reason, decision.reason)
    scope = [f"tier {decision.tier}"] if decision.tier else []
    scope += [who] if who and who not in why else []
    return f"{why} ({', '.join(scope)})" if scope else why


def outcome(verdict: str, decision: Decision | None) -> str:
    """``DENIED on node1 by …`` or ``DENIED on node1: …``."""
    if decision is None:
        return verdict.upper()
    why, where = because(decision), f" on {decision.node}" if decision.node else ""
    return f"{verdict.upper()}{where}{' ' if why.startswith('by ') else ': '}{why}"


def pod_name(end: FlowEnd | BackendOutcome) -> str:
    """``namespace/name`` of an end's pod, "" when it has none."""
    return f"{end.pod.get('namespace', '')}/{end.pod.get('name', '')}" if end.pod else ""


def service_name(end: FlowEnd) -> str:
    """``namespace/name:port`` of an end's service, "" when it has none."""
    if not end.service:
        return ""
    port = end.service.get("port")
    name = f"{end.service.get('namespace', '')}/{end.service.get('name', '')}"
    return f"{name}:{port}" if port not in (None, "") else name


def evidence_text(evidence: Evidence | None) -> str:
    """Where in the kernel to look: table, chain, handle, rule id and counter, as far as they are known."""
    if evidence is None:
        return ""
    parts = [
        f"table {evidence.table}" if evidence.table else "",
        f"chain {evidence.chain}" if evidence.chain else "",
        f"handle {evidence.handle}" if evidence.handle is not None else "",
        f"rule id {evidence.rule_id}" if evidence.rule_id else "",
        f"counter at {_packets(evidence.counter)}" if evidence.counter is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _packets(count: int) -> str:
    return "1 packet" if count == 1 else f"{count} packets"


def counted(number: int, word: str) -> str:
    """``1 flow``, ``2 flows``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def home(explanation: FlowExplanation) -> str:
    """The node that the header names: the one that decided, else the one where the flow starts."""
    if explanation.decision is not None:
        return explanation.decision.node
    return explanation.steps[0].node if explanation.steps else explanation.source.node
