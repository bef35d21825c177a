"""Completion: the command ``calico-debug completion``, what shells and kubectl ask then, and names to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class, shell_complete

from calico_debug.cli.environment import COMPLETION, Environment
from calico_debug.cli.errors import PROGRAM
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.errors import CalicoDebugError

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

SHELLS = ("bash", "zsh", "fish")
LARGEST_BUNDLE = 4 << 20
"""Bytes of a tar that is looked into while somebody waits for a word."""
MOST_NAMES = 500
NO_FILES = ":4"
"""What kubectl calls ShellCompDirectiveNoFileComp (github.com/spf13/cobra, completions.go)."""

HELP = """Print a script that lets a shell complete commands, options, and names of a bundle.

    \b
    Examples:
      source <(calico-debug completion bash)
      calico-debug completion zsh > "${fpath[1]}/_calico-debug"
      calico-debug completion fish > ~/.config/fish/completions/calico-debug.fish
    """


@click.command(short_help="Completion for a shell.", help=HELP)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> int:
    """Print the script."""
    environment: Environment = context.obj
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, PROGRAM, COMPLETION)
    # Not source(): of bash, click starts one to look at its version, which need not be the one that asks.
    environment.stdout.write(script.source_template % script.source_vars() + "\n")
    return ExitCode.ANSWERED


def answer_shell(commands: click.Command, variables: Mapping[str, str]) -> bool:
    """Tell a shell what a word may be, if that is what this process was started for."""
    instruction = variables.get(COMPLETION, "")
    if not instruction.endswith("_complete"):
        return False
    shell_complete(commands, {}, PROGRAM, COMPLETION, instruction)
    return True


def answer_kubectl(commands: click.Command, words: Sequence[str]) -> str:
    """What kubectl's completion reads from ``kubectl_complete-calico_debug``: a word a line, then a directive.

    ``words`` are those behind the plugin's name, the last being the one to complete.
    """
    *before, last = words or [""]
    found = ShellComplete(commands, {}, PROGRAM, COMPLETION).get_completions(list(before), last)
    lines = [f"{one.value}\t{one.help}" if one.help else str(one.value) for one in found if one.type == "plain"]
    return "\n".join([*lines, NO_FILES, ""])


def complete_end(context: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Pods, services and nodes of the bundle that is named on the line already."""
    from calico_debug.state.cluster import load_cluster

    source = _bundle(context.params)
    if source is None:
        return []
    cluster = load_cluster(source)
    names = [f"{pod.namespace}/{pod.name}" for pod in cluster.pods]
    names += [f"svc/{one.namespace}/{one.name}" for one in cluster.services]
    names += [f"node/{node.name}" for node in cluster.nodes]
    return _items(names, word)


def complete_node(context: click.Context, _: click.Parameter, word: str) -> list[CompletionItem]:
    """Nodes of the bundle that is named on the line already."""
    source = _bundle(context.params)
    return _items(source.nodes(), word) if source is not None else []


def _bundle(given: Mapping[str, Any]) -> EvidenceSource | None:
    """The bundle, if it is quickly opened. A cluster is never asked: that may run a plugin that asks for a password."""
    from calico_debug.evidence.bundle import open_bundle

    path = given.get("bundle")
    if not isinstance(path, str):
        return None
    try:
        if Path(path).is_file() and Path(path).stat().st_size > LARGEST_BUNDLE:
            return None
        return open_bundle(path)
    except (CalicoDebugError, OSError):
        return None


def _items(names: Sequence[str], word: str) -> list[CompletionItem]:
    """Those that begin with the word. Names of evidence reach the shell only if they are plain."""
    found = [name for name in names if name.startswith(word) and name.isascii() and name.isprintable()]
    return [CompletionItem(name) for name in found if " " not in name][:MOST_NAMES]
