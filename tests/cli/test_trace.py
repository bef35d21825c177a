"""The options of ``trace`` reach the question, and the answer reaches the output."""

from __future__ import annotations

import json

import pytest
import yaml

from calico_debug.cli.environment import Place, Question
from calico_debug.cli.render import renderer
from calico_debug.cli.render.terminal import Style
from calico_debug.explain.document import to_document
from calico_debug.model.observation import Wanted
from tests.cli.samples import SAMPLES
from tests.cli.worlds import run

ASK = ("trace", "--from", "denied", "--to", "svc/b/c:80")


def test_the_question_as_typed() -> None:
    ran = run(*ASK, "-p", "udp", "--via", "node1", "--bundle", "dir", "-n", "ns")
    assert ran.asked == [Question("denied", "svc/b/c:80", "udp", "node1", "allowed")]
    assert ran.places == [Place("dir", "ns", None)]


def test_the_question_by_default() -> None:
    ran = run(*ASK, "--node", "n1")
    assert ran.asked == [Question("denied", "svc/b/c:80", None, None, "allowed")]
    assert ran.places == [Place(None, None, "n1")]


def test_the_verdict_that_advice_is_for() -> None:
    assert run(*ASK, "--want", "denied").asked[0].wanted == "denied"
    line = b'{"from": "denied", "to": "b"}'
    assert run("trace", "--flows", "-", stdin=line).asked[0].wanted is None
    assert run("trace", "--flows", "-", "--want", "allowed", stdin=line).asked[0].wanted == "allowed"


def test_witnesses_are_called_only_when_asked_for() -> None:
    assert run(*ASK).wanted == []
    assert run(*ASK, "--watch", "3", "--observe", "0.5", "--probe").wanted == [Wanted(3.0, 0.5, True)]
    assert run(*ASK, "--probe").wanted == [Wanted(probe=True)]


@pytest.mark.parametrize("seconds", ["0", "-1", "601", "nan", "x"])
def test_seconds_have_bounds(seconds: str) -> None:
    for option in ("--watch", "--observe"):
        ran = run(*ASK, option, seconds)
        assert (ran.code, ran.asked) == (2, [])


@pytest.mark.parametrize("output", ["text", "wide"])
def test_human_formats(output: str) -> None:
    ran = run(*ASK, "-o", output)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == renderer(output)(SAMPLES["denied_end_of_tier"], Style())


def test_machine_formats() -> None:
    document = to_document(SAMPLES["denied_end_of_tier"])
    assert json.loads(run(*ASK, "-o", "json").out) == document
    assert yaml.safe_load(run(*ASK, "-o", "yaml").out) == document


@pytest.mark.parametrize(("source", "code"), [("allowed", 0), ("denied", 3), ("rejected", 3), ("undetermined", 4)])
def test_exit_code_of_the_verdict_only_when_asked(source: str, code: int) -> None:
    assert run("trace", "--from", source, "--to", "b").code == 0
    assert run("trace", "--from", source, "--to", "b", "--exit-code").code == code


@pytest.mark.parametrize(
    ("options", "variables", "terminal", "coloured"),
    [
        ((), {}, True, True),
        ((), {}, False, False),
        ((), {"NO_COLOR": "1"}, True, False),
        ((), {"NO_COLOR": ""}, True, True),
        ((), {"TERM": "dumb"}, True, False),
        (("--color", "always"), {"NO_COLOR": "1"}, False, True),
        (("--color", "never"), {}, True, False),
        (("-o", "json"), {}, True, False),
    ],
)
def test_colour(options: tuple[str, ...], variables: dict[str, str], terminal: bool, coloured: bool) -> None:
    ran = run(*ASK, *options, variables=variables, terminal=terminal)
    assert ("\x1b" in ran.out) is coloured


def test_wraps_at_the_width_of_a_terminal() -> None:
    assert max(map(len, run(*ASK, terminal=True, columns=80, variables={"NO_COLOR": "1"}).out.split("\n")[1:])) <= 80
    assert max(map(len, run(*ASK).out.split("\n")[1:])) > 80
