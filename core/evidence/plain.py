"""Records of the model as JSON between an agent and who asks it, and back again, with every type checked.

What comes from another machine is not believed: a member that is missing, unknown or of another type is an error.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from calico_debug.errors import EvidenceError
from calico_debug.model.flow import Address

Record = TypeVar("Record")

LONGEST_TEXT = 4096
LARGEST_NUMBER = 1 << 64


def to_plain(value: object) -> Any:
    """A record, or what it is made of, as JSON has it: objects by member names, lists, texts, numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [to_plain(item) for item in value]
    if isinstance(value, IPv4Address | IPv6Address):
        return str(value)
    return value


def from_plain(kind: type[Record], value: object) -> Record:
    """The record of a type that `to_plain` made ``value`` of. Raises `EvidenceError`."""
    found: Record = _restored(kind, value, kind.__name__)
    return found


def _restored(kind: Any, value: object, place: str) -> Any:
    if get_origin(kind) in (Union, types.UnionType) and kind != Address:
        (inner,) = (one for one in get_args(kind) if one is not type(None))
        return None if value is None else _restored(inner, value, place)
    if kind == Address:
        return _address(value, place)
    if get_origin(kind) is tuple:
        return _tuple(get_args(kind), value, place)
    if is_dataclass(kind) and isinstance(kind, type):
        return _record(kind, value, place)
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise _wrong(place)
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise _wrong(place)
    if isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise _wrong(place)
    return value


def _record(kind: type, value: object, place: str) -> Any:
    hints = _hints(kind)
    if not isinstance(value, Mapping) or value.keys() != hints.keys():
        raise _wrong(place)
    return kind(**{name: _restored(hint, value[name], f"{place}.{name}") for name, hint in hints.items()})


def _tuple(parts: tuple[Any, ...], value: object, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong(place)
    kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else parts
    if len(kinds) != len(value):
        raise _wrong(place)
    return tuple(_restored(kind, item, place) for kind, item in zip(kinds, value, strict=True))


def _address(value: object, place: str) -> Address:
    try:
        if isinstance(value, str):
            return ip_address(value)
    except ValueError:
        pass
    raise _wrong(place)


@lru_cache(maxsize=32)
def _hints(kind: type) -> Mapping[str, Any]:
    # Some records name types that only type checkers import.
    return get_type_hints(kind, localns={"Address": Address, "Mapping": Mapping, "Rule": object})


def _wrong(place: str) -> EvidenceError:
    return EvidenceError(f"the agent sent a {place} that is none: is it an agent of calico-debug, of this version?")
