"""The commands ``calico-debug capture start``, ``list``, ``get``, ``stop`` and ``delete``: captures of an agent."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.errors import warn
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.files import new_file
from calico_debug.cli.observe import asked, flow_options
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import EvidenceError, UsageError

if TYPE_CHECKING:
    from calico_debug.cli.agent_client import AgentClient

SOCKET, VARIABLE = "/run/calico-debug/agent.sock", "CALICO_DEBUG_SOCKET"
"""Where agents listen unless told otherwise, and what tells them: as in agent/settings.py, which help imports not."""
OFF = "off"
PIECE = 1 << 20
FORMS = ("text", "json")

START_HELP = """Have this node's agent capture by itself, into a ring of files.

    It goes on without this command, until its time or its packets are used up, or `capture stop`. When the files are
    full the oldest makes room for the next.

    \b
    Examples:
      calico-debug capture start --pod client/client --seconds 3600 --bytes 268435456 --files 8
      calico-debug capture start --policy networkpolicy/client/platform.client-egress
      calico-debug capture start --drops
    """

GET_HELP = """Write what a capture has to one pcapng file, also while it runs.

    \b
    Examples:
      calico-debug capture get 20261121-173000-1f3a --write capture.pcapng
      kubectl exec POD -- calico-debug capture get 20261121-173000-1f3a --write - > capture.pcapng
    """


def _agent(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--agent",
        metavar="SOCKET_OR_URL",
        help=f"The agent; when left out, {VARIABLE}, else {SOCKET}.",
    )(command)


def _output(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("-o", "--output", type=click.Choice(FORMS), default="text", help="The form of the answer.")(
        command
    )


def _limit(name: str, parameter: str, least: int, most: int, help_text: str) -> Callable[..., Any]:
    return click.option(name, parameter, type=click.IntRange(least, most), metavar="N", help=help_text)


@click.command("start", short_help="Have the agent capture by itself.", help=START_HELP)
@flow_options
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
@_agent
@_output
@click.pass_obj
def start(
    environment: Environment,
    /,
    source: str | None,
    destination: str | None,
    protocol: str | None,
    via: str | None,
    pod: str | None,
    policy: str | None,
    drops: bool,
    namespace: str | None,
    agent: str | None,
    output: str,
    **limits: int | None,
) -> int:
    """Begin a capture."""
    subject = asked(source, destination, protocol, via, pod, policy, drops)
    body = {**subject.document, **{name: value for name, value in limits.items() if value is not None}}
    document = _source(environment, agent).json("/v1/captures", body | ({"namespace": namespace} if namespace else {}))
    warn(environment.stderr, _texts(document.get("notes")))
    return _tell(environment, document, output)


@click.command("list", short_help="Say which captures the agent has.")
@_agent
@_output
@click.pass_obj
def list_captures(environment: Environment, /, agent: str | None, output: str) -> int:
    """Which captures there are, under way and ended, each with what was lost."""
    from calico_debug.cli.render.captures import listing

    document = _source(environment, agent).json("/v1/captures")
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
@_agent
@click.pass_obj
def get(environment: Environment, /, capture: str, path: str, agent: str | None) -> int:
    """Fetch a capture's files."""
    from calico_debug.cli.render.captures import one

    if path == "-" and environment.terminal:
        raise UsageError("--write -: packets are nothing for a terminal: redirect the standard output")
    source = _source(environment, agent)
    place = f"/v1/captures/{quote(capture, safe='')}"
    document = source.json(place)
    names = [str(file.get("name", "")) for file in _documents(document.get("files"))]
    if not names:
        raise EvidenceError(f"capture {capture} has no file: nothing was captured")
    if path == "-":
        _fetch(source, place, names, environment.stdout.buffer)
        return ExitCode.ANSWERED
    with new_file(path, "--write") as file:
        _fetch(source, place, names, file)
        size = file.tell()
    environment.stdout.write(f"{safe(path)}: {size} bytes, {len(names)} of the capture's files\n")
    environment.stdout.write(one(document))
    return ExitCode.ANSWERED


def _fetch(source: AgentClient, place: str, names: Iterable[str], to: BinaryIO) -> None:
    """Write files one behind the other. Raises `EvidenceError`."""
    for name in names:
        with source.opened(f"{place}/files/{quote(name, safe='')}") as stream:
            while piece := _piece(source, stream):
                to.write(piece)


def _piece(source: AgentClient, stream: http.client.HTTPResponse) -> bytes:
    try:
        return stream.read(PIECE)
    except (OSError, http.client.HTTPException) as error:
        raise EvidenceError(f"{source.origin} broke off its answer ({error!r}); try again") from None


@click.command("stop", short_help="End a capture; its files stay.")
@click.argument("capture", metavar="ID")
@click.option("--delete", is_flag=True, help="Also remove the capture with its files.")
@_agent
@_output
@click.pass_obj
def stop(environment: Environment, /, capture: str, delete: bool, agent: str | None, output: str) -> int:
    """End a capture, and say what it has."""
    place = f"/v1/captures/{quote(capture, safe='')}"
    return _tell(
        environment, _source(environment, agent).json(f"{place}/files" if delete else place, method="DELETE"), output
    )


@click.command("delete", short_help="End a capture, and remove it with its files.")
@click.argument("capture", metavar="ID")
@_agent
@_output
@click.pass_obj
def delete_capture(environment: Environment, /, capture: str, agent: str | None, output: str) -> int:
    """Remove a capture."""
    place = f"/v1/captures/{quote(capture, safe='')}/files"
    return _tell(environment, _source(environment, agent).json(place, method="DELETE"), output)


COMMANDS: tuple[click.Command, ...] = (start, list_captures, get, stop, delete_capture)
"""To be added to the group ``capture``."""


def _source(environment: Environment, place: str | None) -> AgentClient:
    from calico_debug.cli.agent_client import AgentClient, find_token

    usual = environment.variables.get(VARIABLE) or SOCKET
    if place is None and usual == OFF:
        raise UsageError(f"{VARIABLE} is off: name an agent with --agent")
    return AgentClient(place or usual, token=find_token(None, environment.variables))


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
