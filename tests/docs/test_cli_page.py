"""docs/cli.md against the command line itself."""

from __future__ import annotations

import shlex

import click
import pytest

from calico_debug.cli.agent import HELP as AGENT_HELP
from calico_debug.cli.agent import agent
from calico_debug.cli.assertions import assertions
from calico_debug.cli.bundle import HELP as BUNDLE_HELP
from calico_debug.cli.bundle import bundle
from calico_debug.cli.capture import GROUP_HELP, capture
from calico_debug.cli.capture import HELP as CAPTURE_HELP
from calico_debug.cli.captures import GET_HELP, START_HELP
from calico_debug.cli.chain import HELP as CHAIN_HELP
from calico_debug.cli.chain import chain
from calico_debug.cli.commands import commands as group
from calico_debug.cli.diff import HELP as DIFF_HELP
from calico_debug.cli.diff import diff
from calico_debug.cli.doctor import doctor
from calico_debug.cli.drift import drift
from calico_debug.cli.environment import Question
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.flows import FLOW_KEYS, LONGEST_LINE, parse_flow
from calico_debug.cli.hits import HELP as HITS_HELP
from calico_debug.cli.hits import hits
from calico_debug.cli.lockout import HELP as LOCKOUT_HELP
from calico_debug.cli.lockout import lockout
from calico_debug.cli.matrix import HELP as MATRIX_HELP
from calico_debug.cli.matrix import matrix
from calico_debug.cli.observe import HELP as OBSERVE_HELP
from calico_debug.cli.observe import observe
from calico_debug.cli.options import CONFLICTS, FORMATS
from calico_debug.cli.policies import endpoints, policies
from calico_debug.cli.staged import staged
from calico_debug.cli.stale import stale
from calico_debug.cli.switch import switch
from calico_debug.cli.top import top
from calico_debug.cli.trace import HELP, trace
from calico_debug.decode.assertions import KEYS, decode_assertions
from calico_debug.diff.model import CAUSES
from calico_debug.drift.model import CODES
from calico_debug.errors import MissingEvidence
from calico_debug.hits.model import STANDINGS
from calico_debug.lockout.vitals import VITALS
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.flow import protocol_name
from tests.cli.worlds import Ran, run
from tests.docs.markdown import DOCS, code, commands, section, tables


def written(option: click.Option) -> str:
    """How the page writes an option: every name quoted, the last with its value."""
    if isinstance(option.type, click.Choice):
        value = " " + "|".join(option.type.choices)
    else:
        value = f" {option.metavar}" if option.metavar else ""
    *others, last = sorted(option.opts, key=len)
    return ", ".join([*(f"`{name}`" for name in others), f"`{last}{value}`"])


def test_options() -> None:
    pages = (
        *((trace, "Options of trace"), (chain, "chain"), (assertions, "assert"), (bundle, "bundle")),
        *((policies, "policies"), (endpoints, "endpoints"), (drift, "drift"), (doctor, "doctor"), (stale, "stale")),
        (staged, "staged"),
        *((command, f"switch {name}") for name, command in switch.commands.items()),
        (matrix, "matrix"),
        (diff, "diff"),
        *((hits, "hits"), (lockout, "lockout"), (top, "top")),
        (observe, "observe"),
        *((command, f"capture {name}") for name, command in capture.commands.items()),
    )
    for command, title in (*pages, (agent, "agent")):
        context = click.Context(command, help_option_names=["-h", "--help"])
        options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
        table = next(
            t for t in tables(section("cli.md", title)) if t[0][0].startswith("`--") or t[0][0].startswith("`-")
        )
        assert table == [(written(option), option.help) for option in options]


def test_standings_of_rules() -> None:
    assert tables(section("cli.md", "hits"))[1] == [(f"`{word}`", meaning) for word, meaning in STANDINGS.items()]


def test_flows_that_nodes_live_by() -> None:
    rows = [
        (
            one.name,
            one.direction,
            f"{protocol_name(one.protocol)} {one.port or ''}".strip(),
            one.peers,
            one.on,
            one.source,
        )
        for one in VITALS
    ]
    assert tables(section("cli.md", "lockout"))[1] == rows


def test_commands_of_capture() -> None:
    assert tables(section("cli.md", "capture"))[0] == [
        (f"`capture {name}`", command.short_help) for name, command in capture.commands.items()
    ]


def test_codes_of_drift() -> None:
    assert tables(section("cli.md", "drift"))[1] == [(f"`{code}`", meaning) for code, meaning in CODES.items()]


def test_causes_of_diff() -> None:
    assert tables(section("cli.md", "diff"))[1] == [(f"`{cause}`", meaning) for cause, meaning in CAUSES.items()]


def test_assertion_keys() -> None:
    text = section("cli.md", "assert")
    assert [code(row[0]) for row in tables(text)[0]] == list(KEYS)
    example = text.split("```yaml\n")[1].split("```")[0]
    assert len(decode_assertions(example.encode(), "the page")) == 3


def test_conflicts() -> None:
    expected = [(f"`{c.first}`", f"`{c.second}{f' {c.value}' if c.value else ''}`", c.remedy) for c in CONFLICTS]
    assert tables(section("cli.md", "Options of trace"))[1] == expected


def test_formats() -> None:
    assert [code(row[0]) for row in tables(section("cli.md", "Output"))[0]] == list(FORMATS)


def test_exit_codes() -> None:
    assert tables(section("cli.md", "Exit codes"))[0] == [(str(int(c)), c.meaning) for c in ExitCode]


def test_flow_keys() -> None:
    text = section("cli.md", "Many flows")
    assert [code(row[0]) for row in tables(text)[0]] == list(FLOW_KEYS)
    assert LONGEST_LINE == 64 * 1024
    line = next(line for line in text.splitlines() if line.startswith('{"from"'))
    assert parse_flow(line.encode()).destination == "svc/stars/frontend"


EXAMPLES = sorted(
    {
        example
        for text in (
            *(page.read_text(encoding="utf-8") for page in DOCS.glob("*.md")),
            HELP,
            AGENT_HELP,
            CHAIN_HELP,
            CAPTURE_HELP,
            HITS_HELP,
            LOCKOUT_HELP,
            MATRIX_HELP,
            DIFF_HELP,
            GROUP_HELP,
            START_HELP,
            GET_HELP,
            OBSERVE_HELP,
            BUNDLE_HELP,
            str(group.help),
        )
        for example in commands(text)
    }
)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


def nothing_there(_: Ran, question: Question) -> FlowExplanation:
    raise MissingEvidence(f"nothing about {question.source}")


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_understood(example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They fail, if at all, because the bundle or the flows are not there, never because of what is typed."""
    words = shlex.split(example, comments=True)[1:]
    # An agent would serve until it is stopped: on this system there is none to start.
    platform = "darwin" if words[0] == "agent" else "linux"
    live = {"--bundle", "--kubeconfig"}
    if words[0] in (
        "chain",
        "bundle",
        "policies",
        "endpoints",
        "drift",
        "doctor",
        "stale",
        "switch",
    ) and not live & set(words):
        words += ["--bundle", "recording"]
    monkeypatch.setattr(Ran, "trace", nothing_there)
    monkeypatch.setenv("KUBECONFIG", "/nonexistent")  # whoever runs this may have a cluster
    variables = {"CALICO_DEBUG_SOCKET": "/nonexistent"}
    assert run(*words, platform=platform, variables=variables).code in (ExitCode.FAILED, ExitCode.ANSWERED)
