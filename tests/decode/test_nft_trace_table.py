"""The table that traces a flow, as nft itself shows it, and what its rules can do to a packet."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from calico_debug.agent.observe import Observer
from calico_debug.decode.nft_trace_table import PREFIX, Limits, table_messages
from calico_debug.model.observation import FlowTuple
from tests.lab import namespaces

FLOWS = {
    "tcp": FlowTuple(6, ip_address("10.0.0.1"), ip_address("10.96.0.1"), None, 80),
    "both ports": FlowTuple(17, ip_address("10.0.0.1"), ip_address("10.96.0.1"), 4000, 53),
    "no ports": FlowTuple(1, ip_address("10.0.0.1"), ip_address("10.0.0.2")),
    "IPv6": FlowTuple(6, ip_address("fd00::1"), ip_address("fd00::2"), None, 443),
    "SCTP": FlowTuple(132, ip_address("fd00::1"), ip_address("fd00::2"), 1, 2),
}

READS = (
    r"(ip6? [sd]addr \S+ |meta l4proto \S+ |ip protocol \S+ |(tcp|udp|sctp) [sd]port \d+ |@th,\d+,\d+ \S+ "
    r"|ct original (ip6? )?([sd]addr|proto-(src|dst)) \S+ )+"
)
ONLY_TRACES = re.compile(READS + r"limit rate 200/second burst 100 packets quota 8 mbytes meta nftrace set 1")
"""A rule whose every statement reads, apart from the last. nft 1.0.6 cannot list an owned table as JSON."""


@pytest.mark.kernel
@pytest.mark.parametrize("name", FLOWS)
def test_rules_only_read_and_set_the_trace_bit(name: str) -> None:
    if reason := namespaces.supported():
        pytest.skip(reason)
    flow = FLOWS[name]
    namespace = namespaces.create(["trace"])["trace"]
    try:
        with namespaces.entered(namespace), Observer([flow]) as observer:
            family = "ip6" if flow.source.version == 6 else "ip"
            text = namespaces.run(namespace, ["nft", "list", "table", family, observer.table])
        after = namespaces.run(namespace, ["nft", "list", "ruleset"])
    finally:
        namespaces.delete([namespace])
    assert after == ""
    assert "flags owner" in text
    lines = [line.strip() for line in text.splitlines()]
    rules = [line for line in lines if "nftrace" in line]
    assert len(rules) == 4
    for rule in rules:
        assert ONLY_TRACES.fullmatch(rule), rule
    frame = re.compile(r"table .*|flags owner|chain [a-z]+-[a-z]+ \{|type filter hook .* policy accept;|\}|")
    assert all(frame.fullmatch(line) for line in lines if line not in rules)
    expected = [str(flow.source), str(flow.destination)]
    expected += [str(port) for port in (flow.source_port, flow.destination_port) if port is not None]
    for word in expected:
        assert text.count(word) >= 4


def test_the_limits_hold_what_a_burst_is() -> None:
    limits = Limits()
    assert limits.burst * 65536 <= limits.bytes


def test_one_transaction_makes_the_table_first() -> None:
    kinds = [kind for kind, _, _ in table_messages(f"{PREFIX}x", 4, [FLOWS["tcp"], FLOWS["both ports"]], Limits())]
    assert kinds == [0, *[3] * 9, *[6] * 8]
