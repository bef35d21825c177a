"""The command ``calico-debug agent``."""

from __future__ import annotations

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.errors import EvidenceError

HELP = """Serve this node's evidence, traces and metrics over HTTP, until SIGTERM.

    \b
    Examples:
      calico-debug agent
      calico-debug agent --socket /run/calico-debug/agent.sock --metrics 127.0.0.1:9097
      calico-debug trace --agent /run/calico-debug/agent.sock --from 10.244.1.30 --to 10.244.2.31:6379
    """


@click.command(short_help="Serve this node over HTTP.", help=HELP)
@click.option(
    "--socket",
    metavar="PATH",
    help='The Unix socket of the command line (mode 0600), or "off"; /run/calico-debug/agent.sock when left out.',
)
@click.option("--listen", metavar="ADDR:PORT", help="The same on a loopback address; closed when left out.")
@click.option(
    "--metrics",
    metavar="ADDR:PORT",
    help='/metrics, /healthz and /readyz alone, or "off"; 127.0.0.1:9097 when left out.',
)
@click.option("--metrics-pods", is_flag=True, default=None, help="Also export drops by pod.")
@click.option(
    "--captures",
    metavar="DIR",
    help='The directory that captures are kept in, or "off"; /var/lib/calico-debug/captures when left out.',
)
@click.option("--node", metavar="NAME", help="The name of the node this command runs on, if it is not the host name.")
@click.pass_obj
def agent(
    environment: Environment,
    /,
    socket: str | None,
    listen: str | None,
    metrics: str | None,
    metrics_pods: bool | None,
    captures: str | None,
    node: str | None,
) -> int:
    """Run the agent."""
    from calico_debug.agent.settings import settings

    typed = {
        "socket": socket,
        "listen": listen,
        "metrics": metrics,
        "metrics_pods": metrics_pods,
        "captures": captures,
    }
    found = settings(typed, environment.variables)
    if environment.platform != "linux":
        raise EvidenceError(f"the agent reads a Linux node, and this system is {environment.platform}")
    try:
        from calico_debug.agent.run import serve
    except ImportError as error:
        raise EvidenceError(
            f"the agent needs {error.name or error}: install calico-debug[agent], for the Python that runs this"
        ) from error
    serve(found, node or "")
    return ExitCode.ANSWERED
