"""Names and numbers of ``iptables-save`` and ``ipset save``.

Provenance: iptables 1.8.9 (extensions/libipt_icmp.c, libip6t_icmp6.c, libxt_conntrack.c, libxt_addrtype.c,
libipt_REJECT.c, libip6t_REJECT.c, libxt_tcp.c), ipset 7.17 (lib/icmp.c, lib/icmpv6.c), Linux include/uapi/linux/
netfilter_ipv4.h for the priorities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from calico_debug.decode.nft_symbols import PROTOCOL_NUMBERS
from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

MALFORMED = (KeyError, ValueError, IndexError, TypeError, OverflowError)
"""What decoding a malformed rule raises; `NotUnderstoodError` is one of them."""

LARGEST_PORT = 0xFFFF
WHOLE_MARK = 0xFFFFFFFF


class NotUnderstoodError(ValueError):
    """An option, a value or an extension that this version does not know."""


class BuiltinChain(NamedTuple):
    """Where a chain of a table is attached: type and hook as nf_tables calls them, and the priority."""

    type: str
    hook: str
    priority: int


def _chains(type_: str, priorities: Mapping[str, int]) -> dict[str, BuiltinChain]:
    return {name: BuiltinChain(type_, name.lower(), priority) for name, priority in priorities.items()}


BUILTIN_CHAINS: Mapping[str, Mapping[str, BuiltinChain]] = {
    "raw": _chains("filter", {"PREROUTING": -300, "OUTPUT": -300}),
    "mangle": {
        **_chains("filter", dict.fromkeys(("PREROUTING", "INPUT", "FORWARD", "POSTROUTING"), -150)),
        "OUTPUT": BuiltinChain("route", "output", -150),
    },
    "nat": _chains("nat", {"PREROUTING": -100, "OUTPUT": -100, "INPUT": 100, "POSTROUTING": 100}),
    "filter": _chains("filter", {"INPUT": 0, "FORWARD": 0, "OUTPUT": 0}),
    "security": _chains("filter", {"INPUT": 50, "FORWARD": 50, "OUTPUT": 50}),
}
"""Tables of iptables with the chains that the kernel itself calls (enum nf_ip_hook_priorities; iptables/nft.c has the
same for iptables-nft). A packet of the host that mangle OUTPUT changed is routed again: type route.
"""

TCP_FLAGS: Mapping[str, int] = {
    "FIN": 0x01, "SYN": 0x02, "RST": 0x04, "PSH": 0x08, "ACK": 0x10, "URG": 0x20, "ALL": 0x3F, "NONE": 0,
}  # fmt: skip

STATES: Mapping[str, int] = {name.upper(): bit for name, bit in STATE_BITS.items()}
"""States of ``--ctstate`` that are the connection's own."""

VIRTUAL_STATES: Mapping[str, int] = {"SNAT": STATUS_BITS["snat"] << 8, "DNAT": STATUS_BITS["dnat"] << 8}
"""States of ``--ctstate`` that tell of translation, as bits of ``Ct("state and translation")``."""

STATUSES: Mapping[str, int] = {
    "EXPECTED": STATUS_BITS["expected"],
    "SEEN_REPLY": STATUS_BITS["seen-reply"],
    "ASSURED": STATUS_BITS["assured"],
    "CONFIRMED": STATUS_BITS["confirmed"],
}

ADDRESS_TYPES: Mapping[str, int] = {
    "UNSPEC": 0, "UNICAST": 1, "LOCAL": 2, "BROADCAST": 3, "ANYCAST": 4, "MULTICAST": 5, "BLACKHOLE": 6,
    "UNREACHABLE": 7, "PROHIBIT": 8,
}  # fmt: skip
"""RTN_… numbers, which xt_addrtype has as bits."""

PACKET_TYPES: Mapping[str, int] = {"unicast": 0, "broadcast": 1, "multicast": 2}

REJECTS: Mapping[str, tuple[str, str]] = {
    "icmp-net-unreachable": ("icmp", "net-unreachable"),
    "icmp-host-unreachable": ("icmp", "host-unreachable"),
    "icmp-proto-unreachable": ("icmp", "prot-unreachable"),
    "icmp-port-unreachable": ("icmp", "port-unreachable"),
    "icmp-net-prohibited": ("icmp", "net-prohibited"),
    "icmp-host-prohibited": ("icmp", "host-prohibited"),
    "icmp-admin-prohibited": ("icmp", "admin-prohibited"),
    "tcp-reset": ("tcp reset", ""),
    "icmp6-no-route": ("icmpv6", "no-route"),
    "icmp6-adm-prohibited": ("icmpv6", "admin-prohibited"),
    "icmp6-addr-unreachable": ("icmpv6", "addr-unreachable"),
    "icmp6-port-unreachable": ("icmpv6", "port-unreachable"),
    "icmp6-policy-fail": ("icmpv6", "policy-fail"),
    "icmp6-reject-route": ("icmpv6", "reject-route"),
}
"""``--reject-with`` to kind and code of `calico_debug.model.nft.Reject`."""

DEFAULT_REJECT: Mapping[str, str] = {"ip": "icmp-port-unreachable", "ip6": "icmp6-port-unreachable"}

ICMP_TYPES: Mapping[str, tuple[int, int | None]] = {
    "echo-reply": (0, None), "pong": (0, None), "destination-unreachable": (3, None), "network-unreachable": (3, 0),
    "host-unreachable": (3, 1), "protocol-unreachable": (3, 2), "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4), "source-route-failed": (3, 5), "network-unknown": (3, 6), "host-unknown": (3, 7),
    "network-prohibited": (3, 9), "host-prohibited": (3, 10), "TOS-network-unreachable": (3, 11),
    "TOS-host-unreachable": (3, 12), "communication-prohibited": (3, 13), "host-precedence-violation": (3, 14),
    "precedence-cutoff": (3, 15), "source-quench": (4, None), "redirect": (5, None), "network-redirect": (5, 0),
    "host-redirect": (5, 1), "TOS-network-redirect": (5, 2), "TOS-host-redirect": (5, 3), "echo-request": (8, None),
    "ping": (8, None), "router-advertisement": (9, None), "router-solicitation": (10, None),
    "time-exceeded": (11, None), "ttl-exceeded": (11, None), "ttl-zero-during-transit": (11, 0),
    "ttl-zero-during-reassembly": (11, 1), "parameter-problem": (12, None), "ip-header-bad": (12, 0),
    "required-option-missing": (12, 1), "timestamp-request": (13, None), "timestamp-reply": (14, None),
    "address-mask-request": (17, None), "address-mask-reply": (18, None),
}  # fmt: skip
"""Type and code by name; code None stands for all of them in a rule, and for code 0 in an ipset."""

ICMPV6_TYPES: Mapping[str, tuple[int, int | None]] = {
    "destination-unreachable": (1, None), "no-route": (1, 0), "communication-prohibited": (1, 1),
    "beyond-scope": (1, 2), "address-unreachable": (1, 3), "port-unreachable": (1, 4), "failed-policy": (1, 5),
    "reject-route": (1, 6), "packet-too-big": (2, None), "time-exceeded": (3, None), "ttl-exceeded": (3, None),
    "ttl-zero-during-transit": (3, 0), "ttl-zero-during-reassembly": (3, 1), "parameter-problem": (4, None),
    "bad-header": (4, 0), "unknown-header-type": (4, 1), "unknown-option": (4, 2), "echo-request": (128, None),
    "ping": (128, None), "echo-reply": (129, None), "pong": (129, None), "mld-listener-query": (130, None),
    "mld-listener-report": (131, None), "mld-listener-done": (132, None), "mld-listener-reduction": (132, None),
    "router-solicitation": (133, None), "router-advertisement": (134, None), "neighbour-solicitation": (135, None),
    "neighbor-solicitation": (135, None), "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None), "redirect": (137, None),
}  # fmt: skip


def number(text: str, largest: int = WHOLE_MARK) -> int:
    """A decimal, octal or hexadecimal number as C writes it, 0 ≤ n ≤ ``largest``. Raises `ValueError`."""
    digits = text.lower()
    value = int(digits, 16 if digits.startswith("0x") else 8 if digits.startswith("0") and len(digits) > 1 else 10)
    if not 0 <= value <= largest:
        raise NotUnderstoodError(f"{text} is out of range")
    return value


def protocol_number(text: str) -> int:
    """A protocol by name or number. Raises `NotUnderstoodError` for a name that is not known."""
    if text.isdecimal():
        return number(text.lstrip("0") or "0", 0xFFFF)
    if text not in PROTOCOL_NUMBERS:
        raise NotUnderstoodError(f"protocol {text}")
    return PROTOCOL_NUMBERS[text]


def icmp_type(text: str, names: Mapping[str, tuple[int, int | None]]) -> tuple[int, int | None]:
    """Type and code of "8", "3/1", "type 8 code 0" or a name; the code is None where every code is meant."""
    if text in names:
        return names[text]
    type_, slash, code = text.partition("/")
    return number(type_, 255), number(code, 255) if slash else None
