"""Every end of the command: answers, errors, interruption, a reader that went away."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from calico_debug import __version__
from calico_debug.cli.exit_codes import ExitCode
from tests.cli.worlds import run

BARE = [sys.executable, "-c", "import sys; from calico_debug.cli.main import main; sys.exit(main())"]


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_teaches_by_examples(arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.err) == (0, "")
    assert "calico-debug trace --from client/client" in ran.out
    assert [line.split()[0] for line in ran.out.partition("Commands:\n")[2].splitlines()] == [
        *(
            "agent",
            "assert",
            "attachments",
            "bundle",
            "capture",
            "chain",
            "completion",
            "conntrack",
            "counters",
            "diff",
            "doctor",
            "drift",
        ),
        *(
            "endpoints",
            "hits",
            "ifstate",
            "ipsets",
            "lockout",
            "matrix",
            "nat",
            "observe",
            "policies",
            "policy",
            "routes",
            "staged",
            "stale",
            "switch",
            "top",
            "trace",
        ),
    ]


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_of_trace(option: str) -> None:
    ran = run("trace", option)
    assert ran.code == 0
    assert "--from client/client --to svc/stars/frontend" in ran.out


def test_version() -> None:
    assert run("--version").out == f"calico-debug {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bogus",), "calico-debug: error: No such command 'bogus'; see calico-debug --help\n"),
        (("trace", "--bogus"), "calico-debug: error: No such option '--bogus'"),
        (("trace", "-o", "xml"), "calico-debug: error: Invalid value for '-o' / '--output': 'xml' is not one of"),
        (
            ("trace", "stray"),
            "calico-debug: error: Got unexpected extra argument (stray); see calico-debug trace --help",
        ),
        (
            ("trace", "--from", "nobody", "--to", "b"),
            "calico-debug: error: no pod is named 'nobody': did you mean some",
        ),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments: tuple[str, ...], message: str) -> None:
    ran = run(*arguments)
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert ran.err.startswith(message)
    assert ran.err.count("\n") == 1


def test_missing_evidence_exits_1() -> None:
    ran = run("trace", "--from", "missing", "--to", "b")
    assert (ran.code, ran.out) == (ExitCode.FAILED, "")
    assert ran.err == "calico-debug: error: nft-ruleset.json is not in the bundle: add it\n"


def test_the_unexpected_asks_for_a_report() -> None:
    ran = run("trace", "--from", "broken", "--to", "b")
    assert ran.code == ExitCode.FAILED
    assert ran.err.startswith("calico-debug: error: unexpected RuntimeError: \\x1b[31mred (calico-debug ")
    assert "please report it" in ran.err
    assert ran.err.count("\n") == 1


def test_the_traceback_is_there_for_those_who_ask() -> None:
    ran = run("trace", "--from", "broken", "--to", "b", variables={"CALICO_DEBUG_TRACEBACK": "1"})
    assert "Traceback (most recent call last)" in ran.err
    assert "\x1b" not in ran.err


def test_interruption() -> None:
    ran = run("trace", "--from", "interrupt", "--to", "b")
    assert (ran.code, ran.out, ran.err) == (ExitCode.INTERRUPTED, "", "")


def test_broken_pipe_while_answering() -> None:
    ran = run("trace", "--from", "pipe", "--to", "b")
    assert (ran.code, ran.out, ran.err) == (ExitCode.BROKEN_PIPE, "", "")


class FullDisk(io.StringIO):
    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_full_disk() -> None:
    ran = run("trace", "--from", "allowed", "--to", "b", stdout=FullDisk())
    assert ran.code == ExitCode.FAILED
    assert "cannot write the answer: No space left on device" in ran.err


def test_process_with_a_reader_that_went_away() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        ran = subprocess.run([*BARE, "--help"], stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (ran.returncode, ran.stderr) == (ExitCode.BROKEN_PIPE, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_process_on_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run([*BARE, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == ExitCode.FAILED
    assert ran.stderr.startswith("calico-debug: error: cannot write the answer: No space left on device")
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_process_with_a_closed_stream(closed: int) -> None:
    ran = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}>&-', "sh", *BARE, "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == ("" if closed == 1 else f"calico-debug {__version__}\n")


def test_process_that_is_interrupted(tmp_path: Path) -> None:
    """It answers each line at once, so its first answer says that it waits for the next line."""
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "pods.json").write_text('{"kind": "List", "items": []}')
    # Whoever started the tests may have made them deaf to SIGINT, and children inherit that.
    script = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {BARE[2]}"
    command = [sys.executable, "-c", script, "trace", "--bundle", str(tmp_path), "--flows", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"{}\n")
        process.stdin.flush()
        assert b'"kind":"Error"' in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (ExitCode.INTERRUPTED, b"", b"")


def test_output_that_the_encoding_lacks() -> None:
    script = "import sys; from calico_debug.cli.environment import process_environment as p; p().stdout.write('ü\\n')"
    ran = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert ran.stdout == b"\\xfc\n"


def test_help_imports_little() -> None:
    script = (
        "import sys; from calico_debug.cli.main import main; code = main(['--help']);"
        "heavy = {'yaml', 'json', 'calico_debug.agent', 'calico_debug.walk', 'calico_debug.explain.engine'};"
        "heavy |= {'http.client', 'socket', 'ssl'};"
        "sys.exit(code or ' '.join(heavy & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
