"""Maglev's hash. The expected numbers are those of hashword of felix/bpf-gpl/jenkins_hash.h (v3.32.1), compiled by
clang and by gcc and given the words that maglev.h puts together.
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.walk.bpf_maglev import maglev_hash


@pytest.mark.parametrize(
    ("protocol", "source", "sport", "destination", "dport", "expected"),
    [
        (6, "198.51.100.9", 40000, "10.96.0.1", 80, 2865117029),
        (17, "203.0.113.70", 65535, "172.30.0.11", 30002, 3386464053),
        (6, "2001:db8::9", 40000, "fd00:96::1", 80, 565789977),
        (17, "2001:db8:113::70", 1024, "fd00:30::11", 53, 3038305341),
    ],
)
def test_the_compiled_hash(protocol: int, source: str, sport: int, destination: str, dport: int, expected: int) -> None:
    ends = ip_address(source), ip_address(destination)
    assert maglev_hash(ends[0].version, protocol, int(ends[0]), sport, int(ends[1]), dport) == expected
