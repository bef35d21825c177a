"""How an error reaches the user: one line on standard error, never a traceback unless asked for."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping
from typing import TextIO

from calico_debug import __version__
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import CalicoDebugError, UsageError

PROGRAM = "calico-debug"
TRACEBACK = "CALICO_DEBUG_TRACEBACK"


def describe(error: Exception) -> str:
    """The error in one line, terminal-safe: its own words when it is meant for the user, else a request to report."""
    if isinstance(error, CalicoDebugError):
        return one_line(str(error))
    return one_line(
        f"unexpected {type(error).__name__}: {error} ({PROGRAM} {__version__}); this is a defect, please report it "
        f"with the question asked and what is printed with {TRACEBACK}=1"
    )


def one_line(message: str) -> str:
    """The message with line ends as spaces and everything that could steer a terminal escaped."""
    return safe(" ".join(message.split()))


def exit_code(error: Exception) -> ExitCode:
    """2 for a question that cannot be understood, 1 for everything else."""
    return ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.FAILED


def report(error: Exception, stderr: TextIO, variables: Mapping[str, str]) -> ExitCode:
    """Print the error's line, before it the traceback when CALICO_DEBUG_TRACEBACK=1, and give the exit code."""
    if variables.get(TRACEBACK) == "1":
        stderr.writelines(safe_lines(traceback.format_exception(error)))
    stderr.write(f"{PROGRAM}: error: {describe(error)}\n")
    return exit_code(error)


def warn(stderr: TextIO, messages: Iterable[str]) -> None:
    """Print each message as one line of its own, terminal-safe."""
    stderr.writelines(f"warning: {one_line(message)}\n" for message in messages)


def safe_lines(parts: list[str]) -> list[str]:
    """The parts of a traceback with line ends kept and all else that could steer a terminal escaped."""
    return [safe(line) + "\n" for part in parts for line in part.rstrip("\n").split("\n")]
