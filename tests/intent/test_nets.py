from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.intent.nets import NetIndex

ADDRESSES = st.one_of(
    st.integers(0, 255).map(lambda n: IPv4Address(0x0A000000 + n * 0x10001)),
    st.integers(0, 255).map(lambda n: IPv6Address((0xFD << 120) + n * 0x10001)),
)
NETS = st.builds(
    lambda address, length: ip_network(f"{address}/{min(length, address.max_prefixlen)}", strict=False),
    ADDRESSES,
    st.sampled_from([0, 8, 16, 24, 30, 32, 64, 112, 128]),
)


@given(st.lists(st.tuples(NETS, st.integers(0, 9)), max_size=20), ADDRESSES)
def test_like_looking_at_every_network(entries: list[tuple[object, int]], address: IPv4Address | IPv6Address) -> None:
    index = NetIndex(entries)  # type: ignore[arg-type]
    wanted = {item for net, item in entries if net.version == address.version and address in net}  # type: ignore
    found = index.covering(address)
    assert len(found) == len(set(found))
    assert set(found) == wanted
