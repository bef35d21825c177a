"""The command ``calico-debug``: parses the command line, runs one command, turns every end into an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from calico_debug.cli.environment import Environment, process_environment
from calico_debug.cli.errors import PROGRAM, report
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.errors import UsageError


def main(arguments: Sequence[str] | None = None, environment: Environment | None = None) -> int:
    """Run the command line and give the exit code. ``arguments`` are those behind the program's name."""
    world = environment or process_environment()
    try:
        code = _guarded(list(sys.argv[1:] if arguments is None else arguments), world)
        world.stdout.flush()
    except BrokenPipeError:
        _forget_output(world)
        return ExitCode.BROKEN_PIPE
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except OSError as error:
        # Only flushing is left to fail here: a full disk, say.
        _forget_output(world)
        world.stderr.write(f"{PROGRAM}: error: cannot write the answer: {error.strerror}; the output is incomplete\n")
        return ExitCode.FAILED
    return code


def _guarded(arguments: list[str], world: Environment) -> int:
    try:
        return _run(arguments, world)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever it is, the user gets one line
        return report(error, world.stderr, world.variables)


def _run(arguments: list[str], world: Environment) -> int:
    import click
    from calico_debug.cli.commands import commands

    try:
        # Not click's own main(): that one ends the process itself on a broken pipe and prints errors its own way.
        with redirect_stdout(world.stdout), commands.make_context(PROGRAM, arguments, obj=world) as context:
            result: object = commands.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        path = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else PROGRAM
        raise UsageError(f"{error.format_message().rstrip('.')}; see {path} --help") from error
    return result if isinstance(result, int) else ExitCode.ANSWERED


def _forget_output(world: Environment) -> None:
    """Keep the interpreter from failing again when it flushes the standard output at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, world.stdout.fileno())
        os.close(null)
