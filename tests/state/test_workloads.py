"""How pods' interfaces begin: what Felix is told, what it programmed, what is usual."""

from __future__ import annotations

import json

import pytest

from calico_debug.state.node import NodeState
from calico_debug.state.workloads import routed_addresses, workload_prefixes
from tests.evidence.memory import MemoryNode

SAVED = """*filter
:FORWARD ACCEPT [0:0]
:cali-FORWARD - [0:0]
-A FORWARD -j cali-FORWARD
-A cali-FORWARD -i azv+ -j ACCEPT
-A cali-FORWARD -o azv+ -j ACCEPT
-A cali-FORWARD -i eth0 -j ACCEPT
-A cali-FORWARD ! -i eni+ -j ACCEPT
-A cali-FORWARD -o gke+ -j ACCEPT
COMMIT
"""


def nft(*rules: object) -> str:
    place = {"family": "ip", "table": "calico"}
    chain = {"chain": {**place, "name": "filter-cali-FORWARD", "handle": 2}}
    listed = [
        {"rule": {**place, "chain": "filter-cali-FORWARD", "handle": 3 + n, "expr": [rule]}}
        for n, rule in enumerate(rules)
    ]
    return json.dumps({"nftables": [{"table": {"family": "ip", "name": "calico", "handle": 1}}, chain, *listed]})


def interface(key: str, name: str) -> object:
    return {"match": {"op": "==", "left": {"meta": {"key": key}}, "right": name}}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ("cali",)),
        ({"felix-env.txt": "FELIX_INTERFACEPREFIX=eni, cali,\n"}, ("eni", "cali")),
        ({"felix-env.txt": "FELIX_INTERFACEPREFIX= ,\n", "iptables-save.txt": SAVED}, ("azv", "gke")),
        ({"felix-env.txt": "FELIX_INTERFACEPREFIX=eni\n", "iptables-save.txt": SAVED}, ("eni",)),
        ({"iptables-save.txt": SAVED}, ("azv", "gke")),
        ({"nft-ruleset.json": nft(interface("iifname", "azv*"), interface("oifname", "eth0"))}, ("azv",)),
        ({"nft-ruleset.json": nft(interface("oifname", "eth0"))}, ("cali",)),
        ({"nft-ruleset.json": "no JSON"}, ("cali",)),
    ],
)
def test_prefixes(files: dict[str, str], expected: tuple[str, ...]) -> None:
    assert workload_prefixes(NodeState(MemoryNode(files))) == expected


def test_addresses_behind_interfaces() -> None:
    routes = [
        {"dst": "10.244.1.10", "dev": "cali1", "scope": "link", "flags": []},
        {"dst": "10.244.1.11", "dev": "cali1", "scope": "link", "flags": []},
        {"dst": "10.244.2.0/24", "gateway": "192.168.0.2", "dev": "eth0", "flags": []},
        {"type": "local", "dst": "192.168.0.1", "dev": "eth0", "table": "local", "scope": "host", "flags": []},
    ]
    problems: list[str] = []
    files = {"ip-route-all.json": json.dumps(routes), "ip-rule.json": "[]", "ip6-route-all.json": "no JSON"}
    node = NodeState(MemoryNode(files))
    assert routed_addresses(node, problems.append) == {"cali1": ["10.244.1.10", "10.244.1.11"]}
    (problem,) = problems
    assert "ip6-route-all.json" in problem
