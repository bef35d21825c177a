"""What runs at a hook, and in which order."""

from __future__ import annotations

from calico_debug.model.nft import Chain, Hook
from calico_debug.walk import hooks
from calico_debug.walk.choices import Unsure
from calico_debug.walk.hooks import Builtin


def _chain(name: str, hook: str, priority: int, kind: str = "filter", family: str = "ip", table: str = "t") -> Chain:
    return Chain(family, table, name, 1, Hook(kind, hook, priority))


def _names(chains: list[Chain], hook: str, family: int = 4) -> list[str]:
    return [
        s.chain.name if s.chain else s.builtin.value if s.builtin else "" for s in hooks.stages(chains, family, hook)
    ]


def test_priorities_order_chains_and_the_younger_of_equals_runs_first() -> None:
    chains = [
        _chain("a", "forward", 0),
        _chain("b", "forward", 0),
        _chain("c", "forward", -10),
        _chain("x", "input", 0),
    ]
    assert _names(chains, "forward") == ["c", "b", "a"]


def test_conntrack_and_nat_sit_where_the_kernel_puts_them() -> None:
    chains = [
        _chain("raw", "prerouting", -300),
        _chain("mangle", "prerouting", -150),
        _chain("late", "prerouting", -50),
    ]
    nat = _chain("nat", "prerouting", 200, "nat")
    assert _names([*chains, nat], "prerouting") == ["raw", "conntrack", "mangle", "nat", "late"]
    stage = hooks.stages([*chains, nat], 4, "prerouting")[3]
    assert (stage.builtin, stage.nat_chains) == (Builtin.NAT, (nat,))


def test_the_nat_core_is_as_old_as_the_first_nat_chain_of_any_hook() -> None:
    first, filtering = _chain("post", "postrouting", 100, "nat"), _chain("same", "prerouting", -100)
    assert _names([first, filtering], "prerouting") == ["conntrack", "same", "nat"]
    assert _names([filtering, first], "prerouting") == ["conntrack", "nat", "same"]


def test_families_see_their_own_and_inet() -> None:
    chains = [
        _chain("four", "input", 0),
        _chain("six", "input", 0, family="ip6"),
        _chain("both", "input", 1, family="inet"),
    ]
    assert _names(chains, "input") == ["four", "both", "nat"]
    assert _names(chains, "input", 6) == ["six", "both", "nat"]


def test_felix_chains_are_as_old_as_the_table_they_were_written_with() -> None:
    tables = [("ip", "calico"), ("ip", "kube-proxy"), ("arp", "calico-arp")]
    calico, proxy = _chain("c", "forward", 0, table="calico"), _chain("k", "forward", 0, table="kube-proxy")
    assert hooks.by_registration([calico, proxy], tables) == [proxy, calico]


def test_chains_of_devices() -> None:
    on = Chain("netdev", "t", "c", 1, Hook("filter", "ingress", 0, devices=("eth0",)))
    assert hooks.applies_to(on, "eth0") is True
    assert hooks.applies_to(on, "eth1") is False
    unlisted = Chain("netdev", "t", "c", 1, Hook("filter", "ingress", 0))
    answer = hooks.applies_to(unlisted, "eth1")
    assert isinstance(answer, Unsure)
    assert "chain c of table netdev t" in answer.why
    assert hooks.applies_to(_chain("f", "forward", 0), "eth1") is True
