"""Values and set elements as ``nft -j`` writes them, to the integers and names of `calico_debug.model.nft`.

Source: libnftables-json(5), "EXPRESSIONS"; symbolic names from `calico_debug.decode.nft_fields`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from calico_debug.decode.nft_fields import DATA_TYPES, DataType
from calico_debug.decode.nft_symbols import SYMBOLS
from calico_debug.model.nft import Element, Interval, NamePrefix, SetContent, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from calico_debug.model.nft import Key, Scalar, Statement

VERDICTS = ("accept", "drop", "continue", "return")
ELEMENT_STATEMENTS = ("counter", "limit", "quota", "ct count")


class NotUnderstoodError(Exception):
    """A piece of JSON that this version has no meaning for; the message shows it."""


MALFORMED = (
    NotUnderstoodError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    RecursionError,
)
"""What decoding a piece of foreign JSON can raise; callers turn it into something the user sees."""


def decode_scalar(kind: DataType, value: Any) -> Scalar:
    """One value of a type. A list or ``|`` of flags is their union, a prefix or range an `Interval`."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return _in_width(kind, value)
    if isinstance(value, str):
        return _decode_text(kind, value)
    if isinstance(value, list):
        return _union(kind, value)
    if isinstance(value, dict) and len(value) == 1:
        ((name, content),) = value.items()
        if name == "prefix":
            return _decode_prefix(kind, content)
        if name == "range":
            low, high = (decode_scalar(kind, end) for end in content)
            if isinstance(low, int) and isinstance(high, int):
                return interval(low, high)
        if name == "|":
            return _union(kind, content)
        if name == "elem":
            return decode_scalar(kind, content["val"])
    raise NotUnderstoodError(f"value {value!r}")


def interval(low: int, high: int) -> int | Interval:
    """The values from ``low`` to ``high``; a plain integer when that is one."""
    return low if low == high else Interval(low, high)


def decode_verdict(value: Any) -> Verdict | None:
    """A verdict object, None when ``value`` is something else."""
    if not isinstance(value, dict) or len(value) != 1:
        return None
    ((name, content),) = value.items()
    if name in VERDICTS:
        return Verdict(name)
    if name in ("jump", "goto"):
        return Verdict(name, _text(content["target"]))
    return None


def set_types(names: Any) -> tuple[DataType, ...]:
    """The field types of a set from its ``type``: a name, a list of names, or names joined by " . "."""
    if isinstance(names, str):
        names = names.split(" . ")
    return tuple(DATA_TYPES.get(name, DATA_TYPES["integer"]) for name in names)


def decode_elements(
    keys: Sequence[DataType],
    data: Sequence[DataType] | None,
    elements: Iterable[Any],
    decode_statement: Callable[[str, Any], Statement],
) -> SetContent:
    """The content of a set or, with ``data`` (empty for verdicts and objects), of a map.

    Raises one of `MALFORMED` when an element is not understood.
    """
    exact: dict[int | str | tuple[int | str, ...], Element] = {}
    ranged: list[Element] = []
    default: Element | None = None
    for entry in elements:
        key, value = entry if data is not None else (entry, None)
        comment = ""
        statements: tuple[Statement, ...] = ()
        if isinstance(key, dict) and "elem" in key:
            attributes = key["elem"]
            key, comment = attributes["val"], _text(attributes.get("comment", ""))
            statements = tuple(decode_statement(n, attributes[n]) for n in ELEMENT_STATEMENTS if n in attributes)
        decoded_data = None if data is None else _decode_data(data, value)
        if key == "*":
            default = Element("*", decoded_data, comment, statements)
            continue
        decoded = decode_key(keys, key)
        element = Element(decoded, decoded_data, comment, statements)
        if isinstance(decoded, tuple):
            if all(isinstance(part, int | str) for part in decoded):
                exact[decoded] = element  # type: ignore[index]
            else:
                ranged.append(element)
        elif isinstance(decoded, int | str):
            exact[decoded] = element
        else:
            ranged.append(element)
    return SetContent(tuple(kind.width for kind in keys), exact, tuple(ranged), default, is_map=data is not None)


def decode_key(keys: Sequence[DataType], value: Any) -> Key:
    """The key of an element: one value, or a tuple of them for a concatenation."""
    if isinstance(value, dict) and "concat" in value:
        parts = value["concat"]
        if len(parts) != len(keys):
            raise NotUnderstoodError(f"concatenation of {len(parts)} values for {len(keys)} fields")
        return tuple(decode_scalar(kind, part) for kind, part in zip(keys, parts, strict=True))
    if len(keys) != 1:
        raise NotUnderstoodError(f"value {value!r} for {len(keys)} fields")
    return decode_scalar(keys[0], value)


def _decode_data(kinds: Sequence[DataType], value: Any) -> Verdict | int | str | tuple[int | str, ...]:
    verdict = decode_verdict(value)
    if verdict is not None:
        return verdict
    if not kinds:
        return _text(value)
    decoded = decode_key(kinds, value)
    if isinstance(decoded, Interval):
        return (decoded.low, decoded.high)
    if isinstance(decoded, tuple) and all(isinstance(part, int | str) for part in decoded):
        return decoded  # type: ignore[return-value]
    if isinstance(decoded, int | str):
        return decoded
    raise NotUnderstoodError(f"map data {value!r}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise NotUnderstoodError(f"text expected, not {value!r}")
    return value


def _in_width(kind: DataType, value: int) -> int:
    if value < 0 or (kind.width and value >> kind.width):
        raise NotUnderstoodError(f"{value} does not fit {kind.width} bits")
    return value


def _union(kind: DataType, values: Any) -> int:
    union = 0
    for value in values:
        part = decode_scalar(kind, value)
        if not isinstance(part, int):
            raise NotUnderstoodError(f"flag {value!r}")
        union |= part
    return union


def _decode_prefix(kind: DataType, content: Any) -> int | Interval:
    address, length = decode_scalar(kind, content["addr"]), content["len"]
    if not isinstance(address, int) or not isinstance(length, int) or not 0 <= length <= kind.width:
        raise NotUnderstoodError(f"prefix {content!r}")
    span = (1 << (kind.width - length)) - 1
    return interval(address & ~span, address | span)


def _decode_text(kind: DataType, text: str) -> int | str | NamePrefix:
    if kind.name == "ifname":
        return decode_name(text)
    symbols = SYMBOLS.get(kind.name)
    if symbols is not None and text in symbols:
        return symbols[text]
    special = _SPECIAL.get(kind.name)
    if special is not None:
        return special(text)
    try:
        return _in_width(kind, int(text, 0))
    except ValueError:
        raise NotUnderstoodError(f"{kind.name} {text!r}") from None


def decode_name(text: str) -> str | NamePrefix:
    """An interface name; a ``*`` at the end stands for any ending, ``\\*`` for the character itself."""
    if text.endswith("\\*"):
        return text[:-2] + "*"
    return NamePrefix(text[:-1]) if text.endswith("*") else text


def _ether(text: str) -> int:
    octets = text.split(":")
    if len(octets) != 6:
        raise NotUnderstoodError(f"Ethernet address {text!r}")
    return int.from_bytes(bytes(int(octet, 16) for octet in octets))


def _class(text: str) -> int:
    # "major:minor" in hexadecimal (tc handles); "none" and "root" are TC_H_UNSPEC and TC_H_ROOT.
    if text in ("none", "root"):
        return {"none": 0, "root": 0xFFFFFFFF}[text]
    major, _, minor = text.partition(":")
    return (int(major or "0", 16) << 16) | int(minor or "0", 16)


def _index(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _plain(text: str) -> str:
    return text


_SPECIAL: dict[str, Callable[[str], int | str]] = {
    "ipv4_addr": lambda text: int(IPv4Address(text)),
    "ipv6_addr": lambda text: int(IPv6Address(text)),
    "ether_addr": _ether,
    "classid": _class,
    "iface_index": _index,
    "string": _plain,
}
