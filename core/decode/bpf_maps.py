"""Entries of Calico's maps from bytes to types, the same for live reads and recorded dumps."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from typing import Any

from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts_nat import FRONTEND_PREFIX
from calico_debug.decode.bpf_structs import Fields
from calico_debug.model import bpf, bpf_conntrack, bpf_nat
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.model.routing import Address, Network

Entry = Any
"""One of the types of `calico_debug.model.bpf`; which one follows from the role of the map."""

Builder = Callable[[MapLayout, Fields, Fields], Entry]

SUMMED = frozenset({Role.COUNTERS, Role.RULE_COUNTERS, Role.PROFILING})
"""Per-CPU maps whose values are numbers of 64 bits to be added up over all possible CPUs."""

LOCAL_WORKLOAD = 0x4 | 0x8
"""Route flags under which the next hop is an interface (felix/bpf-gpl/routes.h, cali_rt_is_local_workload)."""

PREFIX_BITS: Mapping[Role, int] = {
    Role.ROUTES: 0,
    Role.IP_SETS: 64,
    Role.ALLOWED_SOURCES: 32,
    Role.FAILSAFES: 32,
}
"""Bits of an lpm_trie key in front of the address."""


def decode_entries(layout: MapLayout, info: MapInfo, entries: Iterable[RawEntries]) -> Iterator[Entry]:
    """Every entry, typed; one that cannot be decoded as `calico_debug.model.bpf.UnknownEntry`. Never raises."""
    for batch in entries:
        stride = info.value_stride * batch.cpus
        for place in range(batch.count):
            key = batch.keys[place * info.key_size : (place + 1) * info.key_size]
            value = batch.values[place * stride : (place + 1) * stride]
            yield from decode_entry(layout, info, key, value)


def decode_entry(layout: MapLayout, info: MapInfo, key: bytes, value: bytes) -> Iterator[Entry]:
    """One entry; of the per-CPU state map one for each CPU."""
    try:
        build = BUILDERS[layout.role]
        if layout.role in SUMMED and info.per_cpu:
            value = sum_per_cpu(value, info.value_stride)[: info.value_size]
        elif info.per_cpu:
            for cpu, piece in enumerate(_pieces(value, info.value_stride)):
                fields = {**layout.value.unpack(piece[: info.value_size]), "cpu": cpu}
                yield build(layout, layout.key.unpack(key), fields)
            return
        yield build(layout, layout.key.unpack(key), layout.value.unpack(value))
    except (ValueError, KeyError, struct.error) as error:
        yield bpf.UnknownEntry(key, value, str(error))


def decode_value(layout: MapLayout, info: MapInfo, key: bytes, value: bytes) -> Entry:
    """The single entry of a key that was looked up. Raises `ValueError` when it cannot be decoded."""
    entry = next(decode_entry(layout, info, key, value), None)
    if entry is None or isinstance(entry, bpf.UnknownEntry):
        raise ValueError(entry.why if entry is not None else "it has no values")
    return entry


def _pieces(value: bytes, stride: int) -> Iterator[bytes]:
    if not value or len(value) % stride:
        raise ValueError(f"its per-CPU value of {len(value)} bytes is no multiple of {stride}")
    return (value[start : start + stride] for start in range(0, len(value), stride))


def sum_per_cpu(value: bytes, stride: int) -> bytes:
    """Numbers of 64 bits added over CPUs, modulo 2**64 as the counters themselves. Raises `ValueError`."""
    numbers = struct.Struct(f"<{stride // 8}Q")
    totals = [0] * (stride // 8)
    for piece in _pieces(value, stride):
        totals = [total + number for total, number in zip(totals, numbers.unpack(piece), strict=True)]
    return numbers.pack(*(total & 0xFFFF_FFFF_FFFF_FFFF for total in totals))


def network_of(address: Address, length: int) -> Network:
    """A prefix from a key's address, whose further bits are cut off. Raises `ValueError` for an impossible length."""
    if isinstance(address, IPv4Address):
        return IPv4Network((address, length), strict=False)
    return IPv6Network((address, length), strict=False)


# -------------------------------------------------------------------------------------------------------- builders


KEPT = (
    "rst_seen",
    "created_or_rst_seen",
    "tunnel_ip",
    "original_ip",
    "original_port",
    "original_source_ip",
    "original_source_port",
    "nat_source_port",
)
"""Fields of a conntrack value that an entry has under the same name."""


def _conntrack(_layout: MapLayout, key: Fields, value: Fields) -> bpf_conntrack.ConntrackEntry:
    flags = sum(value[name] << bit for bit in (0, 8, 16, 24) if (name := f"flags_{bit}") in value)
    return bpf_conntrack.ConntrackEntry(
        key=bpf_conntrack.ConntrackKey(**key),
        type=value["type"],
        flags=flags,
        last_seen=value["last_seen"],
        a_to_b=_leg(value, "a_to_b"),
        b_to_a=_leg(value, "b_to_a"),
        reverse_key=_reverse_key(value) if "reverse_protocol" in value else None,
        **{name: value[name] for name in KEPT if name in value},
    )


def _leg(value: Fields, name: str) -> bpf_conntrack.Leg | None:
    if f"{name}_bytes" not in value:
        return None
    return bpf_conntrack.Leg(*(value[f"{name}_{part}"] for part in ("bytes", "packets", "sequence", "bits", "ifindex")))


def _reverse_key(value: Fields) -> bpf_conntrack.ConntrackKey:
    names = ("protocol", "address_a", "address_b", "port_a", "port_b")
    return bpf_conntrack.ConntrackKey(**{name: value[f"reverse_{name}"] for name in names})


def _cleanup(_layout: MapLayout, key: Fields, value: Fields) -> bpf_conntrack.CleanupEntry:
    times = {name: value[name] for name in ("last_seen", "reverse_last_seen") if name in value}
    return bpf_conntrack.CleanupEntry(bpf_conntrack.ConntrackKey(**key), _reverse_key(value), **times)


def _frontend(layout: MapLayout, key: Fields, value: Fields) -> bpf_nat.Frontend:
    length = key["prefix_length"] - FRONTEND_PREFIX[layout.family]
    if length < 0:
        raise ValueError(f"its prefix of {key['prefix_length']} bits ends before the port")
    sources = network_of(key["source"], length)
    return bpf_nat.Frontend(key["address"], key["port"], key["protocol"], sources, **value)


def _backend(_layout: MapLayout, key: Fields, value: Fields) -> bpf_nat.NatBackend:
    return bpf_nat.NatBackend(**key, **value)


def _affinity(_layout: MapLayout, key: Fields, value: Fields) -> bpf_nat.Affinity:
    return bpf_nat.Affinity(
        **key, backend_address=value["address"], backend_port=value["port"], last_used=value["last_used"]
    )


def _socket(_layout: MapLayout, key: Fields, value: Fields) -> bpf_nat.SocketService:
    return bpf_nat.SocketService(
        key["cookie"], key["address"], key["port"], value["address"], value["port"], key.get("protocol")
    )


def route_target(value: Fields) -> bpf.RouteTarget:
    """What a route's value says, without its key."""
    flags, hop = value["flags"], value["next_hop_or_ifindex"]
    if flags & LOCAL_WORKLOAD == LOCAL_WORKLOAD:
        return bpf.RouteTarget(flags, ifindex=int.from_bytes(hop[:4], "little"))
    return bpf.RouteTarget(flags, next_hop=ip_address(hop) if any(hop) else None)


def _route(_layout: MapLayout, key: Fields, value: Fields) -> bpf.BpfRoute:
    return bpf.BpfRoute(network_of(key["address"], key["prefix_length"]), route_target(value))


def _prefix(layout: MapLayout, key: Fields) -> Network:
    length = key["prefix_length"] - PREFIX_BITS[layout.role]
    if length < 0:
        raise ValueError(f"its prefix of {key['prefix_length']} bits ends before the address")
    return network_of(key["address"], length)


def _ip_set_member(layout: MapLayout, key: Fields, _value: Fields) -> bpf.IpSetMember:
    bits = key["address"].max_prefixlen
    if key["prefix_length"] > PREFIX_BITS[layout.role] + bits:
        host = network_of(key["address"], bits)
        return bpf.IpSetMember(key["set_id"], host, key["port"], key["protocol"])
    return bpf.IpSetMember(key["set_id"], _prefix(layout, key))


def _allowed_source(layout: MapLayout, key: Fields, _value: Fields) -> bpf.AllowedSource:
    return bpf.AllowedSource(key["ifindex"], _prefix(layout, key))


def _failsafe(layout: MapLayout, key: Fields, _value: Fields) -> bpf.Failsafe:
    return bpf.Failsafe(key["protocol"], key["port"], bool(key["flags"] & 1), _prefix(layout, key))


def _arp(_layout: MapLayout, key: Fields, value: Fields) -> bpf.ArpEntry:
    return bpf.ArpEntry(**key, **value)


def _interface(_layout: MapLayout, key: Fields, value: Fields) -> bpf.InterfaceState:
    return bpf.InterfaceState(**key, **value)


def _counters(_layout: MapLayout, key: Fields, value: Fields) -> bpf.InterfaceCounters:
    return bpf.InterfaceCounters(**key, **value)


def _rule_counter(_layout: MapLayout, key: Fields, value: Fields) -> tuple[int, int]:
    return key["rule_id"], value["packets"]


def _profile(_layout: MapLayout, key: Fields, value: Fields) -> bpf.Profile:
    return bpf.Profile(**key, **value)


def _qos(_layout: MapLayout, key: Fields, value: Fields) -> bpf.PacketRate:
    return bpf.PacketRate(key["ifindex"], key["ingress"] == 1, key.get("family", 0), **value)


def _qos_connections(_layout: MapLayout, key: Fields, value: Fields) -> bpf.ConnectionLimit:
    return bpf.ConnectionLimit(key["ifindex"], key["ingress"] == 1, key["family"], **value)


def _slot(_layout: MapLayout, key: Fields, value: Fields) -> bpf.Slot:
    return bpf.Slot(**key, **value)


def _state(_layout: MapLayout, key: Fields, value: Fields) -> bpf.StateSnapshot:
    return bpf.StateSnapshot(value["cpu"], key["index"], {k: v for k, v in value.items() if k != "cpu"})


def _fragment(_layout: MapLayout, key: Fields, value: Fields) -> bpf.Fragment:
    more = bool(value["more_fragments"] & 1)
    return bpf.Fragment(**key, length=value["length"], more_fragments=more)


def _fragment_scratch(_layout: MapLayout, key: Fields, value: Fields) -> bpf.StateSnapshot:
    return bpf.StateSnapshot(value["cpu"], key["index"], {"length": value["length"]})


def _fragment_forward(_layout: MapLayout, key: Fields, value: Fields) -> bpf.FragmentForward:
    return bpf.FragmentForward(**key, **value)


def _event_buffer(_layout: MapLayout, key: Fields, value: Fields) -> bpf.Slot:
    return bpf.Slot(key["index"], value["descriptor"])


def _event_drops(_layout: MapLayout, _key: Fields, value: Fields) -> bpf.EventDrops:
    return bpf.EventDrops(**value)


BUILDERS: Mapping[Role, Builder] = {
    Role.CONNTRACK: _conntrack,
    Role.CONNTRACK_CLEANUP: _cleanup,
    Role.NAT_FRONTENDS: _frontend,
    Role.NAT_BACKENDS: _backend,
    Role.NAT_AFFINITY: _affinity,
    Role.MAGLEV: _backend,
    Role.REVERSE_CONNECT: _socket,
    Role.CONNECT_NAT: _socket,
    Role.ROUTES: _route,
    Role.IP_SETS: _ip_set_member,
    Role.ALLOWED_SOURCES: _allowed_source,
    Role.FAILSAFES: _failsafe,
    Role.ARP: _arp,
    Role.FRAGMENTS: _fragment,
    Role.FRAGMENT_SCRATCH: _fragment_scratch,
    Role.FRAGMENT_FORWARD: _fragment_forward,
    Role.STATE: _state,
    Role.INTERFACES: _interface,
    Role.COUNTERS: _counters,
    Role.RULE_COUNTERS: _rule_counter,
    Role.PROFILING: _profile,
    Role.QOS: _qos,
    Role.QOS_CONNECTIONS: _qos_connections,
    Role.EVENTS: _event_buffer,
    Role.EVENT_DROPS: _event_drops,
    **{role: _slot for role in Role if role.value.startswith("netkit-") or role.value.endswith("programs")},
    **{role: _slot for role in Role if role.value.startswith(("programs", "jumps", "xdp-"))},
}
"""What makes a typed entry from a map's fields, by role."""
