"""Open connections before a switch."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.switch.check import check_switch
from tests.recordings import DATA
from tests.switch.ebpf_node import SERVICE, entry, linux
from tests.switch.ebpf_node import source as ebpf_source
from tests.switch.sources import checked, found, source

Entry = tuple[dict[str, Any], dict[str, Any]]

TCP = (
    b"tcp 6 86000 ESTABLISHED src=10.244.1.30 dst=10.96.20.2 sport=40000 dport=6379 "
    b"src=10.244.2.31 dst=10.244.1.30 sport=6379 dport=40000 [ASSURED] mark=0 use=1\n"
)


def test_to_ebpf() -> None:
    report = checked("nft", "ebpf", None, conntrack__txt=TCP)
    assert found(report, "connections-stay") == [
        ("info", "node1", "1 tcp; clients: client/client-5f8b"),
        ("info", "node2", "1 tcp; clients: client/client-5f8b"),
    ]
    assert not found(report, "connections-asked-anew")
    anew = found(checked("nft", "ebpf"), "connections-asked-anew")
    assert ("info", "node1", "1 icmp, 1 udp; clients: 172.30.0.11") in anew


@pytest.mark.parametrize(
    ("conntrack", "entries", "seen"),
    [
        ("", [entry(1000)], "1 tcp, 0 of them through a service's address; clients: shop/pod11"),
        ("", [entry(1000), entry(1001, SERVICE)], "2 tcp, 1 of them through a service's address; clients: shop/pod11"),
        (linux(1000), [entry(1000)], ""),
        ("", [], ""),
    ],
)
def test_from_ebpf_what_linux_does_not_know_is_cut(conntrack: str, entries: list[Entry], seen: str) -> None:
    for target in ("iptables", "nftables"):
        made = ebpf_source(conntrack, *entries)
        cut = found(check_switch(made, made.nodes(), target), "connections-at-risk")
        assert cut == ([("warning", "n1", seen)] if seen else [])
    assert not found(check_switch(made, made.nodes(), "ebpf"), "connections-at-risk")


def test_between_rules_nothing_happens_to_them() -> None:
    codes = {one.code for one in checked("nft", "iptables", None, conntrack__txt=TCP).findings}
    assert not [code for code in codes if code.startswith("connections")]


def test_connections_that_cannot_be_read_are_told() -> None:
    report = checked("nft", "ebpf", None, conntrack__txt=None)
    assert [one.check for one in report.unseen if one.check == "connections"] == ["connections"] * 2
    assert source("nft").origin.startswith(str(DATA))
