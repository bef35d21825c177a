"""Rules as Felix prints them."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from calico_debug.explain.listing.felix_text import member_text, programmed_text, set_names
from calico_debug.model.bpf import IpSetMember


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('action:"allow"  protocol:{name:"udp"}  rule_id:"Wri"', 'protocol:{name:"udp"}'),
        ('action:"deny"  rule_id:"x"', "everything"),
        (r'action:"deny"  original_src_selector:"a == \"b\""  src_net:"10.0.0.0/8"', 'src_net:"10.0.0.0/8"'),
        ("", ""),
    ],
)
def test_what_felix_prints_of_a_rule(text: str, expected: str) -> None:
    assert programmed_text(text) == expected


def test_sets_with_the_side_that_is_looked_up() -> None:
    text = 'src_ip_set_ids:"s:a" not_dst_ip_set_ids:"s:b" dst_named_port_ip_set_ids:"n:c" dst_ip_port_set_ids:"svc:d"'
    assert list(set_names(text)) == [
        ("source", "s:a"),
        ("not destination", "s:b"),
        ("destination with port", "n:c"),
        ("destination with port", "svc:d"),
    ]


def test_members() -> None:
    assert member_text(IpSetMember(1, ip_network("10.0.0.1/32"))) == "10.0.0.1"
    assert member_text(IpSetMember(1, ip_network("10.0.0.0/8"))) == "10.0.0.0/8"
    assert member_text(IpSetMember(1, ip_network("fd00::1/128"), 53, 17)) == "fd00::1 udp 53"
