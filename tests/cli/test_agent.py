from __future__ import annotations

import pytest

from calico_debug.agent.settings import Address, Settings
from calico_debug.cli.exit_codes import ExitCode
from tests.cli.worlds import run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, str]]:
    from calico_debug.agent import run as running

    found: list[tuple[Settings, str]] = []
    monkeypatch.setattr(running, "serve", lambda settings, node: found.append((settings, node)))
    return found


def test_options_and_variables_reach_the_agent(served: list[tuple[Settings, str]]) -> None:
    typed = ("--socket", "/a.sock", "--listen", "127.0.0.1:1", "--metrics", "off", "--metrics-pods", "--node", "n1")
    assert run("agent", *typed).code == ExitCode.ANSWERED
    variables = {"CALICO_DEBUG_SOCKET": "off", "CALICO_DEBUG_METRICS": "[::1]:2", "CALICO_DEBUG_METRICS_PODS": "1"}
    assert run("agent", variables=variables).code == ExitCode.ANSWERED
    assert served == [
        (Settings("/a.sock", Address("127.0.0.1", 1), None, True), "n1"),
        (Settings("", None, Address("::1", 2), True), ""),
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--listen", "0.0.0.0:80", "--insecure-loopback"), "must be a loopback address"),
        (("--metrics", "x"), "ADDR:PORT"),
        (("x",), "--help"),
    ],
)
def test_what_cannot_be_is_a_question_of_usage(
    served: list[tuple[Settings, str]], typed: tuple[str], said: str
) -> None:
    done = run("agent", *typed)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert said in done.err
    assert len(done.err.splitlines()) == 1
    assert served == []


def test_other_systems_have_no_agent(served: list[tuple[Settings, str]]) -> None:
    done = run("agent", platform="darwin")
    assert done.code == ExitCode.FAILED
    assert "darwin" in done.err
    assert served == []
