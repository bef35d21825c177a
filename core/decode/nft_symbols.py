"""Symbolic names of nf_tables values, with their numbers.

Provenance: as ``nft describe TYPE`` of nftables 1.0.6 prints them; numbers of the protocols as IANA assigned them, with
the names of Debian's /etc/protocols, which is what nft prints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS, STATUS_BITS

if TYPE_CHECKING:
    from collections.abc import Mapping

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
