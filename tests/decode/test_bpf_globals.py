"""Read-only data of programs, by release."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.bpf_globals import (
    TC_GLOBALS,
    TIMEOUTS,
    XDP_GLOBALS,
    decode_tc_globals,
    decode_timeouts,
    decode_xdp_globals,
)

NONE = 0xFFFFFFFF


@pytest.mark.parametrize(("place", "size"), [(0, 256), (1, 264), (2, 268), (3, 276)])
def test_settings_of_every_release(place: int, size: int) -> None:
    layout = TC_GLOBALS[place]
    assert layout.size == size
    jumps = (4, 2, *([NONE] * 38))
    four = layout.pack(
        {
            "host_ip": ip_address("172.30.0.11").packed + bytes(12),
            "interface": "cali123---------"[:15],
            "jumps": jumps,
            "log_filter_jump": NONE,
            "flags": 0x10,
            "nat_in_ifindex": 8,
            "overlay_tunnel_id": 1,
            "host_ifindex": 77,
        }
    )
    six = layout.pack({"host_ip": ip_address("fd00::1").packed, "interface": "cali123--------", "jumps": (NONE,) * 40})
    found = decode_tc_globals(four + six)
    assert found[4].interface == found[6].interface == "cali123"
    assert found[4].host_ip == ip_address("172.30.0.11")
    assert found[6].host_ip == ip_address("fd00::1")
    assert found[4].jumps[:3] == (4, 2, None)
    assert set(found[6].jumps) == {None}
    assert (found[4].log_filter_jump, found[6].log_filter_jump) == (None, 0)
    assert found[4].overlay_tunnel_id == (1 if place else None)
    assert found[4].host_ifindex == (77 if place == 3 else None)


def test_xdp_and_timeouts() -> None:
    data = XDP_GLOBALS.pack({"interface": "eth0-----------", "jumps": (1, 0, *([NONE] * 14))})
    assert decode_xdp_globals(data + bytes(80))[4].jumps[:3] == (1, 0, None)
    assert decode_timeouts(TIMEOUTS.pack({"udp": 60 * 10**9})).udp == 60 * 10**9


@given(st.binary(max_size=600))
def test_other_sizes_are_an_error(data: bytes) -> None:
    if len(data) not in {2 * layout.size for layout in TC_GLOBALS}:
        with pytest.raises(ValueError, match="a preamble's settings have"):
            decode_tc_globals(data)
    if len(data) != 160:
        with pytest.raises(ValueError, match="an XDP preamble's"):
            decode_xdp_globals(data)
