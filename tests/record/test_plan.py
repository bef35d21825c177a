"""Rules are read before what packets change, and lists of secrets never."""

from __future__ import annotations

from calico_debug.evidence.contents import NODE_COMMANDS
from calico_debug.record.plan import is_never_read, reading_order


def test_rules_first_connections_last() -> None:
    order = reading_order(sorted(NODE_COMMANDS))
    assert set(order) == set(NODE_COMMANDS)
    assert order[0] == "nft-ruleset.json"
    assert set(order[-2:]) == {"conntrack.txt", "conntrack6.txt"}
    assert order.index("ipset-save.txt") < order.index("ip-addr.json")


def test_maps_of_connections_after_maps_of_services() -> None:
    files = ["bpf/map-cali_v4_ct4.json", "bpf/map-cali_v4_nat_fe3.json", "bpf/prog-show.json", "else.txt"]
    assert reading_order([*files, *files]) == [files[2], files[1], files[0], files[3]]


def test_secrets_are_never_read() -> None:
    assert is_never_read("secrets.json")
    assert is_never_read("configmaps.json")
    assert not is_never_read("pods.json")
