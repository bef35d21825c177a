"""How pods' interfaces begin: what Felix is told, what it programmed, what is usual."""

from __future__ import annotations

import json

import pytest

from calico_debug.state.node import NodeState
from calico_debug.state.workloads import workload_prefixes
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
