"""Sets and their elements as the kernel sends them over netlink, and the keys that ask for one element.

An interval set of one field (rbtree) comes as points, each starting an interval or ending one; a concatenation with
intervals (pipapo) as elements with a first and a last key. In both nft stores integers of host byte order in network
order, so that they sort.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode.netlink_attributes import NFGENMSG_SIZE, number, parse, parse_list, text
from calico_debug.model.nft import Element, Interval, NamePrefix, SetContent, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from calico_debug.decode.nft_fields import DataType
    from calico_debug.model.nft import Key, Scalar, Statement


@dataclass(frozen=True, slots=True)
class KeyField:
    """One field of a key or of a map's data: its type, its size in bytes, and its byte order ("big" or "little")."""

    type: DataType
    size: int
    order: str

    @property
    def is_name(self) -> bool:
        """Whether values are interface names or other text."""
        return self.type.name in ("ifname", "string")

    @property
    def width(self) -> int:
        """Size in bits as the model counts it: 0 for names."""
        return 0 if self.is_name else self.type.width or self.size * 8

    def value(self, data: bytes) -> int | str:
        """The value in ``size`` bytes."""
        if self.is_name:
            return text(data)
        return int.from_bytes(data[: self.size], self.order)  # type: ignore[arg-type]

    def encode(self, value: int | str) -> bytes:
        """The bytes of a value, unpadded. Raises OverflowError when it does not fit."""
        if isinstance(value, str):
            data = value.encode()
            if len(data) > self.size:
                raise OverflowError(f"{value!r} is longer than {self.size} bytes")
            return data.ljust(self.size, b"\0")
        return value.to_bytes(self.size, self.order)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class SetDescription:
    """A set without its elements. ``key_size`` is in bytes; ``fields`` is None when its types are not known."""

    name: str
    flags: int
    key_size: int
    fields: tuple[KeyField, ...] | None
    data: tuple[KeyField, ...] | None
    object_type: int = 0

    @property
    def anonymous(self) -> bool:
        """Whether the set belongs to one rule."""
        return bool(self.flags & nft.SET_ANONYMOUS)

    @property
    def is_map(self) -> bool:
        """Whether elements have data: verdicts, values or objects."""
        return bool(self.flags & (nft.SET_MAP | nft.SET_OBJECT))


def decode_set(message: bytes) -> SetDescription:
    """One NFT_MSG_NEWSET payload. Raises ValueError when it is malformed."""
    attributes = parse(message[NFGENMSG_SIZE:])
    flags = number(attributes.get(3, b""))
    key_size, key_type = number(attributes[5]), number(attributes.get(4, b""))
    if not 0 < key_size <= nft.VALUE_BYTES:
        raise ValueError(f"a set with keys of {key_size} bytes")
    data_type = number(attributes.get(6, b""))
    data: tuple[KeyField, ...] | None = None
    if flags & nft.SET_MAP and data_type != nft.DATA_VERDICT:
        data = key_fields(data_type, number(attributes.get(7, b"")), ())
    sizes = _field_sizes(attributes.get(9, b""))
    return SetDescription(
        name=text(attributes[2]),
        flags=flags,
        key_size=key_size,
        fields=key_fields(key_type, key_size, sizes, sortable=bool(flags & nft.SET_INTERVAL)),
        data=data,
        object_type=number(attributes.get(15, b"")),
    )


def _field_sizes(description: bytes) -> tuple[int, ...]:
    # NFTA_SET_DESC_CONCAT: a list of NFTA_LIST_ELEM, each with NFTA_SET_FIELD_LEN in bytes.
    concat = parse(description).get(2, b"")
    return tuple(number(parse(item)[1]) for _, item in parse_list(concat))


def key_fields(packed: int, total: int, sizes: Sequence[int], *, sortable: bool = False) -> tuple[KeyField, ...] | None:
    """The fields of a key from nft's packed type; None when their sizes cannot be known.

    ``total`` is the size of the key in bytes with every field of a concatenation padded to four, ``sizes`` the
    fields' own where the kernel was told them; ``sortable`` keys are in network order.
    """
    if not 0 < total <= nft.VALUE_BYTES or any(not 0 < size <= nft.VALUE_BYTES for size in sizes):
        return None
    types: list[DataType | None] = []
    rest = packed
    while rest:
        types.insert(0, nft.SUBTYPES.get(rest & ((1 << nft.SUBTYPE_BITS) - 1)))
        rest >>= nft.SUBTYPE_BITS
    if not types:
        return None
    if len(types) == 1 and types[0] is not None:
        return (_field(types[0], total, sortable=sortable),)
    if len(sizes) == len(types) and None not in types:
        return tuple(
            _field(kind, size, sortable=sortable) for kind, size in zip(types, sizes, strict=True) if kind is not None
        )
    known = [nft.NAME_BYTES if kind.name == "ifname" else (kind.width + 7) // 8 for kind in types if kind is not None]
    if len(known) != len(types):
        return None
    if known.count(0) == 1:
        # The one field whose type has no size of its own fills what the others leave.
        known[known.index(0)] = total - sum(-(-size // 4) * 4 for size in known)
    if min(known) <= 0 or sum(-(-size // 4) * 4 for size in known) != total:
        return None
    return tuple(
        _field(kind, size, sortable=sortable) for kind, size in zip(types, known, strict=True) if kind is not None
    )


def _field(kind: DataType, size: int, *, sortable: bool = False) -> KeyField:
    return KeyField(kind, size, sys.byteorder if kind.host_order and not sortable else "big")


# ------------------------------------------------------------------------------------------------------- elements


@dataclass(frozen=True, slots=True)
class _Raw:
    """An element as it came."""

    key: bytes
    key_end: bytes | None
    flags: int
    element: Element


def decode_content(
    description: SetDescription,
    fields: Sequence[KeyField],
    messages: Iterable[bytes],
    decode_statement: Callable[[bytes], Statement],
) -> SetContent:
    """All elements from NFT_MSG_NEWSETELEM payloads. Raises ValueError when they are malformed."""
    raws = [raw for message in messages for raw in _elements(message, description, decode_statement)]
    exact: dict[int | str | tuple[int | str, ...], Element] = {}
    ranged: list[Element] = []
    default = next((raw.element for raw in raws if raw.flags & nft.ELEMENT_CATCHALL), None)
    raws = [raw for raw in raws if not raw.flags & nft.ELEMENT_CATCHALL]
    keyed: Iterable[tuple[Key, Element]]
    if description.flags & nft.SET_INTERVAL and len(fields) == 1 and not any(raw.key_end for raw in raws):
        keyed = _intervals(fields[0], raws)
    else:
        keyed = ((_key(fields, raw), raw.element) for raw in raws)
    for key, found in keyed:
        element = Element(key, found.data, found.comment, found.statements)
        if isinstance(key, tuple):
            if all(isinstance(part, int | str) for part in key):
                exact[key] = element  # type: ignore[index]
            else:
                ranged.append(element)
        elif isinstance(key, int | str):
            exact[key] = element
        else:
            ranged.append(element)
    return SetContent(tuple(f.width for f in fields), exact, tuple(ranged), default, description.is_map)


def _elements(
    message: bytes, description: SetDescription, decode_statement: Callable[[bytes], Statement]
) -> Iterable[_Raw]:
    for _, item in parse_list(parse(message[NFGENMSG_SIZE:]).get(3, b"")):
        attributes = parse(item)
        flags = number(attributes.get(3, b""))
        key = parse(attributes[1])[1] if 1 in attributes else b""
        key_end = parse(attributes[10])[1] if 10 in attributes else None
        data: Verdict | int | str | tuple[int | str, ...] | None = None
        if 2 in attributes:
            data = _data(description, attributes[2])
        elif 9 in attributes:
            data = text(attributes[9])
        expressions = [attributes[7]] if 7 in attributes else [body for _, body in parse_list(attributes.get(11, b""))]
        statements = tuple(decode_statement(body) for body in expressions)
        element = Element("*", data, comment(attributes.get(6, b"")), statements)
        yield _Raw(key, key_end, flags, element)


def _data(description: SetDescription, data: bytes) -> Verdict | int | str | tuple[int | str, ...]:
    attributes = parse(data)
    if 2 in attributes:
        return decode_verdict(attributes[2])
    value = attributes[1]
    fields = description.data
    if fields is None:
        raise ValueError("map data of an unknown type")
    if len(fields) == 1 and len(value) == 2 * fields[0].size and not fields[0].is_name:
        half = fields[0].size
        return (fields[0].value(value[:half]), fields[0].value(value[half:]))
    parts = tuple(field.value(chunk) for field, chunk in _chunks(fields, value))
    return parts[0] if len(parts) == 1 else parts


def decode_verdict(data: bytes) -> Verdict:
    """A verdict from its NFTA_VERDICT_… attributes. Raises ValueError for a code that does not exist."""
    attributes = parse(data)
    code = int.from_bytes(attributes[1], signed=True)
    name = nft.VERDICTS.get(code if code < 0 else code & 0xFF)
    if name is None:
        raise ValueError(f"verdict {code}")
    return Verdict(name, text(attributes[2]) if 2 in attributes else "")


def comment(userdata: bytes) -> str:
    """The comment in a rule's or an element's user data: type (0), length, text (libnftnl's udata.h)."""
    position = 0
    while position + 2 <= len(userdata):
        kind, length = userdata[position], userdata[position + 1]
        if kind == 0:
            return text(userdata[position + 2 : position + 2 + length])
        position += 2 + length
    return ""


def _chunks(fields: Sequence[KeyField], data: bytes) -> Iterable[tuple[KeyField, bytes]]:
    position = 0
    for field in fields:
        chunk = data[position : position + field.size]
        if len(chunk) < field.size:
            raise ValueError(f"{len(data)} bytes are too few for a key")
        yield field, chunk
        position += -(-field.size // 4) * 4


def _key(fields: Sequence[KeyField], raw: _Raw) -> Key:
    low = [(field, field.value(chunk)) for field, chunk in _chunks(fields, raw.key)]
    parts: list[Scalar] = [value for _, value in low]
    if raw.key_end is not None and raw.key_end != raw.key:
        ends = [chunk for _, chunk in _chunks(fields, raw.key_end)]
        starts = [chunk for _, chunk in _chunks(fields, raw.key)]
        parts = [
            _range(field, int.from_bytes(start, field.order), int.from_bytes(end, field.order))  # type: ignore[arg-type]
            for field, start, end in zip(fields, starts, ends, strict=True)
        ]
    return parts[0] if len(parts) == 1 else tuple(parts)


def _range(field: KeyField, low: int, high: int) -> Scalar:
    """The values from ``low`` to ``high``, which for a name are all those with a common beginning."""
    if not field.is_name:
        return low if low == high else Interval(low, high)
    name = text(low.to_bytes(field.size))
    if low == high:
        return name
    span = high - low + 1
    if span == 1 << (8 * (field.size - len(name.encode()))):
        return NamePrefix(name)
    raise ValueError("a range of names that no wildcard stands for")


def _intervals(field: KeyField, raws: Iterable[_Raw]) -> Iterable[tuple[Scalar, Element]]:
    """Intervals from points in the order of their keys; an interval ends where the next point is."""
    points = sorted(
        ((int.from_bytes(raw.key), not raw.flags & nft.ELEMENT_INTERVAL_END, raw.element) for raw in raws),
        key=lambda point: point[:2],
    )
    for position, (low, starts, element) in enumerate(points):
        if starts:
            is_last = position + 1 == len(points)
            high = (1 << 8 * field.size) - 1 if is_last else points[position + 1][0] - 1
            yield _range(field, low, high), element


def encode_key(fields: Sequence[KeyField], key: int | str | tuple[int | str, ...]) -> bytes:
    """The bytes that ask for one element. Raises ValueError or OverflowError when the key does not fit the set."""
    parts = key if isinstance(key, tuple) else (key,)
    if len(parts) != len(fields) or any(f.is_name != isinstance(p, str) for f, p in zip(fields, parts, strict=True)):
        raise ValueError(f"{key!r} does not fit the set")
    encoded = [field.encode(part) for field, part in zip(fields, parts, strict=True)]
    if len(encoded) == 1:
        return encoded[0]
    return b"".join(chunk + b"\0" * (-len(chunk) % 4) for chunk in encoded)
