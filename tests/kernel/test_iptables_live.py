"""A live node's iptables rules: read from the kernel, with nothing created by looking."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveNode
from calico_debug.model.nft import Verdict
from calico_debug.state.combined import IPTABLES_LEGACY, IPTABLES_NFT, NFTABLES, CombinedRuleset
from calico_debug.state.node import NodeState
from calico_debug.state.ruleset import KernelRuleset
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.nft import Rule

pytestmark = pytest.mark.kernel

NAMES = Path("/proc/thread-self/net/ip_tables_names")
RULES = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -m set --match-set s src -j {target}\nCOMMIT\n"


@pytest.fixture
def namespace() -> Iterator[str]:
    if why := namespaces.supported():
        pytest.skip(why)
    (name,) = namespaces.create(["live"]).values()
    yield name
    namespaces.delete([name])


def forward(state: NodeState, table: str) -> Rule:
    rules = state.ruleset.rules("ip", table, "FORWARD")
    assert rules is not None
    (rule,) = rules
    return rule


def test_a_node_without_iptables_rules_stays_without(namespace: str) -> None:
    namespaces.nft(namespace, "table ip calico { chain c { type filter hook input priority 0; }; }")
    with namespaces.entered(namespace):
        state = NodeState(LiveNode("n1"))
        assert isinstance(state.ruleset, KernelRuleset)
        assert state.ruleset.tables() == [("ip", "calico")]
        assert NAMES.read_text() == ""
    assert namespaces.run(namespace, ["iptables-nft-save"]) == ""


def test_rules_of_both_backends_and_sets(namespace: str) -> None:
    namespaces.nft(namespace, "table ip calico { chain c { type filter hook input priority 0; }; }")
    namespaces.run(namespace, ["ipset", "restore"], "create s hash:ip family inet\nadd s 0.0.0.7\n")
    namespaces.run(namespace, ["iptables-nft-restore"], RULES.format(target="ACCEPT"))
    namespaces.run(namespace, ["iptables-legacy-restore"], RULES.format(target="DROP"))
    with namespaces.entered(namespace):
        state = NodeState(LiveNode("n1"))
        found = state.ruleset
        assert isinstance(found, CombinedRuleset)
        assert found.tables() == (("ip", "filter (legacy)"), ("ip", "calico"), ("ip", "filter"))
        assert found.kinds() == {
            ("ip", "calico"): NFTABLES,
            ("ip", "filter"): IPTABLES_NFT,
            ("ip", "filter (legacy)"): IPTABLES_LEGACY,
        }
        assert forward(state, "filter").statements[-1] == Verdict("accept")
        assert forward(state, "filter (legacy)").statements[-1] == Verdict("drop")
        assert found.find("ip", "filter", "s", 7) is not None
        assert found.find("ip", "filter (legacy)", "s", 8) is None
        assert NAMES.read_text().split() == ["filter"]


def test_legacy_rules_alone(namespace: str) -> None:
    namespaces.run(namespace, ["iptables-legacy-restore"], "*raw\n:OUTPUT DROP [0:0]\nCOMMIT\n")
    with namespaces.entered(namespace):
        state = NodeState(LiveNode("n1"))
        assert [(c.table, c.name, c.hook and c.hook.policy) for c in state.ruleset.base_chains()] == [
            ("raw", "PREROUTING", "accept"),
            ("raw", "OUTPUT", "drop"),
        ]
        assert NAMES.read_text().split() == ["raw"]
