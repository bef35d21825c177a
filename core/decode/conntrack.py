"""``conntrack -L`` output: one connection a line.

Source: libnetfilter_conntrack 1.0.9, src/conntrack/snprintf_default.c, as conntrack-tools 1.4.7 prints; the lines of
/proc/net/nf_conntrack (net/netfilter/nf_conntrack_standalone.c) differ by the two words of the network layer in front.
A line reads, with everything in brackets being there or not:

    [ipv4 2] tcp 6 [TIMEOUT] [STATE] src= dst= [sport= dport= | type= code= id= | srckey= dstkey=] [zone-orig=]
    [packets= bytes=] [[UNREPLIED]] src= dst= … [zone-reply=] [packets= bytes=] [[ASSURED] | [OFFLOAD] | [HW_OFFLOAD]]
    [mark=] [secctx=] [zone=] [delta-time=] [use=] …
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from calico_debug.model.conntrack import Address, Connection, Tuple

PORT_KEYS = (("sport", "dport"), ("srckey", "dstkey"))
"""Ports of TCP, UDP, SCTP, DCCP and UDPlite in decimal, call keys of GRE in hexadecimal: both are "ports" here."""

TIMESTAMP = re.compile(r"^\[(?:\d+\.\d+|[A-Z]{3} .*?\d{4})\]\s*")
"""``-o timestamp`` in front of an event; in a listing, creation times stand at the end (``[start=…]``)."""

EVENT = re.compile(r"^\[(?:NEW|UPDATE|DESTROY)\]\s*")

FOOTER = re.compile(r"^conntrack v\S+ \(conntrack-tools\)")
"""What conntrack writes to stderr, which a careless ``2>&1`` puts into the file."""


@dataclass(frozen=True, slots=True)
class DecodedConnections:
    """What was decoded, and how many lines could not be, with the first of them (shortened) and the reason."""

    connections: Sequence[Connection]
    undecodable: int = 0
    example: str = ""


def decode_connections(data: bytes) -> DecodedConnections:
    """Every connection of a listing in its order. Never raises: lines that cannot be read are counted."""
    connections: list[Connection] = []
    undecodable, example = 0, ""
    for line in data.decode("utf-8", "replace").split("\n"):
        if not line or line.isspace() or FOOTER.match(line):
            continue
        try:
            connections.append(decode_connection(line))
        except (ValueError, KeyError, IndexError) as error:
            reason = _reason(error)
            example = example or f"{line.strip()[:120]!r}: {reason}"
            undecodable += 1
    return DecodedConnections(connections, undecodable, example)


def decode_connection(line: str) -> Connection:
    """One connection from its line. Raises `ValueError`, `KeyError` or `IndexError` when it is none."""
    words = EVENT.sub("", TIMESTAMP.sub("", line.strip())).split()
    if words[0] in ("ipv4", "ipv6"):
        words = words[2:]
    protocol = int(words[1])
    if not 0 <= protocol <= 255:
        raise ValueError(f"protocol {protocol} is not 0 to 255")
    timeout, state, position = None, "", 2
    if words[position].isdigit():
        timeout, position = int(words[position]), position + 1
    if "=" not in words[position] and not words[position].startswith("["):
        state, position = words[position], position + 1
    first, second, flags, rest = _sections(iter(words[position:]))
    zone = int(rest.get("zone", 0))
    original = _tuple(protocol, first, int(first.get("zone-orig", zone)))
    reply = _tuple(protocol, second, int(second.get("zone-reply", zone)))
    return Connection(
        original=original,
        reply=reply,
        timeout=timeout,
        state=state,
        replied="[UNREPLIED]" not in flags,
        # Only an assured connection can be offloaded (net/netfilter/nft_flow_offload.c), and the print shows one word.
        assured=not flags.isdisjoint({"[ASSURED]", "[OFFLOAD]", "[HW_OFFLOAD]"}),
        mark=int(rest.get("mark", 0)),
        zone=zone,
        packets=(_count(first, "packets"), _count(second, "packets")),
        bytes=(_count(first, "bytes"), _count(second, "bytes")),
        age=_count(rest, "delta-time"),
    )


def lines_between(data: bytes, source: Address, destination: Address) -> bytes:
    """The lines of a listing in which a direction leads from ``source`` to ``destination``, found without decoding."""
    return b"\n".join(_lines_with(data, f"src={source} dst={destination} "))


def lines_from(data: bytes, source: Address, port: int) -> bytes:
    """The lines in which a direction may lead from a port of ``source``, found without decoding."""
    ports = f" sport={port} ".encode()
    return b"\n".join(line for line in _lines_with(data, f"src={source} ") if ports in line)


def _lines_with(data: bytes, text: str) -> list[bytes]:
    words = text.encode()
    lines = []
    position = data.find(words)
    while position >= 0:
        end = data.find(b"\n", position)
        end = len(data) if end < 0 else end
        lines.append(data[data.rfind(b"\n", 0, position) + 1 : end])
        position = data.find(words, end)
    return lines


def _reason(error: Exception) -> str:
    if isinstance(error, IndexError):
        return "it ends too early"
    return f"no {error}" if isinstance(error, KeyError) else str(error)


TUPLE_KEYS = frozenset(
    {"src", "dst", "sport", "dport", "srckey", "dstkey", "type", "code", "id", "zone-orig", "zone-reply"}
    | {"packets", "bytes"}
)


def _sections(words: Iterator[str]) -> tuple[dict[str, str], dict[str, str], set[str], dict[str, str]]:
    """The original tuple with its counters, the reply's, the words in brackets, and what is neither."""
    tuples: list[dict[str, str]] = []
    flags: set[str] = set()
    rest: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator:
            if word.startswith("["):
                flags.add(word)
            continue
        if key == "src":
            tuples.append({})
        current = tuples[-1] if tuples else rest
        # -o id prints the connection's own id behind the flags, an ICMP tuple has one of its own.
        if key in TUPLE_KEYS and current is not rest and key not in current:
            current[key] = value
        else:
            rest.setdefault(key, value)
    if len(tuples) != 2:
        raise ValueError(f"it has {len(tuples)} tuples instead of 2")
    return tuples[0], tuples[1], flags, rest


def _tuple(protocol: int, fields: dict[str, str], zone: int) -> Tuple:
    source_port = destination_port = icmp = None
    if "type" in fields:
        icmp = (int(fields["type"]), int(fields["code"]), int(fields.get("id", 0)))
    for source_key, destination_key in PORT_KEYS:
        if source_key in fields:
            source_port, destination_port = int(fields[source_key], 0), int(fields[destination_key], 0)
    source, destination = _address(fields["src"]), _address(fields["dst"])
    if source.version != destination.version:
        raise ValueError("its addresses are of two families")
    return Tuple(protocol, source, destination, source_port, destination_port, icmp, zone)


@lru_cache(maxsize=65536)
def _address(text: str) -> Address:
    return ip_address(text)


def _count(fields: dict[str, str], key: str) -> int | None:
    return int(fields[key]) if key in fields else None
