"""The command ``calico-debug agent``."""

from __future__ import annotations

import click

from calico_debug.cli.environment import Environment
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import node_option
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
@click.option(
    "--listen", metavar="ADDR:PORT", help="The same over TLS for callers whose token allows it; closed when left out."
)
@click.option(
    "--tls-cert", metavar="FILE", help="A certificate for TLS, PEM, with --tls-key; read again when it changes."
)
@click.option("--tls-key", metavar="FILE", help="Its key; without both the agent makes a certificate and publishes it.")
@click.option("--token-audience", metavar="NAME", help="What tokens must be made for; calico-debug when left out.")
@click.option(
    "--insecure-loopback",
    is_flag=True,
    default=None,
    help="Leave TLS and tokens away from --listen: every process of the node may ask.",
)
@click.option(
    "--metrics",
    metavar="ADDR:PORT",
    help='/metrics, /healthz and /readyz alone, or "off"; 127.0.0.1:9097 when left out.',
)
@click.option("--metrics-pods", is_flag=True, default=None, help="Also export drops by pod.")
@click.option("--metrics-auth", is_flag=True, default=None, help="TLS and tokens for --metrics, too.")
@click.option(
    "--captures",
    metavar="DIR",
    help='The directory that captures are kept in, or "off"; /var/lib/calico-debug/captures when left out.',
)
@node_option
@click.pass_obj
def agent(environment: Environment, /, node: str | None, **typed: str | bool | None) -> int:
    """Run the agent."""
    from calico_debug.agent.settings import settings

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
