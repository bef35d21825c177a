"""Vocabulary of nf_tables: header fields, data types, symbolic names and numbers, shared by both nft decoders.

Provenance: header layouts and field names from nft's src/proto.c (the same as nft(8), "PAYLOAD EXPRESSIONS"); symbolic
values as ``nft describe TYPE`` of nftables 1.0.6 prints them; numbers of the protocols as IANA assigned them, with the
names of Debian's /etc/protocols, which is what nft prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS
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

PROTOCOL_NUMBERS: Mapping[str, int] = {
    "ip": 0, "icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "ipv4": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9,
    "pup": 12, "udp": 17, "hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37,
    "idpr-cmtp": 38, "ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50,
    "ipv6-crypt": 50, "ah": 51, "ipv6-auth": 51, "skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "ipv6-nonxt": 59,
    "ipv6-opts": 60, "rspf": 73, "vmtp": 81, "eigrp": 88, "ospf": 89, "ospfigp": 89, "ax.25": 93, "ipip": 94,
    "etherip": 97, "encap": 98, "pim": 103, "ipcomp": 108, "comp": 108, "vrrp": 112, "l2tp": 115, "isis": 124,
    "sctp": 132, "fc": 133, "mobility-header": 135, "mh": 135, "udplite": 136, "mpls-in-ip": 137, "manet": 138,
    "hip": 139, "shim6": 140, "wesp": 141, "rohc": 142, "ethernet": 143, "mptcp": 262,
}  # fmt: skip
"""Protocols by the names of /etc/protocols and of the names nft itself knows."""

ICMP_CODES: Mapping[str, int] = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "frag-needed": 4,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
ICMPV6_CODES: Mapping[str, int] = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}
ICMPX_CODES: Mapping[str, int] = {
    "no-route": 0,
    "port-unreachable": 1,
    "host-unreachable": 2,
    "admin-prohibited": 3,
}

SYMBOLS: Mapping[str, Mapping[str, int]] = {
    "boolean": {"exists": 1, "missing": 0},
    "inet_proto": PROTOCOL_NUMBERS,
    "ether_type": {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD, "8021q": 0x8100, "8021ad": 0x88A8, "vlan": 0x8100},
    "arp_op": {
        "request": 1, "reply": 2, "rrequest": 3, "rreply": 4, "inrequest": 8, "inreply": 9, "nak": 10,
    },
    "icmp_type": {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5, "echo-request": 8,
        "router-advertisement": 9, "router-solicitation": 10, "time-exceeded": 11, "parameter-problem": 12,
        "timestamp-request": 13, "timestamp-reply": 14, "info-request": 15, "info-reply": 16,
        "address-mask-request": 17, "address-mask-reply": 18,
    },
    "icmp_code": ICMP_CODES,
    "icmpv6_type": {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3, "parameter-problem": 4,
        "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130, "mld-listener-report": 131,
        "mld-listener-done": 132, "mld-listener-reduction": 132, "nd-router-solicit": 133, "nd-router-advert": 134,
        "nd-neighbor-solicit": 135, "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
        "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
    },
    "icmpv6_code": ICMPV6_CODES,
    "icmpx_code": ICMPX_CODES,
    "igmp_type": {
        "membership-query": 0x11, "membership-report-v1": 0x12, "membership-report-v2": 0x16,
        "membership-report-v3": 0x22, "leave-group": 0x17,
    },
    "tcp_flag": {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ecn": 64, "cwr": 128},
    "dccp_pkttype": {
        "request": 0, "response": 1, "data": 2, "ack": 3, "dataack": 4, "closereq": 5, "close": 6, "reset": 7,
        "sync": 8, "syncack": 9,
    },
    "dscp": {
        "cs0": 0x00, "cs1": 0x08, "cs2": 0x10, "cs3": 0x18, "cs4": 0x20, "cs5": 0x28, "cs6": 0x30, "cs7": 0x38,
        "df": 0x00, "be": 0x00, "lephb": 0x01, "af11": 0x0A, "af12": 0x0C, "af13": 0x0E, "af21": 0x12,
        "af22": 0x14, "af23": 0x16, "af31": 0x1A, "af32": 0x1C, "af33": 0x1E, "af41": 0x22, "af42": 0x24,
        "af43": 0x26, "va": 0x2C, "ef": 0x2E,
    },
    "ecn": {"not-ect": 0, "ect1": 1, "ect0": 2, "ce": 3},
    "nf_proto": {"ipv4": 2, "ipv6": 10},
    "iface_type": {
        "ether": 1, "ppp": 512, "ipip": 768, "ipip6": 769, "loopback": 772, "sit": 776, "ipgre": 778,
    },
    "pkt_type": {"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3},
    "ct_state": STATE_BITS,
    "ct_status": STATUS_BITS,
    "ct_dir": {"original": 0, "reply": 1},
    "ct_event": {
        "new": 1, "related": 2, "destroy": 4, "reply": 8, "assured": 16, "protoinfo": 32, "helper": 64,
        "mark": 128, "seqadj": 256, "secmark": 512, "label": 1024,
    },
    "fib_addrtype": {
        "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5, "blackhole": 6,
        "unreachable": 7, "prohibit": 8,
    },
    "day": {
        "Sunday": 0, "Monday": 1, "Tuesday": 2, "Wednesday": 3, "Thursday": 4, "Friday": 5, "Saturday": 6,
    },
    "devgroup": {"default": 0},
}  # fmt: skip
"""Symbolic values by data type, as ``nft describe`` lists them; integers of the field in network order."""

REJECT_CODES: Mapping[str, Mapping[int, str]] = {
    kind: {number: name for name, number in codes.items()}
    for kind, codes in (("icmp", ICMP_CODES), ("icmpv6", ICMPV6_CODES), ("icmpx", ICMPX_CODES))
}
"""Names of the codes of ``reject``, by kind."""

DEFAULT_REJECT: Mapping[str, tuple[str, str]] = {
    "ip": ("icmp", "port-unreachable"),
    "ip6": ("icmpv6", "port-unreachable"),
}
"""What a bare ``reject`` means by family; elsewhere it is icmpx port-unreachable (src/evaluate.c, stmt_reject)."""

LIMIT_PERIODS: Mapping[int, str] = {1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}
"""Periods of a limit in seconds (src/datatype.c, get_rate)."""

BYTE_UNITS: Mapping[str, int] = {"bytes": 1, "kbytes": 1 << 10, "mbytes": 1 << 20, "gbytes": 1 << 30}


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
