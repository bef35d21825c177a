"""What a packet's mark says in Calico's terms.

Sources: felix/bpf-gpl/bpf.h (v3.28 to v3.32, CALI_SKB_MARK_…) for eBPF; for rules felix/dataplane/driver.go, which
takes bits from the configured mask, lowest first: accept, pass, and then others that differ from release to release.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MASK = 0xFFFF0000
"""NftablesMarkMask and IptablesMarkMask, unless configured."""
MASK_SETTINGS = {"nftables": "FELIX_NFTABLESMARKMASK", "iptables": "FELIX_IPTABLESMARKMASK"}
BITS_OF_RULES = ("accept", "pass")

BPF_VALUES: tuple[tuple[int, int, str], ...] = (
    (0x03F00000, 0x03300000, "bypass-forward"),
    (0x03F00000, 0x03500000, "bypass-xdp"),
    (0x03F00000, 0x03600000, "masquerade-to-itself"),
    (0x03F00000, 0x03800000, "nat-outgoing"),
    (0x03000000, 0x03000000, "bypass"),
    (0x05000000, 0x05000000, "fallthrough"),
    (0x01100000, 0x01100000, "skip-fib"),
    (0x01000000, 0x01000000, "seen"),
)
"""Mask, value and name; the first that fits names what the program decided."""
BPF_FLAGS: tuple[tuple[int, str], ...] = (
    (0x08000000, "established"),
    (0x20000000, "related-resolved"),
    (0x40000000, "tunnel-key-set"),
    (0x80000000, "from-nat-interface"),
)
"""Bits that stand beside those."""
_BPF_KNOWN = 0xFFF00000


def mark_words(mark: int, dataplane: str, settings: Mapping[str, str]) -> tuple[str, ...]:
    """The mark's meaning, and what is left of it as a number. ``settings`` are Felix's variables."""
    if not mark:
        return ()
    if dataplane == "ebpf":
        return _bpf(mark)
    if dataplane in MASK_SETTINGS:
        return _rules(mark, _mask(settings.get(MASK_SETTINGS[dataplane], "")))
    return (hex(mark),)


def _bpf(mark: int) -> tuple[str, ...]:
    words = []
    main = next((name for mask, value, name in BPF_VALUES if mark & mask == value), "")
    if main:
        words.append(main)
    words += [name for bit, name in BPF_FLAGS if mark & bit]
    rest = mark & ~_BPF_KNOWN
    if rest or not words:
        words.append(hex(rest or mark))
    return tuple(words)


def _rules(mark: int, mask: int) -> tuple[str, ...]:
    bits = [1 << number for number in range(32) if mask & (1 << number)]
    words = []
    for name, bit in zip(BITS_OF_RULES, bits, strict=False):
        if mark & bit:
            words.append(name)
            mark &= ~bit
    if mark:
        words.append(hex(mark))
    return tuple(words)


def _mask(text: str) -> int:
    try:
        return int(text, 0) & 0xFFFFFFFF or DEFAULT_MASK
    except ValueError:
        return DEFAULT_MASK
