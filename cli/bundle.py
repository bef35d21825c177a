"""``calico-debug bundle``."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from calico_debug import __version__
from calico_debug.cli.environment import Environment, Place
from calico_debug.cli.errors import PROGRAM
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.options import cluster_options, contradictions
from calico_debug.cli.render.terminal import safe
from calico_debug.errors import UsageError

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.redact.redactor import Redactor

HELP = """Write down what a node and the cluster hold, as a bundle that every command reads with --bundle.

    Nothing on the node is changed. What cannot be read is left out and said, here and in the bundle's manifest.

    \b
    Examples:
      # This node and, where it can be reached, the cluster
      calico-debug bundle
      # To a place of your choice; a name without .tar… becomes a directory
      calico-debug bundle -f /var/tmp/node1.tar.gz
      # For somebody who must not see addresses and names
      calico-debug bundle --redact all -f for-support.tar.gz
      calico-debug bundle --bundle node1.tar.gz --redact addresses -f for-support.tar.gz
    """

SIZE = re.compile(r"(\d+)\s*([KMGT]?)(i?B)?", re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LONGEST_STEM = 150
"""Characters of a default file name, whatever a node is called."""


class Size(click.ParamType[int]):
    """Bytes as typed: 4096, 512M, 2GiB (1024 based)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        if isinstance(value, int):
            return value
        match = SIZE.fullmatch(str(value).strip())
        if match is None or int(match[1]) == 0:
            self.fail(f"{str(value)!r} is no size: write for example 512M or 2G", param, ctx)
        return int(match[1]) * UNITS[match[2].upper()]


@click.command(short_help="Write down what a node and the cluster hold.", help=HELP)
@click.option(
    "-f",
    "--file",
    metavar="TAR_OR_DIR",
    help="Where to write: an archive (.tar.gz, .tgz, .tar, .tar.xz, .tar.bz2) or else a directory; when left out, an "
    "archive here, named after the node and the time.",
)
@click.option("--bundle", metavar="DIR_OR_TAR", help="Copy a recorded bundle; when left out, read this node.")
@click.option(
    "--node",
    "nodes",
    metavar="NAME",
    multiple=True,
    help="Only this node of the bundle (repeatable); live, the name of this node.",
)
@cluster_options
@click.option(
    "--redact",
    metavar="addresses,names|all",
    help="Replace IP and MAC addresses, names, or both, so that what is left still explains the same.",
)
@click.option("--no-cluster", is_flag=True, help="Leave out the cluster's objects.")
@click.option(
    "--max-size", type=Size(), metavar="SIZE", default="2G", help="Largest bundle, uncompressed: 2G when left out."
)
@click.option(
    "--max-file-size",
    type=Size(),
    metavar="SIZE",
    default="512M",
    help="Largest single file: 512M when left out; larger ones are left out.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    default=120.0,
    help="After these many seconds nothing more is read: 120 when left out.",
)
@click.pass_obj
def bundle(
    environment: Environment,
    /,
    file: str | None,
    bundle: str | None,
    nodes: tuple[str, ...],
    kubeconfig: str | None,
    context: str | None,
    redact: str | None,
    no_cluster: bool,
    max_size: int,
    max_file_size: int,
    time_limit: float,
) -> int:
    """Record a bundle."""
    from calico_debug.cli.archive import new_bundle
    from calico_debug.cli.tracer import open_source
    from calico_debug.record.recorder import Recorder, RecordLimits, World

    kinds = redacted_kinds(redact)
    if file in ("-", ""):
        raise UsageError(f"-f {file!r} is no place for a bundle: name a file or a directory")
    if bundle is None and len(nodes) > 1:
        raise UsageError("--node names the node that is read live: give it once, or name a bundle with --bundle")
    contradictions({"--bundle": bundle, "--kubeconfig": kubeconfig, "--context": context})
    place = Place(bundle, None, None if bundle else next(iter(nodes), None), kubeconfig, context)
    source = open_source(place, environment.platform)
    chosen = _nodes(source, nodes)

    def tell(line: str) -> None:
        make_room()
        environment.stderr.write(f"{PROGRAM}: {safe(line)}\n")
        environment.stderr.flush()

    limits = RecordLimits(max_file_size, max_size, time_limit)
    world = World(lambda: datetime.now(UTC), time.monotonic, tell)
    with environment.progress() as make_room:
        redactor = _redactor(source, kinds) if kinds else None
        named = [redactor.node_name(name) for name in chosen] if redactor else chosen
        target = Path(file) if file else Path(f"{default_name(named, datetime.now(UTC))}.tar.gz")
        with new_bundle(target) as sink:
            recorder = Recorder(source, sink, world, f"{PROGRAM} {__version__}", limits, redactor)
            account = recorder.record(chosen, cluster=not no_cluster)
    written = [record for record in account.files.values() if record.is_ok]
    absent = len(account.files) - len(written)
    size = sum(record.size or 0 for record in written)
    missing = f", {absent} could not be recorded (see its manifest.json)" if absent else ""
    tell(f"{len(written)} files, {size} bytes{missing}")
    environment.stdout.write(f"{safe(str(target))}\n")
    return ExitCode.ANSWERED


def default_name(nodes: Sequence[str], now: datetime) -> str:
    """A bundle's file name without its ending: the node's name, and when."""
    subject = nodes[0] if len(nodes) == 1 else "cluster"
    return f"{PROGRAM}-{re.sub(r'[^A-Za-z0-9.-]', '_', subject)[:LONGEST_STEM]}-{now:%Y%m%dT%H%M%SZ}"


def redacted_kinds(text: str | None) -> Sequence[str]:
    """What ``--redact`` asks for. Raises `UsageError`."""
    from calico_debug.redact.redactor import KINDS

    if text is None:
        return ()
    kinds = KINDS if text == "all" else tuple(part.strip() for part in text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise UsageError(f"--redact {kind!r} is not known: write {', '.join(KINDS)}, or all")
    return kinds


def _redactor(source: EvidenceSource, kinds: Sequence[str]) -> Redactor:
    from calico_debug.redact.redactor import Redactor
    from calico_debug.state.cluster import load_cluster

    cluster = load_cluster(source)
    return Redactor(secrets.token_bytes(32), kinds, cluster.policies(), source.nodes(), cluster.namespaces)


def _nodes(source: EvidenceSource, wanted: tuple[str, ...]) -> Sequence[str]:
    held = source.nodes()
    for name in wanted:
        if name not in held:
            raise UsageError(f"{source.origin} has nothing of node {name!r}: it holds {', '.join(held) or 'no node'}")
    return list(dict.fromkeys(wanted)) or held
