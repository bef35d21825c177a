"""The IP sets that rules ask for: their ids, and who should be a member.

Ids and which parts of a rule become sets: felix/calc/rule_scanner.go (IPSetData, ruleToParsedRule); members:
felix/labelindex/named_port_index.go and felix/serviceindex/serviceindex.go (v3.32.1; as in v3.28).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from calico_debug.intent.applies import Applicability
from calico_debug.intent.model import Endpoint, LabelledNets, Rule, Side
from calico_debug.intent.selectors import Selector, parse, unique_id
from calico_debug.model.cluster import Address
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.routing import Network

Member = Network | tuple[Address, int, int]
"""A network or single address, or an address with protocol number and port."""


@dataclass(frozen=True, slots=True)
class IpSet:
    """One set. ``id`` is Felix's: ``s:…`` by a selector, ``n:…`` by a named port of what a selector selects, ``svc:…``
    and ``svcnoport:…`` by a service, ((namespace, name)). The dataplane's name is made of it and of the family.

    ``protocol`` of a named port is its number, None for any.
    """

    id: str
    selector: Selector | None = None
    named_port: str = ""
    protocol: int | None = None
    service: tuple[str, str] | None = None


NAME_LIMIT: Final = 31
"""Longest name of an IP set (felix/ipsets, MaxIPSetNameLength)."""


def set_number(set_id: str) -> int:
    """What a set is called in eBPF mode, as a rule (TrialHash in felix/idalloc/idalloc.go, v3.28 to v3.32).

    Felix hashes a buffer that keeps the tail of longer ids it met before, so the number may be another.
    """
    return int.from_bytes(hashlib.sha256(bytes(8) + set_id.encode()).digest()[:8], "little")


@dataclass(frozen=True, slots=True)
class Members:
    """Who should be in a set. ``doubts`` say why some may be missing here; then ``found`` are those that are sure."""

    found: frozenset[Member]
    doubts: tuple[str, ...] = ()


def ip_sets(rule: Rule) -> tuple[IpSet, ...]:
    """The sets that a rule asks for, each once."""
    found: dict[str, IpSet] = {}
    for side, is_source in ((rule.source, True), (rule.destination, False)):
        for one in _side(side, rule.protocol, is_source=is_source):
            found.setdefault(one.id, one)
    return tuple(found.values())


def _side(side: Side, protocol: int | None, *, is_source: bool) -> Iterator[IpSet]:
    selector, not_selector = _combined(side.selector, side.not_selector)
    for port in (*side.named_ports, *side.not_named_ports):
        yield _named_port(port, selector or parse(""), protocol)
    # A named port's set has only what the selector selects, so the selector needs none of its own
    if selector is not None and (side.ports or not side.named_ports):
        yield IpSet(selector.unique_id, selector)
    if not_selector is not None:
        yield IpSet(not_selector.unique_id, not_selector)
    if side.service is not None:
        kind = "svcnoport" if is_source else "svc"
        yield IpSet(unique_id(kind, "/".join(side.service)), service=side.service)


def _combined(selector: Selector | None, not_selector: Selector | None) -> tuple[Selector | None, Selector | None]:
    """One selector for both where there are both (combineMatchesIfPossible)."""
    if selector is None or not_selector is None:
        return selector, not_selector
    return parse(f"({selector.text}) && (!({not_selector.text}))"), None


def _named_port(port: str, selector: Selector, protocol: int | None) -> IpSet:
    names = {PROTOCOL_NUMBERS[name]: name for name in ("tcp", "udp", "sctp")}
    # Felix takes a protocol that it does not know here for TCP
    name = "any" if protocol is None else names.get(protocol, "tcp")
    number = None if name == "any" else PROTOCOL_NUMBERS[name]
    return IpSet(unique_id("n", f"{selector.unique_id},{name},{port}"), selector, port, number)


def members(applicability: Applicability, one: IpSet) -> Members:
    """Who should be in the set, of both families."""
    if one.service is not None:
        return _backends(applicability, one)
    doubts: dict[str, None] = {}
    found: set[Member] = set()
    selector = one.selector or parse("")
    candidates: list[Endpoint | LabelledNets] = list(applicability.endpoints)
    candidates += () if one.named_port else applicability.network_sets
    for candidate in candidates:
        answer = applicability.matches(selector, candidate)
        if answer is None:
            doubts.setdefault(f"evidence does not have labels by which {selector} selects")
        elif answer:
            found.update(_of_endpoint(candidate, one) if isinstance(candidate, Endpoint) else candidate.nets)
    return Members(frozenset(found), tuple(doubts))


def _of_endpoint(endpoint: Endpoint, one: IpSet) -> Iterator[Member]:
    for address in endpoint.addresses:
        if not one.named_port:
            yield ip_network(address)
        for port in endpoint.ports:
            if port.name == one.named_port and one.protocol in (None, port.protocol):
                yield address, port.protocol, port.number


def _backends(applicability: Applicability, one: IpSet) -> Members:
    services = applicability.cluster.services
    service = next((each for each in services if (each.namespace, each.name) == one.service), None)
    if not any(each.backends for each in services):
        return Members(frozenset(), ("evidence does not have the backends of services",))
    if service is None:
        return Members(frozenset())
    if one.id.startswith("svcnoport:"):
        return Members(frozenset(ip_network(backend.address) for backend in service.backends))
    numbers = ((backend, PROTOCOL_NUMBERS.get(backend.protocol.lower())) for backend in service.backends)
    return Members(frozenset((backend.address, number, backend.port) for backend, number in numbers if number))
