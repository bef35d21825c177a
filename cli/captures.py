"""The commands ``calico-debug capture start``, ``list``, ``get``, ``stop`` and ``delete``: captures of an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import click

from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.files import new_file
from calico_debug.cli.observe import subject_options
from calico_debug.cli.place_of_agent import agent_options, open_agent
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from calico_debug.cli.agent_client import AgentClient
    from calico_debug.model.subject import Subject

CAPTURES = "/v1/captures"
PIECE = 1 << 20
FORMS = ("text", "json")

START_HELP = """Have an agent, this node's or with --node that of another, capture by itself into a ring of files.

    It goes on without this command, until its time or its packets are used up, or `capture stop`. When the files are
    full the oldest makes room for the next.

    \b
    Examples:
      calico-debug capture start --pod client/client --seconds 3600 --bytes 268435456 --files 8
      calico-debug capture start --policy networkpolicy/client/platform.client-egress
      calico-debug capture start --drops --node node2
    """

GET_HELP = """Write what a capture has to one pcapng file, also while it runs.

    \b
    Examples:
      calico-debug capture get 20261121-173000-1f3a --write capture.pcapng
      kubectl exec POD -- calico-debug capture get 20261121-173000-1f3a --write - > capture.pcapng
    """


def _output(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-o", "--output", type=click.Choice(FORMS), default="text", help="The form of the answer.")(
        command
    )


def _limit(name: str, parameter: str, least: int, most: int, help_text: str) -> Callable[..., Any]:
    return click.option(name, parameter, type=click.IntRange(least, most), metavar="N", help=help_text)


@click.command("start", short_help="Have the agent capture by itself.", help=START_HELP)
@subject_options
@_limit("--seconds", "seconds", 1, 86_400, "Capture for so long at most; 600 when left out, 86400 at most.")
@_limit("--packets", "packets", 1, 10_000_000, "End after so many packets; 100000 when left out.")
@_limit("--bytes", "bytes", 65_536, 1 << 30, "Keep so many bytes in all files; 64 MiB when left out, 1 GiB at most.")
@_limit("--files", "files", 1, 64, "Keep so many files; 4 when left out.")
@_limit("--snap", "snap", 64, 2048, "Keep so many bytes of each packet; 256 when left out, 2048 at most.")
@_limit(
    "--rate",
    "rate",
    10,
    100_000,
    "Of anything but one flow: capture so many events a second and CPU, and count the others; 1000 when left out.",
)
@click.option("-n", "--namespace", metavar="NS", help="The namespace of names that come without one.")
@agent_options
@_output
@click.pass_obj
def start(
    environment: Environment,
    /,
    subject: Subject,
    namespace: str | None,
    place: Place,
    output: str,
    **limits: int | None,
) -> int:
    """Begin a capture."""
    body = {**subject.document, **{name: value for name, value in limits.items() if value is not None}}
    body |= {"namespace": namespace} if namespace else {}
    document = open_agent(environment, place).json(CAPTURES, body)
    warn(environment.stderr, _texts(document.get("notes")))
    return _tell(environment, document, output)


@click.command("list", short_help="Say which captures the agent has.")
@agent_options
@_output
@click.pass_obj
def list_captures(environment: Environment, /, place: Place, output: str) -> int:
    """Which captures there are, under way and ended, each with what was lost."""
    from calico_debug.cli.render.captures import listing

    document = open_agent(environment, place).json(CAPTURES)
    return _write(environment, document, output, lambda: listing(_documents(document.get("captures"))))


@click.command("get", short_help="Write what a capture has to a file.", help=GET_HELP)
@click.argument("capture", metavar="ID")
@click.option(
    "-w",
    "--write",
    "path",
    metavar="FILE",
    required=True,
    help='The file to make, which must not be there yet, or "-" for the standard output.',
)
@agent_options
@click.pass_obj
def get(environment: Environment, /, capture: str, path: str, place: Place) -> int:
    """Fetch a capture's files."""
    from calico_debug.cli.render.captures import one

    if path == "-" and environment.terminal:
        raise UsageError("--write -: packets are nothing for a terminal: redirect the standard output")
    source = open_agent(environment, place)
    document = source.json(_one(capture))
    names = [str(file.get("name", "")) for file in _documents(document.get("files"))]
    if not names:
        raise EvidenceError(f"capture {capture} has no file: nothing was captured")
    if path == "-":
        _fetch(source, _one(capture), names, environment.stdout.buffer)
        return ExitCode.ANSWERED
    with new_file(path, "--write") as file:
        _fetch(source, _one(capture), names, file)
        size = file.tell()
    environment.stdout.write(f"{safe(path)}: {size} bytes, {len(names)} of the capture's files\n")
    environment.stdout.write(one(document))
    return ExitCode.ANSWERED


def _fetch(source: AgentClient, path: str, names: Iterable[str], to: BinaryIO) -> None:
    """Write files one behind the other. Raises `EvidenceError`."""
    for name in names:
        with source.opened(f"{path}/files/{quote(name, safe='')}") as stream:
            while piece := _piece(source, stream):
                to.write(piece)


def _piece(source: AgentClient, stream: HTTPResponse) -> bytes:
    from http.client import HTTPException

    try:
        return stream.read(PIECE)
    except (OSError, HTTPException) as error:
        raise EvidenceError(f"{source.origin} broke off its answer ({error!r}); try again") from None


@click.command("stop", short_help="End a capture; its files stay.")
@click.argument("capture", metavar="ID")
@click.option("--delete", is_flag=True, help="Also remove the capture with its files.")
@agent_options
@_output
@click.pass_obj
def stop(environment: Environment, /, capture: str, delete: bool, place: Place, output: str) -> int:
    """End a capture, and say what it has."""
    path = f"{_one(capture)}/files" if delete else _one(capture)
    return _tell(environment, open_agent(environment, place).json(path, method="DELETE"), output)


@click.command("delete", short_help="End a capture, and remove it with its files.")
@click.argument("capture", metavar="ID")
@agent_options
@_output
@click.pass_obj
def delete_capture(environment: Environment, /, capture: str, place: Place, output: str) -> int:
    """Remove a capture."""
    path = f"{_one(capture)}/files"
    return _tell(environment, open_agent(environment, place).json(path, method="DELETE"), output)


COMMANDS: tuple[click.Command, ...] = (start, list_captures, get, stop, delete_capture)
"""To be added to the group ``capture``."""


def _one(capture: str) -> str:
    return f"{CAPTURES}/{quote(capture, safe='')}"


def _tell(environment: Environment, document: Mapping[str, Any], output: str) -> int:
    from calico_debug.cli.render.captures import one

    return _write(environment, document, output, lambda: one(document))


def _write(environment: Environment, document: Mapping[str, Any], output: str, text: Callable[[], str]) -> int:
    if output == "json":
        from calico_debug.explain.packet_document import json_line

        environment.stdout.write(json_line(dict(document)))
    else:
        environment.stdout.write(text())
    return ExitCode.ANSWERED


def _documents(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
