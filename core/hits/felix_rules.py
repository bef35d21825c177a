"""What rules of the eBPF dataplane want of packets, from Felix's own words for them.

The words are those of felix/proto/felixbackend.proto, message Rule, as felix/bpf/polprog writes them into its debug
files beside the code that it makes of them (v3.28 to v3.32).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import Final

from calico_debug.explain.listing.rule_text import EVERYTHING
from calico_debug.hits.boxes import NOTHING, Conditions, Field, Values, common, field_of, ranges, without
from calico_debug.hits.conditions import BYTE, IN_SET, NOT_IN_SET
from calico_debug.model.flow import PROTOCOL_NUMBERS

Wanted = tuple[Field, Values]
Members = Callable[[str], Values | None]
"""The addresses of a set by Felix's id for it; None where they are not known or have ports."""

WIDTHS: Final = {4: 32, 6: 128}
PORT: Final = 16

_PART: Final = re.compile(r'(?P<name>\w+):(?:"(?P<text>[^"]*)"|\{(?P<inner>[^{}]*)\}|(?P<word>[^\s{}"]+))(?:\s+|$)')
_IGNORED: Final = frozenset({"ip_version", "src_service_account_match", "dst_service_account_match"})
"""Fields without code of their own: programs are of one IP version, and service accounts are in the sets."""

_ALTERNATIVES: Final = {
    "src_ports": "src_named_port_ip_set_ids",
    "src_named_port_ip_set_ids": "src_ports",
    "dst_ports": "dst_named_port_ip_set_ids",
    "dst_named_port_ip_set_ids": "dst_ports",
}


def conditions(text: str, family: int, members: Members) -> Conditions:
    """What the rule wants; words that are not understood leave it open what else it does. Never raises."""
    parts: dict[str, list[str]] = {}
    position, exact = 0, True
    stripped = "" if text == EVERYTHING else text.strip()
    while position < len(stripped):
        found = _PART.match(stripped, position)
        if found is None:
            return Conditions(exact=False)
        parts.setdefault(found["name"], []).append(next(one for one in found.group(2, 3, 4) if one is not None))
        position = found.end()
    wanted: list[Wanted] = []
    for name, values in parts.items():
        if name in _IGNORED:
            continue
        read = _READERS.get(name.removeprefix("not_"))
        # Ports in numbers or by their names: one of them is enough
        either = name in _ALTERNATIVES and _ALTERNATIVES[name] in parts
        given = read(name, values, family, members) if read is not None and not either else None
        if given is None:
            exact = False
        else:
            wanted += given
    return Conditions(tuple(wanted), exact)


def _one(name: str, field: Field, values: Values) -> list[Wanted]:
    return [(field, without(field.known, values) if name.startswith("not_") else common(field.known, values))]


def _side(name: str) -> str:
    return "source" if "src_" in name else "destination"


def _protocol(name: str, values: list[str], _family: int, _members: Members) -> list[Wanted] | None:
    inner = _inner(values[0])
    number = inner.get("number") or PROTOCOL_NUMBERS.get(inner.get("name", "").lower())
    if number is None or not str(number).isdecimal():
        return None
    return _one(name, field_of("protocol", BYTE, True), ((int(number), int(number)),))


def _nets(name: str, values: list[str], family: int, _members: Members) -> list[Wanted] | None:
    found = []
    for value in values:
        try:
            network = ip_network(value, strict=False)
        except ValueError:
            return None
        if network.version == family:
            found.append((int(network.network_address), int(network.broadcast_address)))
    return _one(name, field_of(_side(name), WIDTHS[family], True), ranges(found))


def _ports(name: str, values: list[str], _family: int, _members: Members) -> list[Wanted] | None:
    found = []
    for value in values:
        inner = _inner(value)
        first, last = inner.get("first", "0"), inner.get("last", "0")
        if not (first.isdecimal() and last.isdecimal()):
            return None
        found.append((int(first), int(last)))
    return _one(name, field_of(f"{_side(name)} port", PORT, True), ranges(found))


def _sets(name: str, values: list[str], family: int, members: Members) -> list[Wanted] | None:
    if name == "dst_ip_set_ids" and len(values) > 1:
        return None  # the only list of which one would be enough; Calico writes one set there
    negated = name.startswith("not_")
    found: list[Wanted] = []
    for value in values:
        addresses = members(value)
        field = field_of(_side(name), WIDTHS[family], True)
        if addresses is None:
            field = field_of(("in", _side(name), value), 1)
            found.append((field, NOT_IN_SET if negated else IN_SET))
        else:
            found += _one(name, field, addresses)
    return found


def _sets_with_ports(name: str, values: list[str], _family: int, members: Members) -> list[Wanted] | None:
    """Of several named ports one is enough, of several services each is wanted."""
    negated = name.startswith("not_")
    if "named_port" in name and len(values) > 1 and not negated:
        return None
    found: list[Wanted] = []
    for value in values:
        field = field_of(("in", f"{_side(name)} with port", value), 1)
        if members(value) == NOTHING and not negated:
            return [(field, NOTHING)]
        found.append((field, NOT_IN_SET if negated else IN_SET))
    return found


def _icmp_type(name: str, values: list[str], _family: int, _members: Members) -> list[Wanted] | None:
    return _one(name, field_of("icmp type", BYTE, True), ((int(values[0]),) * 2,)) if values[0].isdecimal() else None


def _icmp_pair(name: str, values: list[str], _family: int, _members: Members) -> list[Wanted] | None:
    inner = _inner(values[0])
    pair = (inner.get("type", "0"), inner.get("code", "0"))
    if name.startswith("not_") or not all(one.isdecimal() for one in pair):
        return None
    return [
        (field_of(f"icmp {what}", BYTE, True), ((int(one),) * 2,))
        for what, one in zip(("type", "code"), pair, strict=True)
    ]


_READERS: Final[Mapping[str, Callable[[str, list[str], int, Members], list[Wanted] | None]]] = {
    "protocol": _protocol,
    **dict.fromkeys(("src_net", "dst_net"), _nets),
    **dict.fromkeys(("src_ports", "dst_ports"), _ports),
    **dict.fromkeys(("src_ip_set_ids", "dst_ip_set_ids"), _sets),
    **dict.fromkeys(
        ("src_named_port_ip_set_ids", "dst_named_port_ip_set_ids", "dst_ip_port_set_ids"), _sets_with_ports
    ),
    "icmp_type": _icmp_type,
    "icmp_type_code": _icmp_pair,
}


def _inner(text: str) -> Mapping[str, str]:
    """The fields of a message inside, by name."""
    pairs = (one.partition(":") for one in text.split())
    return {name: value.strip('"') for name, _, value in pairs}
