"""``calico-debug assert``: from a file to an exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.worlds import Ran, run


def check(*entries: str, more: tuple[str, ...] = ()) -> Ran:
    return run("assert", "-", *more, stdin="\n".join(["flows:", *(f"- {{{entry}}}" for entry in entries)]).encode())


MET = "from: denied, to: b, expect: denied"
NOT_MET = "from: denied, to: b, expect: allowed"
OPEN = "from: undetermined, to: b, expect: allowed"
NOBODY = "from: nobody, to: b, expect: allowed"


@pytest.mark.parametrize(
    ("entries", "code", "heads"),
    [
        ((MET,), 0, ["met"]),
        ((MET, NOT_MET), 1, ["met", "NOT MET"]),
        ((OPEN, MET), 4, ["UNDETERMINED", "met"]),
        ((OPEN, NOT_MET), 1, ["UNDETERMINED", "NOT MET"]),
        ((NOBODY, MET), 1, ["ERROR", "met"]),
    ],
)
def test_exit_codes(entries: tuple[str, ...], code: int, heads: list[str]) -> None:
    ran = check(*entries)
    assert (ran.code, ran.err) == (code, "")
    assert [line[:12].strip() for line in ran.out.splitlines()[:-1] if not line.startswith(" ")] == heads


def test_the_reason_and_the_sum() -> None:
    lines = check(MET, NOT_MET).out.splitlines()
    assert lines[1] == "NOT MET       denied -> b: allowed"
    assert lines[2].startswith("              line 3: DENIED on node1: end of tier")
    assert lines[3] == "2 flows: 1 met, 1 not met"


def test_the_question_is_asked_as_written() -> None:
    ran = check("from: allowed, to: '[fd00::1]:80', protocol: 17, via: n1, expect: allowed", more=("-n", "team"))
    (asked,) = ran.asked
    assert (asked.source, asked.destination, asked.protocol, asked.via) == ("allowed", "[fd00::1]:80", "17", "n1")
    assert ran.places[0].namespace == "team"
    assert ran.out.startswith("met           17 allowed -> [fd00::1]:80 via n1: allowed")


def test_json() -> None:
    document = json.loads(check(MET, OPEN, more=("-o", "json")).out)
    assert (document["kind"], document["result"]) == ("AssertionReport", "undetermined")
    assert document["counts"] == {"met": 1, "not-met": 0, "undetermined": 1, "error": 0}
    assert document["assertions"][0]["explanation"]["verdict"] == "denied"


def test_junit() -> None:
    from xml.etree import ElementTree as ET

    suite = ET.fromstring(  # noqa: S314 - our own output
        check(MET, NOT_MET, OPEN, NOBODY, "from: broken, to: b, expect: denied", more=("-o", "junit")).out
    )
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "1",
        "errors": "3",
    }
    kinds = [[(child.tag, child.get("type")) for child in case] for case in suite]
    assert kinds == [
        [],
        [("failure", "not-met")],
        [("error", "undetermined")],
        [("error", "error")],
        [("error", "error")],
    ]


def test_junit_as_a_reader_of_reports_takes_it() -> None:
    """Names and reasons arrive as they are, hostile ones too; nothing is taken for passed that is not met."""
    from junitparser import Error, Failure, JUnitXml

    odd = 'from: nobody, to: "<&]]>\\x07\\u202e", expect: allowed'
    report = JUnitXml.fromstring(check(MET, NOT_MET, OPEN, odd, more=("-o", "junit")).out.encode())
    (suite,) = report
    assert (suite.name, suite.tests, suite.failures, suite.errors) == ("calico-debug assert", 4, 1, 2)
    cases = list(suite)
    assert [case.is_passed for case in cases] == [True, False, False, False]
    assert [[type(one) for one in case.result] for case in cases] == [[], [Failure], [Error], [Error]]
    assert cases[1].result[0].message.startswith("DENIED on node1: end of tier")
    assert cases[3].name == "nobody -> <&]]>\\x07\\u202e"
    assert {case.classname for case in cases} == {"flows"}


def test_names_cannot_steer_the_terminal() -> None:
    ran = check('from: nobody, to: "x\\e[2J", expect: allowed')
    assert "\x1b" not in ran.out
    assert "x\\x1b[2J" in ran.out


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "flows.yaml"
    file.write_text(f"flows: [{{{MET}}}]")
    assert run("assert", str(file)).code == 0


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert run("assert", str(tmp_path / "none")).err.endswith("none: No such file or directory; check the path\n")
    assert run("assert", "a\0b").code == 1
    assert run("assert", "-", stdin=b"flows: 1").code == 2
    assert run("assert", "-", "--bundle", "b", "--node", "n", stdin=b"").code == 2
