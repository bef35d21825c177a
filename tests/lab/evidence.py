"""A lab cluster written down as a bundle: each file is the output of the command that the layout names."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files

if TYPE_CHECKING:
    from tests.lab.model import Model, Node
    from tests.lab.topology import Topology, Wiring

COMMANDS = {
    "nft-ruleset.json": ["nft", "-j", "list", "ruleset"],
    "nft-ruleset.txt": ["nft", "-a", "list", "ruleset"],
    "ip-addr.json": ["ip", "-j", "-d", "addr"],
    "ip-link.json": ["ip", "-j", "-d", "link"],
    "ip-neigh.json": ["ip", "-j", "-d", "neigh"],
    "ip-route.json": ["ip", "-j", "-d", "route"],
    "ip-rule.json": ["ip", "-j", "-d", "rule"],
    "ip-route-all.json": ["ip", "-j", "route", "show", "table", "all"],
    "conntrack.txt": ["conntrack", "-L"],
    "tc-qdisc.json": ["tc", "-j", "-s", "qdisc", "show"],
}
COMMANDS_V6 = {
    "ip6-route-all.json": ["ip", "-6", "-j", "route", "show", "table", "all"],
    "ip6-rule.json": ["ip", "-6", "-j", "rule"],
    "conntrack6.txt": ["conntrack", "-L", "-f", "ipv6"],
}
NEEDED_TO_TRACE = ("nft-ruleset.json", "ip-addr.json", "ip-link.json", "ip-route-all.json", "ip-rule.json")
"""The files that a test cannot do without when it writes many bundles; conntrack and the rest cost time."""

_SYSCTLS = (
    "ipv4/ip_forward",
    *(f"ipv4/conf/*/{name}" for name in ("accept_local", "forwarding", "proxy_arp", "route_localnet", "rp_filter")),
    "ipv4/conf/*/send_redirects",
    "ipv4/conf/*/src_valid_mark",
    "ipv6/conf/*/forwarding",
    "netfilter/nf_conntrack_*",
)
"""Below /proc/sys/net, as shell patterns."""


def write_bundle(directory: Path, wiring: Wiring, model: Model, *, complete: bool = True) -> None:
    """Write ``cluster/`` and every node's evidence. Without ``complete`` only what a walk reads (about 4x faster)."""
    cluster = directory / "cluster"
    cluster.mkdir(parents=True, exist_ok=True)
    for name, content in cluster_files(wiring.topology, model).items():
        (cluster / name).write_text(json.dumps(content))
    for node in wiring.topology.nodes:
        write_node(directory / "nodes" / node.name, wiring, model, node, complete=complete)


def write_node(directory: Path, wiring: Wiring, model: Model, node: Node, *, complete: bool = True) -> None:
    """Write one node's evidence."""
    directory.mkdir(parents=True, exist_ok=True)
    name = wiring.names[node.name]
    commands = COMMANDS | (COMMANDS_V6 if wiring.topology.ipv6 else {})
    for file, command in commands.items():
        if complete or file in {*NEEDED_TO_TRACE, "ip6-route-all.json", "ip6-rule.json", "conntrack.txt"}:
            (directory / file).write_text(namespaces.run(name, command))
    (directory / "felix-env.txt").write_text(felix_environment(wiring.topology, model, node))
    (directory / "sysctl.txt").write_text(_sysctls(name))


def _sysctls(name: str) -> str:
    """What ``sysctl -a`` prints for the settings that matter; a setting that cannot be read is left out."""
    found = {}
    root = Path("/proc/sys/net")
    with namespaces.entered(name):
        for pattern in _SYSCTLS:
            for path in root.glob(pattern):
                with suppress(OSError):
                    key = ".".join(part.replace(".", "/") for part in path.relative_to("/proc/sys").parts)
                    found[key] = path.read_text().strip()
    return "".join(f"{key} = {value}\n" for key, value in sorted(found.items()))


def felix_environment(topology: Topology, model: Model, node: Node) -> str:
    """Felix's environment with the settings that the model's rules were made from."""
    felix = model.felix
    settings = {
        "DATASTORETYPE": "kubernetes",
        "DEFAULTENDPOINTTOHOSTACTION": felix.endpoint_to_host.upper(),
        "FELIXHOSTNAME": node.name,
        "IPV6SUPPORT": str(topology.ipv6).lower(),
        "NFTABLESMODE": "Enabled",
    }
    if felix.mark_mask != 0xFFFF0000:
        settings["NFTABLESMARKMASK"] = f"{felix.mark_mask:#x}"
    if felix.deny_action != "Drop":
        settings["NFTABLESFILTERDENYACTION"] = felix.deny_action.upper()
    if felix.allow_action != "Accept":
        settings["NFTABLESFILTERALLOWACTION"] = felix.allow_action.upper()
    if felix.flow_logs:
        settings["FLOWLOGSLOCALREPORTER"] = "Enabled"
    return "".join(f"FELIX_{key}={value}\n" for key, value in sorted(settings.items()))
