"""Explanations from rules that belong together: a live node's may change while one chain is read after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.model.explanation import Decision

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.state.resolve import Resolver

ATTEMPTS = 5
"""Explanations begun anew; reading takes about 0.1 s, and kube-proxy and Felix write at most about once a second."""


def explain_settled(
    engine: Engine, resolve: Callable[[Resolver], Flow], *, attempts: int = ATTEMPTS
) -> tuple[Engine, Flow, FlowExplanation]:
    """The explanation of the flow that ``resolve`` finds; and that flow, and the engine for the next question.

    Where the rules that an engine has read are not those of the kernel any more, another takes its place. When they
    changed during every attempt, attempts that agree are an answer (with the finding "rules-changed"), others are
    undetermined. Raises what `resolve` and `Engine.explain` raise.
    """
    found: list[FlowExplanation] = []
    while True:
        if engine.rules_changed:
            engine = engine.anew()
        flow = resolve(engine.resolver)
        explanation = engine.explain(flow)
        if not engine.rules_changed:
            return engine, flow, explanation
        found.append(explanation)
        if len(found) >= attempts:
            return engine, flow, _unsettled(found)


def _unsettled(found: Sequence[FlowExplanation]) -> FlowExplanation:
    last = found[-1]
    verdicts = dict.fromkeys(each.verdict for each in found)
    if len(verdicts) == 1:
        return last
    detail = f"the rules changed while they were read, {len(found)} times, and the answers were {', '.join(verdicts)}"
    node, dataplane = (last.decision.node, last.decision.dataplane) if last.decision else ("", "")
    return replace(last, verdict="undetermined", decision=Decision(node, dataplane, "alternatives", detail=detail))
