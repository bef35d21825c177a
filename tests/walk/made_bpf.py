"""A made-up node of the eBPF dataplane, whose maps have one of each kind of service and route."""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from calico_debug.state.node import NodeState
from calico_debug.walk.bpf_datapath import BpfDatapath
from calico_debug.walk.packet import ICMP, TCP, UDP, Packet
from tests.evidence.bpf_node import POD, SETTINGS, BpfNode, Entries

A = ip_address
POD_IP, OTHER_POD, REMOTE_POD = A("10.0.0.1"), A("10.0.0.7"), A("10.0.1.1")
HERE, THERE, OUTSIDE, BLACK, GREY = (
    A("172.30.0.1"),
    A("172.30.0.2"),
    A("198.51.100.1"),
    A("10.96.9.0"),
    A("10.96.9.1"),
)
SERVICE, CLOSED, EMPTY, EXCLUDED, LOCAL, STICKY, BROKEN, MAGLEV, HOSTED, OUTER = (
    A(f"10.96.0.{n}") for n in range(1, 11)
)
ANY_NODE = A("255.255.255.255")
IN_POOL, NAT_OUT, WORKLOAD, LOCAL_ROUTE, HOST, DROP, REJECT = 1, 2, 4, 8, 0x10, 0x100, 0x200
POD_FLAGS = IN_POOL | NAT_OUT | WORKLOAD | LOCAL_ROUTE
TABLE, HOLE = 31, 5
"""Size of the Maglev table, and a slot without a backend."""
APPROVED, OPENER = 0x10, 0x20
"""Of a leg of a connection; the made-up one is of ICMP between the node's two pods."""
RPF, STRICT, EXCLUDE_HOSTS = 0x10, 0x20, 0x1000


def route(address: Any, flags: int, target: bytes = bytes(4)) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"prefix_length": 32, "address": address}, {"flags": flags, "next_hop_or_ifindex": target}


def service(address: Any, port: int = 80, protocol: int = TCP, **value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"prefix_length": 56, "address": address, "port": port, "protocol": protocol}, {"service_id": 1} | value


ENTRIES: Entries = {
    "cali_v4_routes": [
        route(POD_IP, POD_FLAGS, (3).to_bytes(4, "little")),
        route(OTHER_POD, POD_FLAGS, (4).to_bytes(4, "little")),
        route(REMOTE_POD, IN_POOL | WORKLOAD, THERE.packed),
        route(HERE, HOST | LOCAL_ROUTE),
        route(THERE, HOST),
        route(BLACK, DROP),
        route(GREY, REJECT),
    ],
    "cali_v4_nat_fe3": [
        service(SERVICE, count=2, local_count=1),
        service(CLOSED, count=0xFFFFFFFF),
        service(EMPTY, count=0),
        service(EXCLUDED, count=1, flags=4),
        service(LOCAL, count=2, local_count=0, flags=1),
        service(STICKY, count=2, affinity_timeout=60),
        service(BROKEN, count=1, service_id=9),
        service(ANY_NODE, 30080, count=1),
        service(ANY_NODE, 30053, UDP, count=1),
        service(ANY_NODE, 30091, count=1, service_id=2),
        service(MAGLEV, count=0xFFFFFFFF, flags=8),
        service(HOSTED, count=1, service_id=2),
        service(OUTER, count=1, service_id=3),
    ],
    "cali_v4_nat_be": [
        ({"service_id": 1, "ordinal": 0}, {"address": POD_IP, "port": 8080}),
        ({"service_id": 1, "ordinal": 1}, {"address": REMOTE_POD, "port": 8080}),
        ({"service_id": 2, "ordinal": 0}, {"address": HERE, "port": 9100}),
        ({"service_id": 3, "ordinal": 0}, {"address": OUTSIDE, "port": 53}),
    ],
    "cali_v4_mglv2": [
        ({"service_id": 1, "ordinal": slot}, {"address": REMOTE_POD if slot % 3 else POD_IP, "port": 8080})
        for slot in range(TABLE)
        if slot != HOLE
    ],
    "cali_v4_nat_aff": [
        (
            {"address": STICKY, "port": 80, "protocol": TCP, "client": POD_IP},
            {"address": REMOTE_POD, "port": 8080},
        )
    ],
    "cali_v4_fsafes2": [
        ({"prefix_length": 32, "protocol": TCP, "port": 22, "flags": 0}, {}),
        ({"prefix_length": 32, "protocol": TCP, "port": 53, "flags": 1}, {}),
    ],
    "cali_v4_sprefix": [({"prefix_length": 64, "ifindex": 3, "address": OUTSIDE}, {})],
    "cali_iface4": [({"ifindex": 3}, {"flags": 3, "name": POD})],
    "cali_v4_ct4": [
        (
            {"protocol": ICMP, "address_a": POD_IP, "address_b": OTHER_POD, "port_a": 0, "port_b": 0},
            {"type": 0, "a_to_b_bits": APPROVED | OPENER, "b_to_a_bits": APPROVED},
        )
    ],
}
LINKS = json.dumps(
    [
        {"ifindex": index, "ifname": name, "flags": ["UP"], "operstate": "UP"}
        for index, name in ((2, "eth0"), (3, POD), (4, "cali2"), (5, "bpfin.cali"), (6, "bpfout.cali"))
    ]
)


def made(flags: int = 0, files: Mapping[str, str] | None = None, **changes: Any) -> BpfDatapath:
    node = BpfNode(ENTRIES)
    for name in ("cali_v4_mglv2", "cali_v4_nat_aff", "cali_v4_fsafes2", "cali_v4_sprefix"):
        node.add_map(name)
    node.files["bpf/pins.txt"] = "".join(f"/sys/fs/bpf/tc/globals/{name}\n" for name in node.ids)
    node.files["ip-link.json"] = LINKS
    node.files |= files or {}
    block = SETTINGS.pack(
        {
            "interface": POD.ljust(15, "-"),
            "jumps": (0, 5, *([0xFFFFFFFF] * 38)),
            "flags": flags,
            "nat_in_ifindex": 5,
            "nat_out_ifindex": 6,
            "maglev_table_size": TABLE,
        }
    )
    node.settings = dict.fromkeys(node.settings, block + block)
    for name, value in changes.items():
        setattr(node, name, value)
    return BpfDatapath(NodeState(node.evidence()))


def packet(source: Any, destination: Any, dport: int = 80, protocol: int = TCP) -> Packet:
    return Packet(source.version, protocol, int(source), int(destination), 40000, dport)


def from_pod(datapath: BpfDatapath, destination: Any, dport: int = 80) -> Packet:
    made = packet(POD_IP, destination, dport)
    made.incoming = datapath._state.interfaces[POD]
    return made
