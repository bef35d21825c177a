"""Numbers of the nf_tables netlink interface.

Source: include/uapi/linux/netfilter/nf_tables.h of Linux 6.18 where nothing else is said. Only what is read is listed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.nft_fields import DATA_TYPES, DataType

if TYPE_CHECKING:
    from collections.abc import Mapping

NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
"""Request flags (include/uapi/linux/netlink.h)."""

NFT_MSG_GETTABLE = 1
NFT_MSG_GETCHAIN = 4
NFT_MSG_GETRULE = 7
NFT_MSG_GETSET = 10
NFT_MSG_GETSETELEM = 13
NFT_MSG_GETGEN = 16

FAMILIES: Mapping[int, str] = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""NFPROTO_… numbers (include/uapi/linux/netfilter.h) with nft's names."""
FAMILY_NUMBERS: Mapping[str, int] = {name: number for number, name in FAMILIES.items()}

HOOKS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("ip", "ip6", "inet", "bridge"), ("prerouting", "input", "forward", "output", "postrouting")),
    "arp": ("input", "output", "forward"),
    "netdev": ("ingress", "egress"),
}
"""Hook numbers by family (enum nf_inet_hooks, nf_arp_hooks, nf_dev_hooks)."""
INET_INGRESS = 5

TABLE_DORMANT = 0x1

SET_ANONYMOUS = 0x1
SET_INTERVAL = 0x4
SET_MAP = 0x8
SET_OBJECT = 0x40
SET_CONCAT = 0x80

ELEMENT_INTERVAL_END = 0x1
ELEMENT_CATCHALL = 0x2

DATA_VERDICT = 0xFFFFFF00

VERDICTS: Mapping[int, str] = {-1: "continue", -3: "jump", -4: "goto", -5: "return", 0: "drop", 1: "accept", 3: "queue"}
"""Verdict codes: enum nft_verdicts, and NF_… of include/uapi/linux/netfilter.h (the low byte)."""

OBJECT_COUNTER, OBJECT_QUOTA, OBJECT_CT_HELPER, OBJECT_LIMIT, OBJECT_CT_TIMEOUT, OBJECT_CT_EXPECTATION = (
    1,
    2,
    3,
    4,
    7,
    9,
)
"""NFT_OBJECT_… types."""

COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
"""enum nft_cmp_ops in order."""

BASES = ("link", "network", "transport", "inner")
"""enum nft_payload_bases in order."""

META_KEYS = (
    "length", "protocol", "priority", "mark", "iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "skuid",
    "skgid", "nftrace", "rtclassid", "secmark", "nfproto", "l4proto", "ibrname", "obrname", "pkttype", "cpu",
    "iifgroup", "oifgroup", "cgroup", "random", "ipsec", "iifkind", "oifkind", "ibrpvid", "ibrvproto", "time", "day",
    "hour", "sdif", "sdifname", "broute",
)  # fmt: skip
"""enum nft_meta_keys in order, with nft's names."""

CT_KEYS = (
    "state", "direction", "status", "mark", "secmark", "expiration", "helper", "l3proto", "saddr", "daddr", "protocol",
    "proto-src", "proto-dst", "label", "packets", "bytes", "avgpkt", "zone", "event", "ip saddr", "ip daddr",
    "ip6 saddr", "ip6 daddr", "id",
)  # fmt: skip
"""enum nft_ct_keys in order, with nft's names."""

CT_DIRECTIONS = ("original", "reply")

FIB_RESULTS: Mapping[int, str] = {1: "oif", 2: "oifname", 3: "type"}
FIB_FLAGS: Mapping[int, str] = {1: "saddr", 2: "daddr", 4: "mark", 8: "iif", 16: "oif"}
FIB_PRESENT = 32

NUMGEN_MODES = ("inc", "random")
DYNSET_OPERATIONS = ("add", "update", "delete")
NAT_KINDS = ("snat", "dnat")
NAT_NETMAP = 0x40
"""NF_NAT_RANGE_NETMAP (include/uapi/linux/netfilter/nf_nat.h)."""

REJECT_UNREACHABLE, REJECT_RESET, REJECT_ICMPX = 0, 1, 2
TCP_OPTIONS: Mapping[int, str] = {2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp"}
"""TCP options by number (IANA) with nft's names (src/tcpopt.c)."""

SUBTYPE_BITS = 6
SUBTYPES: Mapping[int, DataType] = {
    number: DATA_TYPES[name]
    for number, name in {
        2: "nf_proto", 4: "integer", 5: "string", 7: "ipv4_addr", 8: "ipv6_addr", 9: "ether_addr", 10: "ether_type",
        11: "arp_op", 12: "inet_proto", 13: "inet_service", 14: "icmp_type", 15: "tcp_flag", 16: "dccp_pkttype",
        17: "mh_type", 19: "mark", 20: "iface_index", 21: "iface_type", 22: "realm", 23: "classid", 24: "uid",
        25: "gid", 26: "ct_state", 27: "ct_dir", 28: "ct_status", 29: "icmpv6_type", 30: "ct_label", 31: "pkt_type",
        32: "icmp_code", 33: "icmpv6_code", 34: "icmpx_code", 35: "devgroup", 36: "dscp", 37: "ecn",
        38: "fib_addrtype", 39: "boolean", 40: "ct_event", 41: "ifname", 42: "igmp_type", 43: "time", 44: "hour",
        45: "day", 46: "cgroupsv2",
    }.items()
}  # fmt: skip
"""nft's data types as NFTA_SET_KEY_TYPE and NFTA_SET_DATA_TYPE carry them, six bits for each field of a concatenation
(nft's include/datatype.h, enum datatypes, TYPE_BITS).
"""
NAME_BYTES = 16
"""Size of an interface name in a register (IFNAMSIZ)."""
VALUE_BYTES = 64
"""The largest value or key, the size of all registers together (NFT_DATA_VALUE_MAXLEN)."""
