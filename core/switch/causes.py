"""Why the same flow fares differently in another dataplane, where that is known to be the dataplane's doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.switch.ends import same_pods

if TYPE_CHECKING:
    from calico_debug.switch.model import Answer, Question, Way

NO_ENDPOINTS = (
    "the service has no endpoints that may be used: eBPF refuses before policy is asked; kube-proxy and policy share "
    "hooks, and the first of them decides"
)
BOTH_WITHOUT = "both find no endpoint that may be used; one of them refuses, the other drops in silence"
ONE_WITHOUT = "one finds an endpoint that may be used and the other none: the service's traffic policy is Local"
TO_ITSELF = (
    "the pod reaches itself through a service: with netfilter its ingress policy is asked about the node's address, "
    "eBPF asks nothing"
)


def cause_of(question: Question, before: Answer, after: Answer) -> str:
    """One sentence; "" where nothing beyond the two decisions is known to make the difference."""
    without = [one.decision is not None and one.decision.reason == "no-endpoints" for one in (before, after)]
    if all(without):
        return BOTH_WITHOUT
    if any(without):
        translated = any(way.verdict == "allowed" and way.backend for one in (before, after) for way in one.ways)
        return ONE_WITHOUT if translated else NO_ENDPOINTS
    if _to_itself(question, before) or _to_itself(question, after):
        return TO_ITSELF
    old, new = _sources(before), _sources(after)
    if old and new and old.keys() != new.keys():
        return f"policy at the far end sees {_shown(new)} as the source, and saw {_shown(old)}{_by(before, after)}"
    return ""


def _to_itself(question: Question, answer: Answer) -> bool:
    return any(way.backend is not None and same_pods(way.backend, question.source) for way in answer.ways)


def _sources(answer: Answer) -> dict[str, Way]:
    return {way.seen_as: way for way in answer.ways if way.seen_as}


def _shown(sources: dict[str, Way]) -> str:
    return " or ".join(f"{ip} ({way.seen_name})" if way.seen_name else ip for ip, way in sorted(sources.items()))


def _by(before: Answer, after: Answer) -> str:
    """Who rewrites it now, or did."""
    for answer, words in ((after, "rewritten on"), (before, "it was rewritten on")):
        for one in answer.rewrites:
            if one.after in _sources(answer):
                return f": {words} {one.node}{f' by {one.by}' if one.by else ''}"
    return ""
