"""The command ``calico-debug``: parses the command line, runs one command, turns every end into an exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from calico_debug.cli.environment import COMPLETION, Environment, process_environment
from calico_debug.cli.errors import report
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.errors import CalicoDebugError, UsageError

CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What writing to a full or failing disk gives. Errors of reading never get here: evidence turns them into its own."""


class OutputError(CalicoDebugError):
    """The answer is there and cannot be written."""


def main(arguments: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run the command line and give the exit code. ``arguments`` are those behind the program's name."""
    world = environment or process_environment()
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments), world)
        world.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _forget_output(world)
        return ExitCode.BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the user gets one line
        if isinstance(error, OSError) and error.errno in CANNOT_WRITE:
            _forget_output(world)
            error = OutputError(f"cannot write the answer: {error.strerror}; what was written so far is incomplete")
        return report(error, world.stderr, world.variables)
    return code


def _run(arguments: list[str], world: Environment) -> int:
    import click

    from calico_debug.cli.commands import commands

    if COMPLETION in world.variables:
        from calico_debug.cli.completion import answer_shell

        with redirect_stdout(world.stdout):
            if answer_shell(commands, world.variables):
                return ExitCode.ANSWERED
    try:
        # Not click's own main(): that one ends the process itself on a broken pipe and prints errors its own way.
        with redirect_stdout(world.stdout), commands.make_context(world.program, arguments, obj=world) as context:
            result: object = commands.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else world.program
        raise UsageError(f"{error.format_message().rstrip('.')}; see {path} --help") from error
    return result if isinstance(result, int) else ExitCode.ANSWERED


def _forget_output(world: Environment) -> None:
    """Keep the interpreter from failing again when it flushes the standard output at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, world.stdout.fileno())
        os.close(null)
