"""The command ``calico-debug agent-relay``: the standard streams joined to the agent's socket, for `kubectl exec`.

Not for people, so no help names it: what asks an agent through the API server starts it in the agent's pod.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    import socket

PIECE = 1 << 16
CONNECT_SECONDS = 5.0


@click.command(name="agent-relay", short_help="Join the standard streams to the agent's socket.", hidden=True)
@click.option("--socket", "path", metavar="PATH", help="The agent's socket; that of its settings when left out.")
@click.pass_obj
def relay(environment: Environment, /, path: str | None) -> int:
    """Copy bytes both ways until either side ends."""
    import socket

    from calico_debug.agent.settings import DEFAULT_SOCKET, VARIABLES

    place = path or environment.variables.get(VARIABLES["socket"]) or DEFAULT_SOCKET
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(CONNECT_SECONDS)
        try:
            agent.connect(place)
        except OSError as error:
            raise EvidenceError(
                f"no agent at {place}: {error.strerror or error}; start it with `calico-debug agent`"
            ) from None
        agent.settimeout(None)
        join(sys.stdin.fileno(), sys.stdout.fileno(), agent)
    return ExitCode.ANSWERED


def join(source: int, target: int, agent: socket.socket) -> None:
    """Copy from ``source`` to the agent and from the agent to ``target``, until one of the readings ends.

    A peer that does not take what is written stops the copying, and with it the reading.
    """
    import selectors

    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        selector.register(agent, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd == source:
                    data = os.read(source, PIECE)
                    if not data:
                        return
                    agent.sendall(data)
                else:
                    data = agent.recv(PIECE)
                    if not data:
                        return
                    write_all(target, data)


def write_all(target: int, data: bytes) -> None:
    """Write every byte."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
