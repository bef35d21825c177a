"""Entries of Calico's maps with addresses and names replaced, by the tables of their layouts.

Every field is either replaced or known to be neither; bytes that no field covers are written as zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final

from calico_debug.decode.bpf_globals import TC_GLOBALS, TIMEOUTS, XDP_GLOBALS
from calico_debug.decode.bpf_keys import endpoint_order
from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.decode.bpf_layouts import find_layout
from calico_debug.decode.bpf_layouts_nat import FRONTEND_PREFIX
from calico_debug.decode.bpf_maps import LOCAL_WORKLOAD, PREFIX_BITS, network_of
from calico_debug.decode.bpf_structs import Field, Kind, Layout
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_conntrack import B_TO_A
from calico_debug.model.bpf_objects import MapInfo, RawEntries
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor

LEFT_OUT: Final[Mapping[Role, str]] = {
    Role.STATE: "it holds what is left of packets, which nothing is told from",
    Role.FRAGMENTS: "it holds pieces of packets, which nothing is told from",
    Role.FRAGMENT_SCRATCH: "it holds pieces of packets, which nothing is told from",
}
"""Maps that are never written, and why."""

_LPM_FIELD: Final[Mapping[Role, str]] = {
    **dict.fromkeys(PREFIX_BITS, "address"),
    Role.NAT_FRONTENDS: "source",
}
"""The address at the end of an lpm_trie's key, of which only the bits of the prefix count."""

_DIRECTED: Final = ("bytes", "packets", "sequence", "bits", "ifindex")
_FLAG_BYTE, _FLAG_SHIFT = "flags_8", 8
_PADDING = "-"
"""What Felix fills interface names in programs' settings with."""


class EntryRedactor:
    """Changes entries, all in the same way."""

    def __init__(self, text: TextRedactor, numbers: NumberMap) -> None:
        """``text`` replaces names and addresses, ``numbers`` ids."""
        self._text = text
        self._numbers = numbers

    def batches(self, info: MapInfo, batches: Iterable[RawEntries]) -> Iterator[RawEntries]:
        """The entries of a map. Raises `EvidenceError` for a map of unknown form, before the first batch is read."""
        if info.name.endswith(".rodata"):
            return self._settings(info, batches)
        layout = find_layout(info)
        if isinstance(layout, str):
            raise EvidenceError(f"map {info.name} cannot be redacted: it {layout}")
        if layout.role in LEFT_OUT:
            raise EvidenceError(f"map {info.name} is left out of redacted bundles: {LEFT_OUT[layout.role]}")
        return self._entries(layout, info, batches)

    def entry(self, layout: MapLayout, key: bytes, value: bytes) -> tuple[bytes, bytes]:
        """One entry of one CPU. Raises `ValueError` for bytes that are none of the layout."""
        keys, values = layout.key.unpack(key), layout.value.unpack(value)
        new_keys = self._fields(layout.key, keys)
        new_values = self._fields(layout.value, values)
        if layout.role in _LPM_FIELD:
            new_keys[_LPM_FIELD[layout.role]] = self._prefix(layout, keys)
        if layout.role is Role.ROUTES and values["flags"] & LOCAL_WORKLOAD != LOCAL_WORKLOAD:
            new_values["next_hop_or_ifindex"] = self._packed(values["next_hop_or_ifindex"])
        elif layout.role is Role.ROUTES:
            new_values["next_hop_or_ifindex"] = values["next_hop_or_ifindex"]
        if layout.role in (Role.CONNTRACK, Role.CONNTRACK_CLEANUP):
            if _order(new_keys, ""):
                _turn(new_values)
            if "reverse_protocol" in new_values:
                _order(new_values, "reverse_")
        return layout.key.pack(new_keys), layout.value.pack(new_values)

    # ------------------------------------------------------------------------------------------------------ internals

    def _entries(self, layout: MapLayout, info: MapInfo, batches: Iterable[RawEntries]) -> Iterator[RawEntries]:
        size, stride = info.key_size, info.value_stride
        for batch in batches:
            keys, values = [], []
            for place in range(batch.count):
                old_key = batch.keys[place * size : (place + 1) * size]
                for cpu in range(batch.cpus):
                    start = (place * batch.cpus + cpu) * stride
                    try:
                        key, value = self.entry(layout, old_key, batch.values[start : start + info.value_size])
                    except ValueError as error:
                        raise EvidenceError(
                            f"map {info.name} cannot be redacted: an entry cannot be decoded: {error}"
                        ) from None
                    values.append(value.ljust(stride, b"\0"))
                keys.append(key)
            yield RawEntries(b"".join(keys), b"".join(values), batch.count, batch.cpus)

    def _settings(self, info: MapInfo, batches: Iterable[RawEntries]) -> Iterator[RawEntries]:
        layout, count = _settings_of(info.value_size)
        if layout is None:
            raise EvidenceError(
                f"map {info.name} cannot be redacted: settings of {info.value_size} bytes are not known"
            )

        def changed() -> Iterator[RawEntries]:
            for batch in batches:
                parts = [
                    self._block(layout, batch.values[start : start + layout.size], place % count)
                    for place, start in enumerate(range(0, len(batch.values), layout.size))
                ]
                yield RawEntries(batch.keys, b"".join(parts), batch.count, batch.cpus)

        return changed()

    def _block(self, layout: Layout, data: bytes, place: int) -> bytes:
        """Settings for one IP version: that for IPv4 comes first."""
        values = layout.unpack(data)
        for name in ("host_ip", "interface_ip", "host_tunnel_ip"):
            if name in values:
                values[name] = self._packed(values[name][: 4 if place == 0 else 16]).ljust(16, b"\0")
        if "interface" in values:
            name = values["interface"].rstrip(_PADDING)
            filled = _PADDING * (len(values["interface"]) - len(name))
            new = self._name(name, 15)
            values["interface"] = new.ljust(15, _PADDING) if filled else new
        return layout.pack(values)

    def _fields(self, layout: Layout, values: Mapping[str, Any]) -> dict[str, Any]:
        changed = dict(values)
        for field in _all_fields(layout):
            if field.name in values:
                changed[field.name] = self._field(field, values[field.name])
        return changed

    def _field(self, field: Field, value: Any) -> Any:
        if field.name == "rule_id":
            return self._numbers.rule(value)
        if field.name == "set_id":
            return self._numbers.ip_set(value)
        if field.kind is Kind.ADDRESS:
            return self._address(value)
        if field.kind is Kind.MAC:
            return self._text.addresses.mac(value) if self._text.addresses else value
        if field.kind is Kind.TEXT:
            return self._name(value, field.size - 1)
        return bytes(field.size) if field.kind is Kind.BYTES else value

    def _address(self, address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
        return self._text.addresses.address(address) if self._text.addresses else address

    def _packed(self, data: bytes) -> bytes:
        return self._address(ip_address(data)).packed

    def _name(self, name: str, longest: int) -> str:
        new = self._text.text(name, is_name=True)
        if len(new.encode()) > longest:
            raise ValueError("what stands for an interface's name is too long for it")
        return new

    def _prefix(self, layout: MapLayout, key: Mapping[str, Any]) -> IPv4Address | IPv6Address:
        """The address of an lpm_trie's key, without the bits that do not count."""
        before = FRONTEND_PREFIX[layout.family] if layout.role is Role.NAT_FRONTENDS else PREFIX_BITS[layout.role]
        address = key[_LPM_FIELD[layout.role]]
        length = min(key["prefix_length"] - before, address.max_prefixlen)
        if length < 0:
            raise ValueError(f"its prefix of {key['prefix_length']} bits ends before the address")
        network = network_of(address, length)
        if length == address.max_prefixlen:
            return self._address(address)
        return self._text.addresses.network(network).network_address if self._text.addresses else address


@lru_cache(maxsize=512)
def _all_fields(layout: Layout) -> tuple[Field, ...]:
    return (*layout.fields, *(field for _, variant in layout.variants for field in variant.fields))


def _settings_of(size: int) -> tuple[Layout | None, int]:
    """The layout of programs' settings by their size, and how many of it they are."""
    for layout, count in (*((one, 2) for one in TC_GLOBALS), (XDP_GLOBALS, 2), (TIMEOUTS, 1)):
        if size == count * layout.size:
            return layout, count
    return None, 0


def _order(values: dict[str, Any], prefix: str) -> bool:
    """Put the smaller end of a connection first, as the programs look it up; whether the ends changed places."""
    ends = [(values[f"{prefix}address_{end}"], values[f"{prefix}port_{end}"]) for end in "ab"]
    if endpoint_order(*ends[0]) <= endpoint_order(*ends[1]):
        return False
    for end, (address, port) in zip("ab", reversed(ends), strict=True):
        values[f"{prefix}address_{end}"], values[f"{prefix}port_{end}"] = address, port
    return True


def _turn(values: dict[str, Any]) -> None:
    """What a connection's entry tells of its directions, for ends that have changed places."""
    if "a_to_b_bytes" not in values:
        return
    for part in _DIRECTED:
        there, back = f"a_to_b_{part}", f"b_to_a_{part}"
        values[there], values[back] = values[back], values[there]
    values[_FLAG_BYTE] ^= B_TO_A >> _FLAG_SHIFT
