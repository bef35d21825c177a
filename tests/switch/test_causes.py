"""Why a flow fares differently."""

from __future__ import annotations

import pytest

from calico_debug.model.explanation import Decision
from calico_debug.switch.causes import BOTH_WITHOUT, NO_ENDPOINTS, ONE_WITHOUT, TO_ITSELF, cause_of
from calico_debug.switch.model import Answer, Question, RecordedEnd, Rewrite, Way

POD = RecordedEnd("pod", "10.244.1.1", None, "shop", "a", {"app": "a"}, "n1")
OTHER = RecordedEnd("pod", "10.244.2.1", 80, "shop", "b", {"app": "b"}, "n2")
QUESTION = Question(POD, RecordedEnd("service", "10.96.0.9", 80, "shop", "b"), 6)


def answer(
    verdict: str, reason: str = "rule", backend: RecordedEnd | None = OTHER, seen: str = "", by: str = ""
) -> Answer:
    rewrites = (Rewrite("n1", POD.ip, seen, by),) if by else ()
    return Answer(verdict, Decision("n1", "nftables", reason), (Way(verdict, backend, seen),), rewrites)


@pytest.mark.parametrize(
    ("before", "after", "cause"),
    [
        (answer("denied"), answer("rejected", "no-endpoints"), NO_ENDPOINTS),
        (answer("denied", "no-endpoints"), answer("rejected", "no-endpoints"), BOTH_WITHOUT),
        (answer("denied", "no-endpoints"), answer("allowed"), ONE_WITHOUT),
        (answer("denied", "no-endpoints"), answer("allowed", backend=None), NO_ENDPOINTS),
        (answer("denied", backend=POD), answer("allowed", backend=POD), TO_ITSELF),
        (answer("denied", seen="10.244.1.1"), answer("allowed", seen="10.244.1.1"), ""),
        (answer("denied"), answer("allowed"), ""),
    ],
)
def test_what_is_known(before: Answer, after: Answer, cause: str) -> None:
    assert cause_of(QUESTION, before, after) == cause


def test_another_source_address() -> None:
    kept, rewritten = answer("allowed", seen=POD.ip), answer("denied", seen="172.30.0.1", by="kube-proxy, chain x")
    there = cause_of(QUESTION, rewritten, kept)
    assert there == (
        "policy at the far end sees 10.244.1.1 as the source, and saw 172.30.0.1: it was rewritten on n1 by "
        "kube-proxy, chain x"
    )
    assert cause_of(QUESTION, kept, rewritten).endswith("and saw 10.244.1.1: rewritten on n1 by kube-proxy, chain x")
