from __future__ import annotations

from calico_debug.cli.exit_codes import OF_VERDICT, ExitCode, worst
from calico_debug.model.explanation import VERDICTS


def test_contract() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "ANSWERED": 0,
        "FAILED": 1,
        "USAGE": 2,
        "DENIED": 3,
        "UNDETERMINED": 4,
        "INTERRUPTED": 130,
        "BROKEN_PIPE": 141,
    }
    assert all(code.meaning for code in ExitCode)


def test_every_verdict_has_a_code() -> None:
    assert set(OF_VERDICT) == set(VERDICTS)


def test_worst() -> None:
    assert worst([]) == 0
    assert worst(["allowed", "rejected"]) == 3
    assert worst(["undetermined", "denied"]) == 4
