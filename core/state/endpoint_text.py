"""What a user types for an end of a flow (contract 2, docs/cli.md), taken apart but not yet looked up.

pod/NS/NAME[:PORT]   NS/NAME[:PORT]   NAME[:PORT]   svc/NS/NAME[:PORT]   node/NAME[:PORT]
IP   IP:PORT   [V6]   [V6]:PORT   external[:PORT]
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from calico_debug.errors import UsageError

Address = IPv4Address | IPv6Address

KINDS: Mapping[str, str] = {
    "pod": "pod",
    "pods": "pod",
    "po": "pod",
    "svc": "service",
    "service": "service",
    "services": "service",
    "node": "node",
    "nodes": "node",
    "no": "node",
}
"""First words of an endpoint and what they name: kubectl's own short and long names."""

FORMS = "pod/NS/NAME, NS/NAME, svc/NS/NAME, node/NAME, IP, external, each with :PORT where one is meant"

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
"""Names of objects are DNS subdomains (kubernetes apimachinery validation, IsDNS1123Subdomain)."""

PORT_NAME = re.compile(r"(?=[a-z0-9-]*[a-z])[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A port's name: an IANA_SVC_NAME of a container, a DNS label of a service."""

LONGEST = 600
"""Longer than any name with its namespace, and short enough to be shown."""


@dataclass(frozen=True, slots=True)
class EndpointText:
    """An end as typed. ``kind`` is "pod", "service", "node", "address" or "external".

    ``namespace`` is "" when none was given; ``port`` is a number, a name, or None.
    """

    text: str
    kind: str
    name: str = ""
    namespace: str = ""
    address: Address | None = None
    port: int | str | None = None


def parse_endpoint(text: str, namespace: str | None = None) -> EndpointText:
    """Take an endpoint apart. ``namespace`` is that of names without one. Raises `UsageError`."""
    word = text.strip()
    if not word:
        raise UsageError(f"an endpoint is empty: write {FORMS}")
    if len(word) > LONGEST:
        raise UsageError(f"the endpoint {word[:40]!r}... has {len(word)} characters: write {FORMS}")
    if word.startswith("["):
        return _bracketed(word)
    address = _address(word)
    if address is not None:
        return EndpointText(word, "address", address=address)
    head, colon, port = word.rpartition(":")
    if not colon:
        head = word
    elif ":" in head:
        raise UsageError(f"{word!r} is no address: an IPv6 address with a port is written [2001:db8::1]:80")
    number = parse_port(port, word) if colon else None
    address = _address(head)
    if address is not None:
        return EndpointText(word, "address", address=address, port=number)
    if re.fullmatch(r"[0-9.]+(/[0-9]+)?", head):
        raise UsageError(f"{head!r} is no IPv4 address: give one address such as 10.0.0.1, not a network or a part")
    if head == "external":
        return EndpointText(word, "external", port=number)
    return _named(word, head.split("/"), number, namespace or "")


def parse_port(text: str, where: str) -> int | str:
    """A port from 1 to 65535, or a port's name. ``where`` is the endpoint, for the message. Raises `UsageError`."""
    if text.isascii() and text.isdigit():
        if len(text) <= 5 and 1 <= int(text) <= 65535:
            return int(text)
        raise UsageError(f"port {text[:20]} in {where!r} is out of range: ports are 1 to 65535")
    if not PORT_NAME.fullmatch(text):
        raise UsageError(f"{text!r} in {where!r} is no port: give a number from 1 to 65535 or the port's name")
    return text


def _bracketed(word: str) -> EndpointText:
    inner, bracket, rest = word[1:].partition("]")
    address = _address(inner)
    if not bracket or address is None or address.version != 6 or (rest and not rest.startswith(":")):
        raise UsageError(f"{word!r} is no IPv6 address: write [2001:db8::1]:80")
    return EndpointText(word, "address", address=address, port=parse_port(rest[1:], word) if rest else None)


def _named(word: str, parts: list[str], port: int | str | None, namespace: str) -> EndpointText:
    kind = "pod"
    if len(parts) > 1 and parts[0] in KINDS:
        kind, parts = KINDS[parts[0]], parts[1:]
    if not 1 <= len(parts) <= (1 if kind == "node" else 2):
        raise UsageError(f"{word!r} is no endpoint: write {FORMS}")
    if not all(NAME.fullmatch(part) for part in parts):
        raise UsageError(f"{word!r} is no endpoint: a name has letters, digits, '-' and '.' only; write {FORMS}")
    if kind == "node":
        return EndpointText(word, kind, parts[0], port=port)
    return EndpointText(word, kind, parts[-1], parts[0] if len(parts) == 2 else namespace, port=port)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.scope_id:
        raise UsageError(f"{text!r} names an interface: leave out %{address.scope_id}")
    return address
