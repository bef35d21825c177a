"""Before a switch: every check that its direction takes, in the form of the doctor's report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.doctor.examine import Report, examine
from calico_debug.doctor.model import ClusterCheck, NodeCheck
from calico_debug.errors import EvidenceError
from calico_debug.state.dataplane import EBPF, IPTABLES, NFTABLES
from calico_debug.state.node import NodeState
from calico_debug.switch import installation, meaning, platform, standing
from calico_debug.switch.catalogue import REQUIREMENTS

if TYPE_CHECKING:
    from calico_debug.doctor.model import ClusterView, NodeView, Observation
    from calico_debug.evidence.source import EvidenceSource

TARGETS = (EBPF, NFTABLES, IPTABLES)
"""Where a switch can go."""

RULES = (NFTABLES, IPTABLES)


class Row(NamedTuple):
    """A check and the targets it is for. ``run`` takes the target, too, where ``aimed``. ``crossing`` ones matter only
    on the way to eBPF or from it.
    """

    name: str
    about: str
    targets: Sequence[str]
    run: Callable[..., Iterator[Observation]]
    aimed: bool = False
    crossing: bool = False


CLUSTER_ROWS: tuple[Row, ...] = (
    Row("evidence", "lists of settings that are missing", TARGETS, installation.check_evidence),
    Row("installation", "what the Installation says now", TARGETS, installation.check_already, aimed=True),
    Row("API server", "how Calico reaches it without kube-proxy", (EBPF,), installation.check_api_server),
    Row("kube-proxy", "whether its DaemonSet runs", TARGETS, installation.check_kube_proxy, aimed=True),
    Row("host ports", "host ports of the Installation and of pods", (EBPF,), installation.check_host_ports),
    Row("release", "whether the release has nftables mode", (NFTABLES,), platform.check_release),
    Row("log", "rules with action Log", (EBPF,), meaning.check_log),
    Row("protocol names", "rules that name ICMPv6 or UDPLite", (EBPF,), meaning.check_protocol_names),
    Row("SCTP", "rules and services of SCTP", (EBPF,), meaning.check_sctp),
    Row("ICMP codes", "rules with an ICMP type and code", (NFTABLES,), meaning.check_icmp_codes),
    Row("settings", "settings under another name", (NFTABLES,), meaning.check_settings),
    Row(
        "services",
        "services that are reached otherwise, to eBPF or from it",
        TARGETS,
        meaning.check_services,
        True,
        crossing=True,
    ),
)
"""What is looked at once; docs/switch.md has the same table."""

NODE_ROWS: tuple[Row, ...] = (
    Row("dataplane", "what the node runs now", TARGETS, platform.check_node_already, aimed=True),
    Row("kernel", "its version, as the kubelet reports it", (EBPF,), platform.check_kernel),
    Row("data interface", "the interface with the node's address", (EBPF,), platform.check_data_interface),
    Row("unsupported", "features that eBPF does not support", (EBPF,), platform.check_unsupported),
    Row("kube-proxy elsewhere", "kube-proxy without a DaemonSet", (EBPF,), platform.check_kube_proxy_elsewhere),
    Row("kube-proxy's mode", "kube-proxy's rules", RULES, platform.check_kube_proxy_mode, aimed=True),
    Row("connections", "open connections, to eBPF or from it", TARGETS, standing.check_connections, aimed=True),
)
"""What is looked at on each node; docs/switch.md has the same table."""


def check_switch(source: EvidenceSource, nodes: Sequence[str], target: str) -> Report:
    """Look at ``nodes`` of ``source`` and its cluster before a switch to ``target``, one of `TARGETS`. Nothing raises
    `EvidenceError`.
    """
    crossing = target == EBPF or any(_may_run_ebpf(source, name) for name in nodes)
    rows = [
        [row for row in table if target in row.targets and (crossing or not row.crossing)]
        for table in (NODE_ROWS, CLUSTER_ROWS)
    ]
    on_nodes = [NodeCheck(row.name, row.about, _aimed(row, target)) for row in rows[0]]
    once = [ClusterCheck(row.name, row.about, _aimed(row, target)) for row in rows[1]]
    return examine(source, nodes, on_nodes, once, REQUIREMENTS)


def _may_run_ebpf(source: EvidenceSource, node: str) -> bool:
    try:
        return NodeState(source.node(node)).dataplane in (EBPF, "")
    except EvidenceError:
        return True


def _aimed(row: Row, target: str) -> Callable[[NodeView | ClusterView], Iterator[Observation]]:
    return partial(row.run, target=target) if row.aimed else row.run
