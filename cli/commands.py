"""The group of commands and its help."""

from __future__ import annotations

import click

from calico_debug import __version__
from calico_debug.cli.agent import agent
from calico_debug.cli.assertions import assertions
from calico_debug.cli.bundle import bundle
from calico_debug.cli.capture import capture
from calico_debug.cli.chain import chain
from calico_debug.cli.completion import completion
from calico_debug.cli.diff import diff
from calico_debug.cli.doctor import doctor
from calico_debug.cli.drift import drift
from calico_debug.cli.dump import COMMANDS as LISTINGS
from calico_debug.cli.errors import PROGRAM
from calico_debug.cli.hits import hits
from calico_debug.cli.lockout import lockout
from calico_debug.cli.matrix import matrix
from calico_debug.cli.observe import observe
from calico_debug.cli.policies import COMMANDS as POLICY_COMMANDS
from calico_debug.cli.relay import relay
from calico_debug.cli.staged import staged
from calico_debug.cli.stale import stale
from calico_debug.cli.switch import switch
from calico_debug.cli.top import top
from calico_debug.cli.trace import trace

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    context_settings=CONTEXT,
    invoke_without_command=True,
    help="""Why did Calico allow or deny this flow?

    Reads what the kernel of a node will execute, live or from a recorded bundle, and walks the flow through it.

    \b
    Examples:
      # Which rule stops this pod, on the node it runs on
      calico-debug trace --from client/client --to svc/management-ui/management-ui
      # The same from a recording, as JSON
      calico-debug trace --bundle recording.tar.gz --from client/client --to 10.244.2.32:9001 -o json
      # Many flows, one answer a line
      calico-debug trace --bundle recording/ --flows flows.jsonl
      # What a pod is programmed with, rule by rule, with hits
      calico-debug policy client/client --bundle recording.tar.gz
    """,
)
@click.version_option(__version__, prog_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def commands(context: click.Context) -> None:
    """Print the help when no command is named."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


commands.add_command(trace)
commands.add_command(chain)
commands.add_command(assertions)
commands.add_command(bundle)
commands.add_command(drift)
commands.add_command(agent)
commands.add_command(observe)
commands.add_command(capture)
commands.add_command(relay)
commands.add_command(completion)
for command in (diff, doctor, hits, lockout, matrix, staged, stale, switch, top, *POLICY_COMMANDS, *LISTINGS):
    commands.add_command(command)
