"""Vocabulary of nf_tables: header fields, keys and data types, shared by both nft decoders.

Provenance: header layouts and field names from nft's src/proto.c (the same as nft(8), "PAYLOAD EXPRESSIONS"); data
types from src/datatype.c, keys from src/meta.c and src/ct.c. Symbolic values are in `calico_debug.decode.nft_symbols`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from calico_debug.model.nft import Payload

if TYPE_CHECKING:
    from collections.abc import Mapping


class DataType(NamedTuple):
    """How a value is written and stored: nft's type name, width in bits (0 for names), order of bytes in the kernel.

    ``host_order`` is true for integers that the kernel keeps in the machine's own byte order.
    """

    name: str
    width: int
    host_order: bool = False


class Field(NamedTuple):
    """A header field: position and width in bits behind its header's start, and its data type's name."""

    offset: int
    width: int
    type: str = "integer"


class Header(NamedTuple):
    """A protocol header: the base its offsets count from, an extra offset in bits behind that base, its fields."""

    base: str
    fields: Mapping[str, Field]
    start: int = 0


PORTS = {"sport": Field(0, 16, "inet_service"), "dport": Field(16, 16, "inet_service")}

HEADERS: Mapping[str, Header] = {
    "ether": Header(
        "link",
        {
            "daddr": Field(0, 48, "ether_addr"),
            "saddr": Field(48, 48, "ether_addr"),
            "type": Field(96, 16, "ether_type"),
        },
    ),
    "vlan": Header(
        "link",
        {
            "pcp": Field(0, 3),
            "dei": Field(3, 1),
            "cfi": Field(3, 1),
            "id": Field(4, 12),
            "type": Field(16, 16, "ether_type"),
        },
        start=112,
    ),
    "arp": Header(
        "network",
        {
            "htype": Field(0, 16),
            "ptype": Field(16, 16, "ether_type"),
            "hlen": Field(32, 8),
            "plen": Field(40, 8),
            "operation": Field(48, 16, "arp_op"),
            "saddr ether": Field(64, 48, "ether_addr"),
            "saddr ip": Field(112, 32, "ipv4_addr"),
            "daddr ether": Field(144, 48, "ether_addr"),
            "daddr ip": Field(192, 32, "ipv4_addr"),
        },
    ),
    "ip": Header(
        "network",
        {
            "version": Field(0, 4),
            "hdrlength": Field(4, 4),
            "dscp": Field(8, 6, "dscp"),
            "ecn": Field(14, 2, "ecn"),
            "length": Field(16, 16),
            "id": Field(32, 16),
            "frag-off": Field(48, 16),
            "ttl": Field(64, 8),
            "protocol": Field(72, 8, "inet_proto"),
            "checksum": Field(80, 16),
            "saddr": Field(96, 32, "ipv4_addr"),
            "daddr": Field(128, 32, "ipv4_addr"),
        },
    ),
    "ip6": Header(
        "network",
        {
            "version": Field(0, 4),
            "dscp": Field(4, 6, "dscp"),
            "ecn": Field(10, 2, "ecn"),
            "flowlabel": Field(12, 20),
            "length": Field(32, 16),
            "nexthdr": Field(48, 8, "inet_proto"),
            "hoplimit": Field(56, 8),
            "saddr": Field(64, 128, "ipv6_addr"),
            "daddr": Field(192, 128, "ipv6_addr"),
        },
    ),
    "icmp": Header(
        "transport",
        {
            "type": Field(0, 8, "icmp_type"),
            "code": Field(8, 8, "icmp_code"),
            "checksum": Field(16, 16),
            "id": Field(32, 16),
            "sequence": Field(48, 16),
            "gateway": Field(32, 32),
            "mtu": Field(48, 16),
        },
    ),
    "icmpv6": Header(
        "transport",
        {
            "type": Field(0, 8, "icmpv6_type"),
            "code": Field(8, 8, "icmpv6_code"),
            "checksum": Field(16, 16),
            "parameter-problem": Field(32, 32),
            "mtu": Field(32, 32),
            "id": Field(32, 16),
            "sequence": Field(48, 16),
            "max-delay": Field(32, 16),
        },
    ),
    "igmp": Header(
        "transport",
        {
            "type": Field(0, 8, "igmp_type"),
            "mrt": Field(8, 8),
            "checksum": Field(16, 16),
            "group": Field(32, 32, "ipv4_addr"),
        },
    ),
    "tcp": Header(
        "transport",
        {
            **PORTS,
            "sequence": Field(32, 32),
            "ackseq": Field(64, 32),
            "doff": Field(96, 4),
            "reserved": Field(100, 4),
            "flags": Field(104, 8, "tcp_flag"),
            "window": Field(112, 16),
            "checksum": Field(128, 16),
            "urgptr": Field(144, 16),
        },
    ),
    "udp": Header("transport", {**PORTS, "length": Field(32, 16), "checksum": Field(48, 16)}),
    "udplite": Header("transport", {**PORTS, "csumcov": Field(32, 16), "checksum": Field(48, 16)}),
    "sctp": Header("transport", {**PORTS, "vtag": Field(32, 32), "checksum": Field(64, 32)}),
    "dccp": Header("transport", {**PORTS, "type": Field(67, 4, "dccp_pkttype")}),
    "ah": Header(
        "transport",
        {
            "nexthdr": Field(0, 8, "inet_proto"),
            "hdrlength": Field(8, 8),
            "reserved": Field(16, 16),
            "spi": Field(32, 32),
            "sequence": Field(64, 32),
        },
    ),
    "esp": Header("transport", {"spi": Field(0, 32), "sequence": Field(32, 32)}),
    "comp": Header("transport", {"nexthdr": Field(0, 8, "inet_proto"), "flags": Field(8, 8), "cpi": Field(16, 16)}),
    "th": Header("transport", PORTS),
}

TRANSPORT_PROTOCOLS: Mapping[str, int] = {
    "icmp": 1,
    "igmp": 2,
    "tcp": 6,
    "udp": 17,
    "dccp": 33,
    "esp": 50,
    "ah": 51,
    "icmpv6": 58,
    "comp": 108,
    "sctp": 132,
    "udplite": 136,
}
"""Headers behind the network header, with the ``meta l4proto`` that nft puts before their fields."""

NETWORK_PROTOCOLS: Mapping[str, tuple[int, int]] = {"ip": (2, 0x0800), "ip6": (10, 0x86DD), "arp": (3, 0x0806)}
"""Network headers: NFPROTO_… number (include/uapi/linux/netfilter.h) and EtherType."""

NETWORK_OF_TRANSPORT: Mapping[str, str] = {"icmp": "ip", "icmpv6": "ip6"}
"""Transport headers that exist over one network protocol only, so nft asks for that one first."""

ICMP_TYPE_OF_FIELD: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("icmp", "id"): (8, 0),
    ("icmp", "sequence"): (8, 0),
    ("icmp", "gateway"): (5,),
    ("icmp", "mtu"): (3,),
    ("icmpv6", "id"): (128, 129),
    ("icmpv6", "sequence"): (128, 129),
    ("icmpv6", "mtu"): (2,),
    ("icmpv6", "parameter-problem"): (4,),
    ("icmpv6", "max-delay"): (130,),
}
"""ICMP fields that exist for some message types only (src/proto.c, icmp_hdr_fields): nft asks for the type first."""

ARPHRD_ETHER = 1
"""``meta iiftype`` of Ethernet (include/uapi/linux/if_arp.h)."""

ETHERTYPE_VLAN = 0x8100

BASES: Mapping[str, str] = {"ll": "link", "nh": "network", "th": "transport", "ih": "inner"}
"""Names of the bases in raw payload expressions (``@th,16,16``)."""

DATA_TYPES: Mapping[str, DataType] = {
    kind.name: kind
    for kind in (
        DataType("integer", 0),
        DataType("boolean", 8),
        DataType("ipv4_addr", 32),
        DataType("ipv6_addr", 128),
        DataType("ether_addr", 48),
        DataType("ether_type", 16),
        DataType("arp_op", 16),
        DataType("inet_proto", 8),
        DataType("inet_service", 16),
        DataType("icmp_type", 8),
        DataType("icmp_code", 8),
        DataType("icmpv6_type", 8),
        DataType("icmpv6_code", 8),
        DataType("icmpx_code", 8),
        DataType("igmp_type", 8),
        DataType("tcp_flag", 8),
        DataType("dccp_pkttype", 4),
        DataType("mh_type", 8),
        DataType("dscp", 6),
        DataType("ecn", 2),
        DataType("nf_proto", 8),
        DataType("mark", 32, host_order=True),
        DataType("iface_index", 32, host_order=True),
        DataType("iface_type", 16, host_order=True),
        DataType("ifname", 0),
        DataType("string", 0),
        DataType("realm", 32, host_order=True),
        DataType("classid", 32, host_order=True),
        DataType("uid", 32, host_order=True),
        DataType("gid", 32, host_order=True),
        DataType("ct_state", 32, host_order=True),
        DataType("ct_dir", 8),
        DataType("ct_status", 32, host_order=True),
        DataType("ct_label", 128, host_order=True),
        DataType("ct_event", 32, host_order=True),
        DataType("ct_id", 32),
        DataType("fib_addrtype", 32, host_order=True),
        DataType("devgroup", 32, host_order=True),
        DataType("pkt_type", 8, host_order=True),
        DataType("cgroupsv2", 64, host_order=True),
        DataType("cgroup", 32, host_order=True),
        DataType("cpu", 32, host_order=True),
        DataType("time", 64, host_order=True),
        DataType("hour", 32, host_order=True),
        DataType("day", 8, host_order=True),
        DataType("host_integer16", 16, host_order=True),
        DataType("host_integer32", 32, host_order=True),
        DataType("host_integer64", 64, host_order=True),
        DataType("milliseconds", 32, host_order=True),
    )
}
"""nft's data types (src/datatype.c); the ``host_integer…`` ones and below are this module's own names."""

META_TYPES: Mapping[str, str] = {
    "length": "host_integer32",
    "protocol": "ether_type",
    "priority": "classid",
    "mark": "mark",
    "iif": "iface_index",
    "oif": "iface_index",
    "iifname": "ifname",
    "oifname": "ifname",
    "iiftype": "iface_type",
    "oiftype": "iface_type",
    "skuid": "uid",
    "skgid": "gid",
    "nftrace": "boolean",
    "rtclassid": "realm",
    "secmark": "host_integer32",
    "nfproto": "nf_proto",
    "l4proto": "inet_proto",
    "ibrname": "ifname",
    "obrname": "ifname",
    "ibrpvid": "host_integer16",
    "ibrvproto": "ether_type",
    "pkttype": "pkt_type",
    "cpu": "cpu",
    "iifgroup": "devgroup",
    "oifgroup": "devgroup",
    "cgroup": "cgroup",
    "random": "host_integer32",
    "ipsec": "boolean",
    "iifkind": "ifname",
    "oifkind": "ifname",
    "time": "time",
    "day": "day",
    "hour": "hour",
    "sdif": "iface_index",
    "sdifname": "ifname",
    "broute": "boolean",
}
"""Meta keys by nft's names, with their data types (src/meta.c, meta_templates)."""

CT_TYPES: Mapping[str, str] = {
    "state": "ct_state",
    "direction": "ct_dir",
    "status": "ct_status",
    "mark": "mark",
    "secmark": "host_integer32",
    "expiration": "milliseconds",
    "helper": "string",
    "l3proto": "nf_proto",
    "protocol": "inet_proto",
    "saddr": "integer",
    "daddr": "integer",
    "ip saddr": "ipv4_addr",
    "ip daddr": "ipv4_addr",
    "ip6 saddr": "ipv6_addr",
    "ip6 daddr": "ipv6_addr",
    "proto-src": "inet_service",
    "proto-dst": "inet_service",
    "label": "ct_label",
    "packets": "host_integer64",
    "bytes": "host_integer64",
    "avgpkt": "host_integer64",
    "zone": "host_integer16",
    "event": "ct_event",
    "id": "ct_id",
}
"""Conntrack keys by nft's names, with their data types (src/ct.c, ct_templates)."""

FIB_TYPES: Mapping[str, str] = {"oif": "iface_index", "oifname": "ifname", "type": "fib_addrtype"}
"""Results of a fib lookup (src/fib.c)."""


def field_payload(protocol: str, field: str) -> tuple[Payload, DataType]:
    """The payload expression of a header field and the type of its values; raises KeyError for an unknown one."""
    header = HEADERS[protocol]
    layout = header.fields[field]
    return Payload(header.base, header.start + layout.offset, layout.width), sized(layout.type, layout.width)


def sized(type_name: str, width: int) -> DataType:
    """The data type of that name, with a width given by the field where the type has none of its own."""
    kind = DATA_TYPES[type_name]
    return kind if kind.width or type_name != "integer" else DataType("integer", width)


def sub_byte_fields() -> Mapping[tuple[str, int, int, int], tuple[int, int]]:
    """(base, load offset, load width, mask) to (offset, width), for every field that does not fill whole bytes.

    The kernel loads the bytes around such a field and masks it (nft's payload_expr_expand and expr_evaluate_bits).
    """
    found = {}
    for header in HEADERS.values():
        for layout in header.fields.values():
            offset, width = header.start + layout.offset, layout.width
            start, end = offset // 8 * 8, -(-(offset + width) // 8) * 8
            if (start, end) != (offset, offset + width):
                mask = ((1 << width) - 1) << (end - offset - width)
                found[header.base, start, end - start, mask] = (offset, width)
    return found


SUB_BYTE_FIELDS = sub_byte_fields()
