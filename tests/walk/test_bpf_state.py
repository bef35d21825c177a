"""The state that policy programs read, by release."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.model.values import unknown
from calico_debug.walk.bpf_state import (
    LAYOUTS,
    PolicyPacket,
    StateLayout,
    layout_of_fields,
    layout_of_size,
    number_in,
    rule_ids_in,
    state_of,
)


def test_layouts() -> None:
    assert layout_of_size(480).fields["flags"] == (360, 8)
    assert layout_of_size(512).fields["flags"] == layout_of_size(488).fields["flags"] == (368, 8)
    assert layout_of_fields({"ip_proto": 96, "new_field": 4}) is LAYOUTS[0]
    with pytest.raises(EvidenceError, match="520 bytes, and known are 480"):
        layout_of_size(520)
    with pytest.raises(EvidenceError, match="newer release"):
        layout_of_fields({"ip_proto": 97})


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: str(layout.size))
def test_fields(layout: StateLayout) -> None:
    packet = PolicyPacket(4, 6, 0x0A000001, 0x0A000002, 40000, 8080, 0x0A600001, 80, from_host=True, to_host=True)
    state = state_of(packet, layout)
    start = layout.fields["ip_src"][0]
    assert bytes(state.data[start : start + 4]) == ip_address("10.0.0.1").packed
    read = {
        name: number_in(state, layout, name) for name in ("sport", "dport", "pre_nat_dport", "post_nat_dport", "flags")
    }
    assert read == {"sport": 40000, "dport": 80, "pre_nat_dport": 80, "post_nat_dport": 8080, "flags": 0xC}
    before, after = layout.fields["pre_nat_ip_dst"][0], layout.fields["post_nat_ip_dst"][0]
    assert bytes(state.data[before : before + 4]) == ip_address("10.96.0.1").packed
    assert bytes(state.data[after : after + 4]) == ip_address("10.0.0.2").packed
    assert rule_ids_in(state, layout) == ()


def test_ipv6_and_icmp() -> None:
    layout = LAYOUTS[-1]
    packet = PolicyPacket(6, 58, int(ip_address("fd00::1")), int(ip_address("fd00::2")), 0, 128 | 1 << 8)
    state = state_of(packet, layout)
    assert bytes(state.data[8:24]) == ip_address("fd00::1").packed
    assert bytes(state.data[56:72]) == ip_address("fd00::2").packed
    assert (number_in(state, layout, "icmp_type"), number_in(state, layout, "icmp_code")) == (128, 1)


def test_open_fields_stay_open() -> None:
    layout = LAYOUTS[-1]
    state = state_of(PolicyPacket(4, 6, 1, 2, unknown(16, "source port: not given"), 80), layout)
    offset, size = layout.fields["sport"]
    assert bytes(state.known[offset : offset + size]) == b"\0\0"
    assert state.known.count(0) == 2
