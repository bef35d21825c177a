"""Maps, sets and tables that are full."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.doctor.patients import bpf, bpf_report, codes, report, seen, why
from tests.explain.world import SYSCTLS, Node

LINE = (
    "tcp 6 100 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport={port} dport=80 "
    "src=10.0.0.2 dst=10.0.0.1 sport=80 dport={port} [ASSURED] use=1\n"
)


@pytest.mark.parametrize(("limit", "expected"), [(1, [("error", "map-full")]), (2, []), (10, [])])
def test_maps(limit: int, expected: list[tuple[str, str]]) -> None:
    made = bpf()
    made.maps = [replace(one, max_entries=limit) if one.name == "cali_iface4" else one for one in made.maps]
    found = bpf_report(made)
    assert codes(found) == expected
    if expected:
        assert seen(found, "map-full") == ["map cali_iface4 holds 1 of at most 1 entries"]


def test_a_map_that_was_not_dumped() -> None:
    made = bpf()
    made.files["bpf/map-cali_v4_routes.json"] = "absent"
    assert any("how full map cali_v4_routes is" in text for text in why(bpf_report(made), "maps"))


@pytest.mark.parametrize(
    ("sysctls", "expected"),
    [
        ("max = 4", [("error", "conntrack-full")]),
        ("max = 5", []),
        ("max = 100", []),
        ("max = 100\nnet.netfilter.nf_conntrack_count = 90", [("warning", "conntrack-full")]),
        ("max = 100\nnet.netfilter.nf_conntrack_count = 89", []),
    ],
)
def test_connections(sysctls: str, expected: list[tuple[str, str]]) -> None:
    """The count is a sysctl, else the number of lines."""
    files = {"sysctl.txt": f"{SYSCTLS}net.netfilter.nf_conntrack_{sysctls}\n"}
    listing = "".join(LINE.format(port=port) for port in range(1, 5))
    assert codes(report(Node(1, pods=[1], conntrack=listing, files=files))) == expected


def test_connections_without_evidence() -> None:
    assert "nf_conntrack_max is not in evidence" in why(report(Node(1, pods=[1])), "connections")[0]


SAVED = (
    "*filter\n:FORWARD ACCEPT [0:0]\n:cali-from-wl-dispatch - [0:0]\n:cali-tw-cali1 - [0:0]\n-A FORWARD -j ACCEPT\n"
    "COMMIT\n"
)


@pytest.mark.parametrize(("limit", "expected"), [(2, [("error", "set-full")]), (3, [])])
def test_ipsets(limit: int, expected: list[tuple[str, str]]) -> None:
    sets = f"create s hash:ip family inet hashsize 64 maxelem {limit}\nadd s 10.0.0.1\nadd s 10.0.0.2\n"
    files = {"iptables-save.txt": SAVED, "ipset-save.txt": sets}
    assert codes(report(Node(1, pods=[1], calico=False, files=files))) == expected
