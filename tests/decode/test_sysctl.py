"""sysctl -a."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.sysctl import decode_sysctl


def test_lines() -> None:
    text = b"""net.ipv4.ip_forward = 1
net.ipv4.conf.vxlan/calico.rp_filter=2
sysctl: permission denied on key 'fs.protected_fifos'
net.ipv4.tcp_rmem = 4096\t131072\t6291456
kernel.core_pattern = |/bin/x a=b
empty =
net.ipv4.ip_forward = 0
"""
    assert decode_sysctl(text) == {
        "net.ipv4.ip_forward": "0",
        "net.ipv4.conf.vxlan/calico.rp_filter": "2",
        "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
        "kernel.core_pattern": "|/bin/x a=b",
        "empty": "",
    }


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    assert all(key == key.strip() and key for key in decode_sysctl(data))
