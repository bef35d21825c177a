"""``struct cali_tc_state``: what the programs before the policy leave for it, and what it leaves behind.

Offsets: felix/bpf-gpl/types.h and felix/bpf/polprog/pol_prog_builder.go of the releases named below. Addresses are 16
bytes in network order, IPv4 in the first 4; ports are in host order, ICMP type and code in the bytes of ``dport``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from calico_debug.errors import EvidenceError
from calico_debug.model.values import Partial
from calico_debug.walk.bpf_memory import Region

_WITHOUT_HEADER: Final[Mapping[str, tuple[int, int]]] = {
    "ip_src": (0, 16),
    "ip_dst": (16, 16),
    "pre_nat_ip_dst": (32, 16),
    "post_nat_ip_dst": (48, 16),
    "tun_ip": (64, 16),
    "ihl": (80, 2),
    "pol_rc": (84, 4),
    "sport": (88, 2),
    "dport": (90, 2),
    "icmp_type": (90, 1),
    "icmp_code": (91, 1),
    "pre_nat_dport": (92, 2),
    "post_nat_dport": (94, 2),
    "ip_proto": (96, 1),
    "ip_size": (98, 2),
    "rules_hit": (100, 4),
    "rule_ids": (104, 256),
    "flags": (360, 8),
}
"""v3.28 and v3.29. Since v3.30 a perf event header of 8 bytes stands in front of all that."""
HEADER_BYTES: Final = 8
MAX_RULE_IDS: Final = 32

FLAG_DESTINATION_IS_HOST: Final = 0x4
FLAG_SOURCE_IS_HOST: Final = 0x8
FLAG_LOG_PACKET: Final = 0x400
"""Bits of ``flags``: felix/bpf-gpl/types.h enum cali_state_flags; log since v3.30."""


@dataclass(frozen=True, slots=True)
class StateLayout:
    """Where the fields are: (offset, bytes) by name. ``size`` is the map's value size."""

    size: int
    releases: str
    fields: Mapping[str, tuple[int, int]]


def _layout(size: int, releases: str, header: int) -> StateLayout:
    fields = {name: (offset + header, width) for name, (offset, width) in _WITHOUT_HEADER.items()}
    return StateLayout(size, releases, fields)


LAYOUTS: Final = (
    _layout(480, "v3.28, v3.29 (cali_state4)", 0),
    _layout(488, "v3.30, v3.31 (cali_state4)", HEADER_BYTES),
    _layout(512, "v3.32, master (cali_state6)", HEADER_BYTES),
)


def layout_of_size(value_size: int) -> StateLayout:
    """The layout of a state map with values of that size. Raises `EvidenceError` for an unknown one."""
    for layout in LAYOUTS:
        if layout.size == value_size:
            return layout
    known = ", ".join(f"{layout.size} ({layout.releases})" for layout in LAYOUTS)
    raise EvidenceError(f"the state map's values have {value_size} bytes, and known are {known}: a newer release")


def layout_of_fields(fields: Mapping[str, int]) -> StateLayout:
    """The newest layout with these offsets, as a debug file's annotations give them. Raises `EvidenceError` if none."""
    for layout in reversed(LAYOUTS):
        known = layout.fields
        if all(name not in known or known[name][0] == offset for name, offset in fields.items()):
            return layout
    raise EvidenceError(f"no known release has the state's fields at {dict(fields)}: a newer release")


@dataclass(frozen=True, slots=True)
class PolicyPacket:
    """A packet as a policy program meets it.

    Addresses and ports are numbers, or partly known ones. ``destination`` and ``destination_port`` are those after the
    service's translation, ``original_destination`` and ``original_port`` those before it (None: the same). For ICMP the
    destination port is ``type | code << 8``. ``from_host`` and ``to_host`` tell that the node itself is an end.
    """

    version: int
    protocol: int | Partial
    source: int | Partial
    destination: int | Partial
    source_port: int | Partial = 0
    destination_port: int | Partial = 0
    original_destination: int | Partial | None = None
    original_port: int | Partial | None = None
    from_host: bool = False
    to_host: bool = False


def state_of(packet: PolicyPacket, layout: StateLayout) -> Region:
    """The state that a packet's policy program finds."""
    region = Region("state", bytes(layout.size))
    address_bytes = 4 if packet.version == 4 else 16
    before = packet.destination if packet.original_destination is None else packet.original_destination
    for name, address in (
        ("ip_src", packet.source),
        ("ip_dst", before),
        ("pre_nat_ip_dst", before),
        ("post_nat_ip_dst", packet.destination),
    ):
        region.put(layout.fields[name][0], address_bytes, address, order="big")
    port = packet.destination_port if packet.original_port is None else packet.original_port
    flags = (FLAG_DESTINATION_IS_HOST if packet.to_host else 0) | (FLAG_SOURCE_IS_HOST if packet.from_host else 0)
    for name, value in (
        ("sport", packet.source_port),
        ("dport", port),
        ("pre_nat_dport", port),
        ("post_nat_dport", packet.destination_port),
        ("ip_proto", packet.protocol),
        ("flags", flags),
    ):
        offset, width = layout.fields[name]
        region.put(offset, width, value)
    return region


def number_in(region: Region, layout: StateLayout, name: str) -> int:
    """A field that a run has settled, as an unsigned number."""
    offset, width = layout.fields[name]
    return int.from_bytes(region.data[offset : offset + width], "little")


def rule_ids_in(region: Region, layout: StateLayout) -> tuple[int, ...]:
    """The ids that a policy program noted down, in order."""
    count = min(number_in(region, layout, "rules_hit") & 0xFF, MAX_RULE_IDS)
    start = layout.fields["rule_ids"][0]
    return tuple(
        int.from_bytes(region.data[start + 8 * index : start + 8 * index + 8], "little") for index in range(count)
    )
