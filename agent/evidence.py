"""Evidence of the node that this process runs on: the same files as a bundle's, each made when it is asked for."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from socket import gethostname

from calico_debug.activity import say
from calico_debug.agent.capabilities import REMEDY
from calico_debug.agent.cluster import ClusterReader
from calico_debug.agent.commands import failed, is_installed, output_of, run
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.contents import IPTABLES_FILES, IPTABLES_LEGACY_FILES, NODE_COMMANDS
from calico_debug.evidence.source import NetlinkDump, NodeEvidence
from calico_debug.model.conntrack import Tuple

SYSCTL_ROOT = Path("/proc/sys")
PROCESS_ROOT = Path("/proc")

INTERFACE_SYSCTLS = (
    "accept_local",
    "forwarding",
    "proxy_arp",
    "proxy_arp_pvlan",
    "route_localnet",
    "rp_filter",
    "send_redirects",
    "src_valid_mark",
)
"""Files of /proc/sys/net/ipv4/conf/INTERFACE that decide on packets, and whether senders are told of another way."""

SYSCTL_PATTERNS = (
    "net/ipv4/ip_forward*",
    *(f"net/ipv4/conf/*/{name}" for name in INTERFACE_SYSCTLS),
    "net/ipv6/conf/*/forwarding",
    "net/bridge/bridge-nf-call-*",
    "net/netfilter/nf_conntrack_*",
    "kernel/unprivileged_bpf_disabled",
)
"""What ``sysctl.txt`` holds, as patterns below /proc/sys."""

GETTABLE = frozenset({6, 17, 132})
"""Protocols with ports of which ``conntrack -G`` (1.4.7) finds one connection; it also does for ICMP and ICMPv6."""

ICMP_OPTIONS = {1: "icmp", 58: "icmpv6"}

ORIGINAL_OPTIONS = ("-s", "-d")
REPLY_OPTIONS = ("--reply-src", "--reply-dst")

FELIX_ARGUMENT = "-felix"
"""``calico-node -felix`` is Felix in the calico-node image (node/filesystem/etc/service/available/felix/run)."""


class LiveNode:
    """This node; implements `NodeEvidence` and `PointLookups`. Nothing on the node is changed."""

    def __init__(self, name: str = "") -> None:
        """``name`` defaults to what calico-node goes by: NODENAME, then the host's name in lower case."""
        self._name = name or os.environ.get("NODENAME", "") or gethostname().lower()

    @property
    def name(self) -> str:
        """See `NodeEvidence`."""
        return self._name

    @property
    def origin(self) -> str:
        """See `NodeEvidence`."""
        return "this node"

    @cached_property
    def taken_at(self) -> str:
        """When this object was first asked: live evidence is read from then on."""
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @cached_property
    def nftables(self) -> NetlinkDump | None:
        """A socket to nf_tables, opened at first use. Raises `EvidenceError` when that is not allowed."""
        from calico_debug.agent.netlink import NftablesSocket

        return NftablesSocket()

    def close(self) -> None:
        """Close what was opened; it is opened anew when asked for again."""
        opened = self.__dict__.pop("nftables", None)
        if opened is not None:
            opened.close()

    def files(self) -> Sequence[str]:
        """See `NodeEvidence`."""
        return tuple(NODE_COMMANDS)

    def read(self, file: str) -> bytes:
        """See `NodeEvidence`; raises `EvidenceError` too, when a command fails."""
        say(f"reading {self.name}: {file}")
        if file == "sysctl.txt":
            return "".join(f"{key} = {value}\n" for key, value in _sysctls()).encode()
        if file == "felix-env.txt":
            return _felix_environment()
        if file in IPTABLES_LEGACY_FILES and not _has_legacy_tables(IPTABLES_LEGACY_FILES[file]):
            return b""
        command = NODE_COMMANDS.get(file)
        if command is None:
            raise MissingEvidence(f"{file} of this node is not known to this version: {', '.join(self.files())} are")
        return output_of(_of_this_backend(shlex.split(command)) if file in IPTABLES_FILES else shlex.split(command))

    def find_connection(self, wanted: Tuple) -> bytes:
        """See `PointLookups`. One lookup for common protocols outside of zones, else a filtered listing."""
        options = _exact_options(wanted)
        if options is None:
            return self._list_connections(wanted, ORIGINAL_OPTIONS) + self._list_connections(wanted, REPLY_OPTIONS)
        arguments = ["conntrack", "-G", *options]
        done = run(arguments)
        if done.status == 0:
            return done.stdout
        if "such conntrack doesn't exist" in done.stderr:
            return b""
        if " 0 flow entries" in done.stderr:
            # The kernel looks up both directions; the tool then withholds a connection whose reply it is.
            return self._list_connections(wanted, REPLY_OPTIONS)
        raise failed(arguments, done)

    def read_sysctl(self, key: str) -> str | None:
        """See `PointLookups`."""
        # In a key, dots separate and a slash stands for a dot; a file name has it the other way round (sysctl(8)).
        parts = key.replace(".", "\0").replace("/", ".").split("\0")
        if any(part in ("", ".", "..") for part in parts):
            return None
        try:
            return SYSCTL_ROOT.joinpath(*parts).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def _list_connections(self, wanted: Tuple, options: tuple[str, str]) -> bytes:
        source, destination = options
        family = "ipv6" if wanted.source.version == 6 else "ipv4"
        zone = ["-w", str(wanted.zone)] if wanted.zone else []
        ends = [source, str(wanted.source), destination, str(wanted.destination)]
        return output_of(["conntrack", "-L", "-f", family, "-p", str(wanted.protocol), *zone, *ends])


def _exact_options(wanted: Tuple) -> list[str] | None:
    """The options of ``conntrack -G`` for a tuple, None when it cannot ask for one like that."""
    if wanted.zone:
        return None
    ends = ["-p", str(wanted.protocol), "-s", str(wanted.source), "-d", str(wanted.destination)]
    if wanted.icmp and wanted.protocol in ICMP_OPTIONS:
        word = ICMP_OPTIONS[wanted.protocol]
        values = zip(("type", "code", "id"), wanted.icmp, strict=True)
        return [*ends, *(text for name, value in values for text in (f"--{word}-{name}", str(value)))]
    if wanted.protocol in GETTABLE and wanted.source_port is not None and wanted.destination_port is not None:
        return [*ends, "--sport", str(wanted.source_port), "--dport", str(wanted.destination_port)]
    return None


def _has_legacy_tables(family: str) -> bool:
    """Whether the kernel's own iptables hold anything: to ask for a table by name would create it."""
    names = PROCESS_ROOT / f"thread-self/net/{family}_tables_names"
    try:
        return bool(names.read_bytes().strip())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise EvidenceError(f"cannot read {names}: {error.strerror}; run as root") from error


def _of_this_backend(arguments: list[str]) -> list[str]:
    """iptables-nft-save where it is installed by that name: iptables-save may be the legacy one."""
    named = arguments[0].replace("tables-save", "tables-nft-save")
    return [named, *arguments[1:]] if is_installed(named) else arguments


def _sysctls() -> Iterator[tuple[str, str]]:
    for pattern in SYSCTL_PATTERNS:
        for path in sorted(SYSCTL_ROOT.glob(pattern)):
            try:
                value = path.read_text(encoding="utf-8", errors="replace").strip()
            except OSError:
                continue  # an interface that went away meanwhile, or a value that may only be written
            parts = path.relative_to(SYSCTL_ROOT).parts
            yield ".".join(part.replace(".", "/") for part in parts), " ".join(value.split())


def _felix_environment() -> bytes:
    """The FELIX_… variables of the Felix that runs on this node, if its process can be seen from here."""
    for process in PROCESS_ROOT.iterdir():
        if not process.name.isdigit():
            continue
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if not _is_felix(arguments):
                continue
            variables = (process / "environ").read_bytes().split(b"\0")
        except PermissionError as error:
            raise EvidenceError(
                f"cannot read Felix's environment from {process}/environ: it needs the capability CAP_SYS_PTRACE: "
                f"{REMEDY}"
            ) from error
        except OSError:
            continue  # it ended meanwhile
        return b"".join(variable + b"\n" for variable in sorted(variables) if variable.startswith(b"FELIX_"))
    raise MissingEvidence(
        "no process of Felix is visible on this node: run in the host's PID namespace (hostPID: true)"
    )


def _is_felix(arguments: Sequence[bytes]) -> bool:
    program = os.path.basename(arguments[0])  # noqa: PTH119 (bytes)
    return program == b"calico-felix" or (program == b"calico-node" and FELIX_ARGUMENT.encode() in arguments[1:])


class LiveSource:
    """The node that this process runs on, with the objects of its cluster where they can be read; implements
    `EvidenceSource`.
    """

    def __init__(self, name: str = "", cluster: ClusterReader | None = None) -> None:
        """``name`` as for `LiveNode`."""
        from calico_debug.agent.bpf import LiveBpfNode

        self._node: LiveNode = LiveBpfNode(name)
        self._cluster = cluster

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return "this node" if self._cluster is None else f"this node and {self._cluster.origin}"

    def close(self) -> None:
        """Close what the node has open."""
        self._node.close()

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return (self._node.name,)

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        if name != self._node.name:
            raise MissingEvidence(
                f"node {name} is not reachable from here, this is {self._node.name}: run there, or use a bundle of both"
            )
        return self._node

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return () if self._cluster is None else self._cluster.files()

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        if self._cluster is None:
            raise MissingEvidence(
                f"cluster/{file} is not available without a cluster: give IP addresses, name a kubeconfig with "
                "--kubeconfig, or use a bundle"
            )
        return self._cluster.read(file)


class ClusterSource:
    """The objects of a cluster and no node; implements `EvidenceSource`."""

    def __init__(self, cluster: ClusterReader) -> None:
        """Nothing is read yet."""
        self._cluster = cluster

    @property
    def origin(self) -> str:
        """See `EvidenceSource`."""
        return self._cluster.origin

    def nodes(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return ()

    def node(self, name: str) -> NodeEvidence:
        """See `EvidenceSource`."""
        raise MissingEvidence(f"node {name} is not reachable from here: run on the node, or use a bundle")

    def cluster_files(self) -> Sequence[str]:
        """See `EvidenceSource`."""
        return self._cluster.files()

    def read_cluster(self, file: str) -> bytes:
        """See `EvidenceSource`."""
        return self._cluster.read(file)
