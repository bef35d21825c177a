"""``ipset save`` (bundle file ``ipset-save.txt``): indexed at once, a set's elements decoded when asked for.

Semantics: Linux net/netfilter/ipset/ip_set_core.c (ip_set_test), ip_set_hash_*.c, ip_set_bitmap_*.c,
ip_set_list_set.c, pfxlen.c; ip_set_getport.c for ports. Syntax: ipset(8).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

from calico_debug.decode.intervals import content, innermost, merged, scalar
from calico_debug.decode.iptables_symbols import (
    ICMP_TYPES,
    ICMPV6_TYPES,
    LARGEST_PORT,
    MALFORMED,
    WHOLE_MARK,
    NotUnderstoodError,
    icmp_type,
    number,
    protocol_number,
)
from calico_debug.decode.words import split_words
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Interval, NamePrefix, SetContent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from calico_debug.model.nft import Scalar

REMEDY = "record it again with: ipset save"

ADDRESS, NET, PORT, PORT_NUMBER, INTERFACE, MAC, MARK = "ip", "net", "port", "port number", "iface", "mac", "mark"
"""What one dimension of a set holds. PORT is a protocol and a port, PORT_NUMBER a port of TCP or UDP."""

SET_TYPES: Mapping[str, tuple[str, ...]] = {
    "bitmap:ip": (ADDRESS,),
    "bitmap:port": (PORT_NUMBER,),
    "hash:ip": (ADDRESS,),
    "hash:mac": (MAC,),
    "hash:ip,mac": (ADDRESS, MAC),
    "hash:ip,mark": (ADDRESS, MARK),
    "hash:ip,port": (ADDRESS, PORT),
    "hash:ip,port,ip": (ADDRESS, PORT, ADDRESS),
    "hash:ip,port,net": (ADDRESS, PORT, NET),
    "hash:net": (NET,),
    "hash:net,net": (NET, NET),
    "hash:net,port": (NET, PORT),
    "hash:net,port,net": (NET, PORT, NET),
    "hash:net,iface": (NET, INTERFACE),
}
"""Dimensions by type, apart from list:set, which has those of its members, and bitmap:ip,mac, whose elements learn."""

LIST = "list:set"
FAMILIES = {"inet": "ip", "inet6": "ip6"}
ADDRESS_WIDTHS = {"ip": 32, "ip6": 128}
PORT_NUMBER_PROTOCOLS = (6, 17)
"""bitmap:port looks at TCP and UDP alone (ip_set_get_ip_port)."""

TYPED_PROTOCOLS = {1: ICMP_TYPES, 58: ICMPV6_TYPES}
"""Protocols whose "port" is type and code as one number."""

IGNORED_OPTIONS: Mapping[str, int] = {
    "timeout": 1, "packets": 1, "bytes": 1, "comment": 1, "skbmark": 1, "skbprio": 1, "skbqueue": 1,
}  # fmt: skip
"""Options of an element that change nothing for a lookup, with the number of their values."""


@dataclass(frozen=True, slots=True)
class SetDescription:
    """A set without its elements. ``family`` is "ip", "ip6", or "" where the type has none; ``options`` as created."""

    name: str
    type: str
    family: str
    options: Mapping[str, str]

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What each part of an element is; empty for a type that is not known, and for list:set."""
        return SET_TYPES.get(self.type, ())


class SavedSets:
    """The sets of one listing."""

    def __init__(self, text: bytes | str, where: str) -> None:
        """Index the listing; ``where`` names the file. Raises `EvidenceError` when it is not one."""
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        if text and not text.endswith("\n"):
            raise EvidenceError(f"{where} ends within a line, so it was cut off; {REMEDY}")
        self._where = where
        self._descriptions: dict[str, SetDescription] = {}
        self._added: dict[str, list[str]] = {}
        self._contents: dict[str, SetContent] = {}
        for position, line in enumerate(text.split("\n"), 1):
            self._index(line, position)

    def describe(self, name: str) -> SetDescription | None:
        """The set called ``name``, None when there is none."""
        return self._descriptions.get(name)

    def names(self) -> Sequence[str]:
        """Every set's name, in the order of the listing."""
        return tuple(self._descriptions)

    def count(self, name: str) -> int:
        """How many elements a set has."""
        return len(self._added.get(name, ()))

    def members(self, name: str) -> tuple[str, ...]:
        """The sets in a list:set, in order."""
        return tuple(words[0] for line in self._added[name] if (words := split_words(line)[0]))

    def elements(self, name: str) -> SetContent | None:
        """The elements, None when there is no such set.

        Keys have one field per dimension, PORT two (protocol, port), PORT_NUMBER likewise; of a list:set they are
        those of its members. Raises `EvidenceError` when an element is not understood.
        """
        if name not in self._contents and name in self._descriptions:
            self._contents[name] = self._decode(self._descriptions[name])
        return self._contents.get(name)

    # ------------------------------------------------------------------------------------------------------ internals

    def _index(self, line: str, position: int) -> None:
        verb, _, rest = line.partition(" ")
        if verb == "add":
            name, _, element = rest.partition(" ")
            if name not in self._added or not element:
                raise EvidenceError(f"{self._where}, line {position}: an element of no known set; {REMEDY}")
            self._added[name].append(element)
        elif verb == "create":
            words = rest.split()
            if len(words) < 2 or words[0] in self._descriptions:
                raise EvidenceError(f"{self._where}, line {position}: not the head of a new set; {REMEDY}")
            options = _create_options(words[2:])
            family = "ip" if words[1].startswith("bitmap:ip") else FAMILIES.get(options.get("family", ""), "")
            self._descriptions[words[0]] = SetDescription(words[0], words[1], family, options)
            self._added[words[0]] = []
        elif line and not line.startswith("#"):
            raise EvidenceError(f"{self._where}, line {position}: neither a set nor an element; {REMEDY}")

    def _decode(self, description: SetDescription) -> SetContent:
        try:
            if description.type == LIST:
                return self._union(description.name)
            if not description.dimensions:
                raise NotUnderstoodError(f"type {description.type}")
            return _ElementReader(description).read(self._added[description.name])
        except EvidenceError:
            raise
        except MALFORMED as error:
            text = " ".join(str(error).split())[:200]
            raise EvidenceError(
                f"{self._where}: set {description.name} ({description.type}) is not understood ({text}); "
                "report it with the file"
            ) from None

    def _union(self, name: str) -> SetContent:
        exact: dict[Key, None] = {}
        ranges: list[tuple[int, int]] = []
        widths: tuple[int, ...] = ()
        for member in self.members(name):
            part = self.elements(member)
            if part is None:
                raise EvidenceError(f"{self._where}: set {name} has a member {member} that is not there; {REMEDY}")
            widths = widths or part.widths
            for element in (*part.exact.values(), *part.ranged):
                if isinstance(element.key, Interval):
                    ranges.append((element.key.low, element.key.high))
                else:
                    exact[element.key] = None
        return content(widths, (*exact, *(scalar(low, high) for low, high in merged(ranges))))


Key = int | str | NamePrefix | Interval | tuple[int | str | NamePrefix | Interval, ...]


class _ElementReader:
    """Elements of one set."""

    def __init__(self, description: SetDescription) -> None:
        self._dimensions = description.dimensions
        self._family = description.family or "ip"
        self._bits = ADDRESS_WIDTHS[self._family]
        options = description.options
        if "bitmask" in options:
            raise NotUnderstoodError(f"bitmask {options['bitmask']}")
        self._netmask = number(options["netmask"], self._bits) if "netmask" in options else self._bits
        self._markmask = number(options.get("markmask", hex(WHOLE_MARK)))

    def read(self, lines: Iterable[str]) -> SetContent:
        """The content that a lookup meets: of nested networks, the most specific counts."""
        nets = [position for position, kind in enumerate(self._dimensions) if kind == NET]
        entries = list(self._entries(lines))
        excepted = any(not matches for _, matches in entries)
        if excepted and (len(nets) != 1 or any(isinstance(f, NamePrefix) for fields, _ in entries for f in fields)):
            raise NotUnderstoodError("nomatch beside a second network or a wildcard")
        if len(nets) == 1 and (excepted or self._dimensions == (NET,)):
            return content(self._widths(), self._resolved(entries, nets[0]))
        return content(self._widths(), (fields if len(fields) > 1 else fields[0] for fields, _ in entries))

    def _resolved(self, entries: Sequence[tuple[tuple[Scalar, ...], bool]], at: int) -> Iterator[Key]:
        groups: dict[tuple[tuple[Scalar, ...], tuple[Scalar, ...]], list[tuple[int, int, bool]]] = {}
        for fields, matches in entries:
            low, high = _ends(fields[at])
            groups.setdefault((fields[:at], fields[at + 1 :]), []).append((low, high, matches))
        for (before, after), prefixes in groups.items():
            for low, high in innermost(prefixes):
                fields = (*before, scalar(low, high), *after)
                yield fields if len(fields) > 1 else fields[0]

    def _entries(self, lines: Iterable[str]) -> Iterator[tuple[tuple[Scalar, ...], bool]]:
        for line in lines:
            text, options = line, frozenset[str]()
            if " " in line:
                words = split_words(line)[0]
                text, options = words[0], _element_options(words[1:])
            parts = text.split(",")
            if len(parts) != len(self._dimensions):
                raise NotUnderstoodError(f"element {text}")
            if self._dimensions == (PORT_NUMBER,):
                port = number(parts[0], LARGEST_PORT)
                yield from (((protocol, port), True) for protocol in PORT_NUMBER_PROTOCOLS)
                continue
            fields: list[Scalar] = []
            for kind, part in zip(self._dimensions, parts, strict=True):
                fields.extend(self._fields(kind, part, "wildcard" in options))
            yield tuple(fields), "nomatch" not in options

    def _fields(self, kind: str, text: str, wildcard: bool) -> tuple[Scalar, ...]:
        if kind == ADDRESS:
            low, high = _network(f"{text}/{self._netmask}")
            return (scalar(low, high),)
        if kind == NET:
            low, high = _network(text)
            return (scalar(low, high),)
        if kind == PORT:
            return _protocol_and_port(text)
        if kind == INTERFACE:
            if ":" in text:
                raise NotUnderstoodError(f"interface {text}")
            return (NamePrefix(text) if wildcard else text,)
        if kind == MAC:
            return (int(text.replace(":", ""), 16),)
        return (number(text) & self._markmask,)

    def _widths(self) -> tuple[int, ...]:
        by_kind = {
            ADDRESS: (self._bits,), NET: (self._bits,), PORT: (8, 16), PORT_NUMBER: (8, 16), INTERFACE: (0,),
            MAC: (48,), MARK: (32,),
        }  # fmt: skip
        return tuple(width for kind in self._dimensions for width in by_kind[kind])


def _create_options(words: Sequence[str]) -> dict[str, str]:
    """Options of ``create``; every one that this version looks at has a value."""
    return {word: words[position + 1] for position, word in enumerate(words[:-1])}


def _element_options(words: Sequence[str]) -> frozenset[str]:
    found: set[str] = set()
    position = 0
    while position < len(words):
        word = words[position]
        if word in ("nomatch", "wildcard"):
            found.add(word)
        elif word not in IGNORED_OPTIONS:
            raise NotUnderstoodError(f"option {word} of an element")
        position += 1 + IGNORED_OPTIONS.get(word, 0)
    return frozenset(found)


def _network(text: str) -> tuple[int, int]:
    if "/" not in text:
        address = int(ip_address(text))
        return address, address
    network = ip_network(text, strict=False)
    return int(network.network_address), int(network.broadcast_address)


def _ends(field: Scalar) -> tuple[int, int]:
    if isinstance(field, Interval):
        return field.low, field.high
    if isinstance(field, int):
        return field, field
    raise NotUnderstoodError(f"network {field!r}")


@lru_cache(maxsize=4096)
def _protocol_and_port(text: str) -> tuple[int, int]:
    name, colon, port = text.partition(":")
    protocol = protocol_number(name if colon else "tcp")
    port = port if colon else text
    if protocol in TYPED_PROTOCOLS:
        type_, code = icmp_type(port, TYPED_PROTOCOLS[protocol])
        return protocol, type_ << 8 | (code or 0)
    return protocol, number(port, LARGEST_PORT)
