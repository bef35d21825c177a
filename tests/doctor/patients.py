"""Made-up nodes and clusters for the doctor."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calico_debug.doctor.examine import Report, examine
from tests.evidence.bpf_node import BpfNode
from tests.evidence.memory import MemoryNode, MemorySource
from tests.explain.rules import ruleset
from tests.explain.world import SYSCTLS, Node, objects

Json = dict[str, Any]

COUNTERS = [({"ifindex": 3, "hook": hook}, {}) for hook in (0, 1)]
WORKLOAD, READY = 1, 3
ROUTES: Sequence[Json] = (
    {"dst": "10.244.1.1", "dev": "cali1", "scope": "link"},
    {"dst": "default", "gateway": "172.30.0.254", "dev": "eth0"},
)


def report(*nodes: Node, cluster: Mapping[str, str] | None = None) -> Report:
    """What the doctor says of nodes with rules."""
    source = MemorySource(objects(nodes) if cluster is None else cluster, {n.name: n.evidence() for n in nodes})
    return examine(source, source.nodes())


def link(index: int, name: str, mtu: int = 1500, kind: str = "", up: bool = True, **data: Any) -> Json:
    info = {"linkinfo": {"info_kind": kind, "info_data": data}} if kind else {}
    return {"ifindex": index, "ifname": name, "mtu": mtu, "flags": ["UP"] if up else [], "addr_info": [], **info}


def links(*more: Json, mtu: int = 1500) -> str:
    """Of a node with one pod: lo, eth0 with the node's address, cali1."""
    eth0 = link(2, "eth0")
    eth0["addr_info"] = [{"family": "inet", "local": "172.30.0.1", "prefixlen": 24, "scope": "global"}]
    return json.dumps([link(1, "lo", 65536), eth0, link(3, "cali1", mtu), *more])


def link_files(*more: Json, mtu: int = 1500) -> dict[str, str | None]:
    return {"ip-link.json": links(*more, mtu=mtu), "ip-addr.json": links(*more, mtu=mtu)}


def bpf(flags: int = READY, entries: Mapping[str, Any] | None = None) -> BpfNode:
    """A healthy eBPF node with one pod, to be changed."""
    state = {"flags": flags, "name": "cali1", "ingress_policy_v4": 5, "egress_policy_v4": 5}
    made = BpfNode({"cali_iface4": [({"ifindex": 3}, state)], "cali_counters6": COUNTERS, **(entries or {})})
    made.files.update(
        {
            "nft-ruleset.json": ruleset({}),
            "ip-link.json": links(),
            "ip-addr.json": links(),
            "ip-route-all.json": json.dumps(ROUTES),
            "ip-rule.json": "[]",
            "sysctl.txt": f"{SYSCTLS}net.ipv4.conf.all.rp_filter = 0\nnet.netfilter.nf_conntrack_max = 100\n",
            "conntrack.txt": "",
            "felix-env.txt": "FELIX_BPFENABLED=true\n",
        }
    )
    return made


def bpf_report(made: BpfNode, cluster: Mapping[str, str] | None = None) -> Report:
    """What the doctor says of an eBPF node, called n1."""
    nodes: dict[str, MemoryNode] = {"n1": made.evidence()}
    source = MemorySource(objects([Node(1, pods=[1])]) if cluster is None else cluster, nodes)
    return examine(source, source.nodes())


def codes(made: Report) -> list[tuple[str, str]]:
    """(severity, code) of every finding but that of services, once each."""
    return list(dict.fromkeys((one.severity, one.code) for one in made.findings))


def seen(made: Report, code: str) -> list[str]:
    """What was seen of a code."""
    return [one.seen for one in made.findings if one.code == code]


def why(made: Report, check: str) -> list[str]:
    """What a check says that it could not look at."""
    return [one.why for one in made.unseen if one.check == check]
