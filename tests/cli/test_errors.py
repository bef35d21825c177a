from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.cli.errors import describe, exit_code, one_line
from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError


@given(st.text())
def test_any_message_is_one_safe_line(text: str) -> None:
    assert one_line(text).isprintable()
    assert describe(UsageError(text)).isprintable()
    assert describe(ValueError(text)).isprintable()


def test_codes() -> None:
    assert exit_code(UsageError("x")) == 2
    assert {exit_code(kind("x")) for kind in (CalicoDebugError, EvidenceError, MissingEvidence, KeyError)} == {1}
