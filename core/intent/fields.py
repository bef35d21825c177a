"""Values of the API's policies: protocols, ports, networks, selectors of both kinds. All raise `Unreadable`.

Protocols and ports: api/pkg/lib/numorstring; label selectors: libcalico-go/lib/backend/k8s/conversion/conversion.go
(v3.32.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any, Final

from calico_debug.intent.selectors import Selector, SelectorError, parse
from calico_debug.model.routing import Network

PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58, "sctp": 132, "udplite": 136}
"""Names of protocols in Calico's API, in lower case, and IANA's numbers."""

_RANGE: Final = re.compile(r"(\d+):(\d+)")
_PORT_NAME: Final = re.compile(r"[a-zA-Z0-9_.-]{1,128}")


class Unreadable(ValueError):  # noqa: N818 - it ends a conversion, and its text becomes a problem
    """A value that the API would refuse, or that this version does not know."""


def mapping(value: object, what: str) -> Mapping[str, Any]:
    """An object, empty when absent."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Unreadable(f"{what} is not an object")
    return value


def mappings(value: object, what: str) -> Sequence[Mapping[str, Any]]:
    """A list of objects, empty when absent."""
    return [mapping(one, what) for one in listed(value, what)]


def listed(value: object, what: str) -> Sequence[Any]:
    """A list, empty when absent."""
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise Unreadable(f"{what} is not a list")
    return value


def text(value: object, what: str) -> str:
    """A text, "" when absent."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unreadable(f"{what} is not a text")
    return value


def number(value: object, what: str, highest: int = 65535) -> int:
    """A number from 0 to ``highest``."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= highest:
        raise Unreadable(f"{what} {value!r} is not a number up to {highest}")
    return value


def protocol(value: object) -> int | None:
    """The number of a protocol that is given by name or number; None when absent."""
    if value is None:
        return None
    if isinstance(value, str) and not value.isdigit():
        if value.lower() not in PROTOCOLS:
            raise Unreadable(f"protocol {value!r} is not known")
        return PROTOCOLS[value.lower()]
    return number(int(value) if isinstance(value, str) else value, "protocol", 255)


Ports = tuple[tuple[tuple[int, int], ...], tuple[str, ...]]
"""Numeric ranges, and names."""


def ports(values: object) -> Ports:
    """Calico's list of ports: numbers, ranges ``first:last``, and names."""
    ranges, names = [], []
    for value in listed(values, "ports"):
        if isinstance(value, str) and not value.isdigit():
            if span := _RANGE.fullmatch(value):
                ranges.append(port_range(int(span[1]), int(span[2])))
            elif _PORT_NAME.fullmatch(value):
                names.append(value)
            else:
                raise Unreadable(f"port {value!r} is no number, range or name")
        else:
            single = number(int(value) if isinstance(value, str) else value, "port")
            ranges.append((single, single))
    return tuple(ranges), tuple(names)


def port_range(first: object, last: object) -> tuple[int, int]:
    """A range of ports, checked."""
    low, high = number(first, "port"), number(last, "port")
    if low > high:
        raise Unreadable(f"ports {low} to {high} are no range")
    return low, high


def networks(values: object) -> tuple[Network, ...]:
    """A list of networks or addresses."""
    return tuple(network(value) for value in listed(values, "nets"))


def network(value: object) -> Network:
    """One network or address."""
    if not isinstance(value, str) or "." in value.partition("/")[2]:
        raise Unreadable(f"{value!r} is not a network")
    try:
        return ip_network(value, strict=False)
    except ValueError:
        raise Unreadable(f"{value!r} is not a network") from None


def selector(value: str) -> Selector:
    """A selector of Calico's."""
    try:
        return parse(value)
    except SelectorError as error:
        raise Unreadable(f"selector {value[:100]!r}: {error}") from None


def pod_selector(value: object) -> str:
    """A label selector of pods in Calico's notation; an absent one selects every pod too."""
    return " && ".join(["projectcalico.org/orchestrator == 'k8s'", *_label_terms(value)])


def namespace_selector(value: object) -> str:
    """A label selector of namespaces in Calico's notation: "" if absent, ``all()`` if empty."""
    if value is None:
        return ""
    return " && ".join(_label_terms(value)) or "all()"


_SETS: Final = {"In": "in", "NotIn": "not in"}
_PRESENCE: Final = {"Exists": "has", "DoesNotExist": "! has"}


def _label_terms(value: object) -> list[str]:
    given = mapping(value, "a label selector")
    wanted = mapping(given.get("matchLabels"), "matchLabels")
    terms = [f"{key} == '{text(wanted[key], 'a label')}'" for key in sorted(wanted)]
    for one in mappings(given.get("matchExpressions"), "matchExpressions"):
        key, operator = text(one.get("key"), "a key"), str(one.get("operator"))
        if operator in _SETS:
            values = "', '".join(text(value, "a value") for value in listed(one.get("values"), "values"))
            terms.append(f"{key} {_SETS[operator]} {{ '{values}' }}")
        elif operator in _PRESENCE:
            terms.append(f"{_PRESENCE[operator]}({key})")
        else:
            raise Unreadable(f"operator {operator!r} of a label selector is not known")
    return terms
