"""``--flows``: every line has its answer in order, whatever the line is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.cli.environment import Question
from calico_debug.cli.flows import LONGEST_LINE, numbered_lines, parse_flow
from calico_debug.errors import UsageError
from calico_debug.explain.document import to_document
from tests.cli.samples import SAMPLES
from tests.cli.worlds import Ran, run
from tests.explain.test_document import VALIDATOR

ALLOWED, DENIED = b'{"from": "allowed", "to": "b"}\n', b'{"from": "denied", "to": "b", "protocol": "tcp"}\n'
REJECTED, UNDETERMINED = b'{"from": "rejected", "to": "b"}\n', b'{"from": "undetermined", "to": "b"}\n'


def flows(*lines: bytes, more: tuple[str, ...] = ()) -> Ran:
    return run("trace", "--flows", "-", *more, stdin=b"".join(lines))


def documents(ran: Ran) -> list[Any]:
    return [json.loads(line) for line in ran.out.splitlines()]


def test_one_explanation_a_line_in_order() -> None:
    ran = flows(DENIED, ALLOWED, b"\n", DENIED)
    names = ["denied_end_of_tier", "allowed_same_node", "denied_end_of_tier"]
    assert (ran.code, ran.err) == (0, "")
    assert documents(ran) == [to_document(SAMPLES[name]) for name in names]


def test_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "flows.jsonl"
    file.write_bytes(ALLOWED + DENIED.rstrip())
    assert len(documents(run("trace", "--flows", str(file)))) == 2


@pytest.mark.parametrize("path", ["nowhere", "nowhere\0"])
def test_a_file_that_cannot_be_read(path: str) -> None:
    ran = run("trace", "--flows", path)
    assert ran.code == 1
    assert ran.err.startswith("calico-debug: error: cannot read --flows nowhere")


def test_a_directory(tmp_path: Path) -> None:
    assert "Is a directory" in run("trace", "--flows", str(tmp_path)).err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe\xfd", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"from": "a", "to": "b", "sport": 1}', "unknown key 'sport'"),
        (b'{"to": "b"}', '"from" is missing'),
        (b'{"from": "a", "to": ""}', '"to" is not a text'),
        (b'{"from": "a", "to": "b", "via": 1}', '"via" is not a text'),
        (b'{"from": "a", "to": "b", "protocol": true}', '"protocol" is not a text'),
        (b'{"from": "nobody", "to": "b"}', "no pod is named 'nobody'"),
        (b'{"from": "missing", "to": "b"}', "nft-ruleset.json is not in the bundle"),
        (b'{"from": "broken", "to": "b"}', "unexpected RuntimeError"),
        (b'{"from": "' + b"a" * LONGEST_LINE * 3 + b'", "to": "b"}', "longer than"),
    ],
)
def test_a_bad_line_is_answered_and_the_rest_goes_on(line: bytes, message: str) -> None:
    ran = flows(ALLOWED, b" \n", line + b"\n", DENIED)
    good, error, last = documents(ran)
    assert (good["verdict"], last["verdict"]) == ("allowed", "denied")
    assert {key: error[key] for key in ("apiVersion", "kind", "line")} == {
        "apiVersion": "calico-debug/v1",
        "kind": "Error",
        "line": 3,
    }
    assert message in error["message"]
    VALIDATOR.validate(error)
    assert (ran.code, ran.err) == (1, "")


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((), 0),
        ((ALLOWED,), 0),
        ((ALLOWED, DENIED), 3),
        ((REJECTED, ALLOWED), 3),
        ((DENIED, UNDETERMINED, ALLOWED), 4),
        ((UNDETERMINED, b"{\n"), 1),
    ],
)
def test_exit_code_is_the_worst(lines: tuple[bytes, ...], code: int) -> None:
    assert flows(*lines, more=("--exit-code",)).code == code


class Endless(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def test_a_line_without_end() -> None:
    ran = run("trace", "--flows", "-", stdin=io.BufferedReader(Endless()))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("calico-debug: error: line 1 of --flows has more than 16 MiB")


@pytest.mark.parametrize("size", [LONGEST_LINE - 1, LONGEST_LINE, LONGEST_LINE + 1, 2 * LONGEST_LINE, 5 * LONGEST_LINE])
def test_a_long_line_is_one_line(size: int) -> None:
    numbers = [(number, len(line)) for number, line in numbered_lines(io.BytesIO(b"a" * size + b"\nb\n"))]
    assert numbers == [(1, min(size + 1, LONGEST_LINE + 1)), (2, 2)]


def test_text_in_blocks() -> None:
    blocks = flows(DENIED, b"{\n", ALLOWED, more=("-o", "text")).out.split("\n\n")
    assert [block.split(maxsplit=1)[0] for block in blocks if block] == ["DENIED", "ERROR", "ALLOWED"]
    assert blocks[1].startswith("ERROR    line 2: not JSON")


def test_a_flow_as_typed() -> None:
    line = json.dumps({"from": "a", "to": "b", "protocol": 132, "via": "n"}).encode()
    assert parse_flow(line) == Question("a", "b", "132", "n")
    assert parse_flow(b'{"from": "a", "to": "b", "via": null}') == Question("a", "b", None, None)


KEYS = st.sampled_from(["from", "to", "protocol", "via"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_line_is_a_question_or_a_usage_error(line: bytes) -> None:
    try:
        question = parse_flow(line)
    except UsageError as error:
        assert str(error)  # noqa: PT017 - the type is the assertion
    else:
        assert question.source
        assert question.destination


@given(st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))))
def test_lines_keep_their_numbers(lines: list[bytes]) -> None:
    stream = io.BytesIO(b"\n".join(lines))
    assert [(number, line.rstrip(b"\n")) for number, line in numbered_lines(stream)] == [
        (number, line) for number, line in enumerate(lines, 1) if line.strip()
    ]


class Counting(io.StringIO):
    flushes = 0

    def flush(self) -> None:
        self.flushes += 1


def test_each_answer_is_flushed_for_who_waits_at_the_other_end(tmp_path: Path) -> None:
    piped, filed = Counting(), Counting()
    run("trace", "--flows", "-", stdin=ALLOWED * 5, stdout=piped)
    file = tmp_path / "flows.jsonl"
    file.write_bytes(ALLOWED * 5)
    run("trace", "--flows", str(file), stdout=filed)
    assert piped.flushes >= 5
    assert filed.flushes <= 2
