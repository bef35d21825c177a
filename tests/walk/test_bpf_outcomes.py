"""What a run at an interface means for the packet."""

from __future__ import annotations

import pytest

from calico_debug.walk.bpf_outcomes import PolicyResult
from calico_debug.walk.bpf_policy import PolicyRun, Verdict


@pytest.mark.parametrize(
    ("verdict", "untracked", "denied", "accepted"),
    [
        (Verdict.ALLOWED, False, False, False),
        (Verdict.ALLOWED, True, False, True),
        (Verdict.PASSED, True, False, False),
        (Verdict.DENIED, True, True, False),
        (Verdict.BROKEN, False, True, False),
    ],
)
def test_verdicts(verdict: Verdict, untracked: bool, denied: bool, accepted: bool) -> None:
    result = PolicyResult("eth0", "ingress", True, PolicyRun(verdict, (), (), ()), untracked=untracked)
    assert (result.denied, result.accepted_untracked) == (denied, accepted)
