"""Marks in Calico's terms."""

from __future__ import annotations

import pytest

from calico_debug.policy.marks import mark_words


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (0x01000000, ("seen",)),
        (0x03000000, ("bypass",)),
        (0x03300000, ("bypass-forward",)),
        (0x03500000, ("bypass-xdp",)),
        (0x03600000, ("masquerade-to-itself",)),
        (0x03800000, ("nat-outgoing",)),
        (0x05000000, ("fallthrough",)),
        (0x01100000, ("skip-fib",)),
        (0x09000000, ("seen", "established")),
        (0x08000000, ("established",)),
        (0x21000000, ("seen", "related-resolved")),
        (0x41000000, ("seen", "tunnel-key-set")),
        (0x81000000, ("seen", "from-nat-interface")),
        (0x01000001, ("seen", "0x1")),
        (0x00000042, ("0x42",)),
    ],
)
def test_of_ebpf_programs(mark: int, expected: tuple[str, ...]) -> None:
    assert mark_words(mark, "ebpf", {}) == expected


def test_of_rules() -> None:
    assert mark_words(0x10000, "nftables", {}) == ("accept",)
    assert mark_words(0x20000, "iptables", {}) == ("pass",)
    assert mark_words(0xB0001, "nftables", {}) == ("accept", "pass", "0x80001")


def test_the_mask_is_configured() -> None:
    assert mark_words(0x1, "iptables", {"FELIX_IPTABLESMARKMASK": "0xff"}) == ("accept",)
    assert mark_words(0x20, "nftables", {"FELIX_NFTABLESMARKMASK": "48"}) == ("pass",)
    assert mark_words(0x10000, "nftables", {"FELIX_NFTABLESMARKMASK": "all"}) == ("accept",)


def test_without_a_mark_or_a_dataplane() -> None:
    assert mark_words(0, "ebpf", {}) == ()
    assert mark_words(0x10000, "", {}) == ("0x10000",)
