"""Phrases that rules in words are made of: selectors, namespaces, protocols, ports, lists. Nothing here raises."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

SHOWN: Final = 12
"""Longest list that is written out."""

LONGEST: Final = 400
"""Longest single value that is written out, in characters."""

NAMESPACE_NAME_LABELS: Final = ("kubernetes.io/metadata.name", "projectcalico.org/name")
"""Labels that every namespace has, with its name (Kubernetes since 1.21; Calico's conversion of namespaces)."""

_SPELLINGS: Final = {name.lower(): name for name in ("TCP", "UDP", "SCTP", "ICMP", "ICMPv6", "UDPLite")}
"""Names of protocols in Calico's API (api/pkg/lib/numorstring/protocol.go)."""

_REPR: Final = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = LONGEST

_EQUALS: Final = re.compile(r"""\s*([\w./-]+)\s*==\s*(?:'([^']*)'|"([^"]*)")\s*""")
_IN: Final = re.compile(r"""\s*([\w./-]+)\s+in\s*\{([^{}]*)\}\s*""")
_QUOTED: Final = re.compile(r"""'([^']*)'|"([^"]*)\"""")


def namespaces(selector: object) -> str:
    """A namespaceSelector in words: "namespace stars", "any namespace", "namespaces with …"."""
    text = quote(selector).strip()
    if selects_all(text) or text in {f"has({label})" for label in NAMESPACE_NAME_LABELS}:
        return "any namespace"
    if text == "global()":
        return "no namespace"
    if names := _named(text, NAMESPACE_NAME_LABELS):
        return counted("namespace", names)
    return f"namespaces with {text}"


def labels(selector: object) -> str:
    """A selector as it is written, "" if it selects everything."""
    return "" if selects_all(selector) else quote(selector).strip()


def selects_all(selector: object) -> bool:
    """Whether a selector is absent, empty or ``all()``."""
    return not selector or (isinstance(selector, str) and selector.strip() in ("", "all()"))


def _named(selector: str, keys: Iterable[str]) -> list[str]:
    """The values that a selector of the form ``label == 'x'`` or ``label in {'x', 'y'}`` asks of one of the labels."""
    if (one := _EQUALS.fullmatch(selector)) and one[1] in keys:
        return [one[2] if one[2] is not None else one[3]]
    if (several := _IN.fullmatch(selector)) and several[1] in keys:
        return [single or double for single, double in _QUOTED.findall(several[2])]
    return []


_OPERATORS: Final = {"In": "in", "NotIn": "not in", "Exists": "has", "DoesNotExist": "!has"}


def label_selector(selector: object) -> str:
    """A Kubernetes label selector in Calico's notation; "" selects everything."""
    if selector is None:
        return ""
    if not isinstance(selector, Mapping):
        return quote(selector)
    wanted = selector.get("matchLabels")
    parts = [f"{key} == '{quote(value)}'" for key, value in wanted.items()] if isinstance(wanted, Mapping) else []
    for one in mappings(selector.get("matchExpressions")):
        operator = _OPERATORS.get(str(one.get("operator")), quote(one.get("operator")))
        if operator in ("has", "!has"):
            parts.append(f"{operator}({quote(one.get('key'))})")
        else:
            values = ", ".join(f"'{quote(value)}'" for value in as_list(one.get("values")))
            parts.append(f"{quote(one.get('key'))} {operator} {{{values}}}")
    return " && ".join(parts)


def protocol_name(value: object) -> str:
    """A protocol as people write it: "TCP", "ICMPv6", "protocol 47"; "" for none."""
    if value is None or value == "":
        return ""
    if isinstance(value, str) and not value.isdigit():
        return _SPELLINGS.get(value.lower(), value)
    return f"protocol {quote(value)}"


def port_list(value: object) -> str:
    """Calico's list of ports: "port 80", "ports 80, 8000-8010, http"; "" for none."""
    if value is None or value == []:
        return ""
    if not isinstance(value, list | tuple):
        return f"ports {quote(value)}"
    return counted("port", [quote(port).replace(":", "-") for port in value])


def listed(value: object) -> str:
    """A list with commas."""
    if not value:
        return ""
    return ", ".join(words(as_list(value))) if isinstance(value, list | tuple) else quote(value)


def counted(noun: str, values: Sequence[object]) -> str:
    """The noun in the number that the values ask for, and the values."""
    return f"{noun}{'' if len(values) == 1 else 's'} {', '.join(words(values))}"


def words(values: Sequence[object]) -> list[str]:
    """The values as text, the tail of a long list as its length."""
    shown = [quote(value) for value in values[:SHOWN]]
    return shown if len(values) <= SHOWN else [*shown, f"{len(values) - SHOWN} more"]


def prefixed(prefix: str, text: str) -> str:
    """The text after the prefix, or nothing if there is no text."""
    return prefix + text if text else ""


def quote(value: object) -> str:
    """A value as text; one that is neither text nor number is shown as Python writes it. Shortened if very long."""
    if isinstance(value, str):
        return value if len(value) <= LONGEST else f"{value[:LONGEST]}…"
    return _REPR.repr(value)


def as_list(value: object) -> Sequence[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def mappings(value: object) -> Sequence[Mapping[str, Any]]:
    """The objects among the values of a list."""
    return [one for one in as_list(value) if isinstance(one, Mapping)]
