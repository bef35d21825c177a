"""Whether a rule matches a flow, by the API's meaning of every clause.

Meanings: api/pkg/apis/projectcalico/v3; how ports with names and services become sets: felix/calc/rule_scanner.go,
felix/labelindex, felix/serviceindex; rules of one family: FilterRuleToIPVersion in felix/rules/policy.go (v3.32.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from calico_debug.intent.applies import Applicability, missing_labels
from calico_debug.intent.model import PolicyFlow, Rule, Side
from calico_debug.model.cluster import Address, Service
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.model.routing import Network

WITH_PORTS: Final = frozenset({6, 17, 132, 136})
"""Protocols with ports: TCP, UDP, SCTP, UDPLite."""

WITH_TYPES: Final = frozenset({1, 58})
"""ICMP and ICMPv6."""

Doubts = dict[str, None]
"""Why it cannot be told whether rules match, each reason once."""

_Answer = bool | str
"""True, False, or why that is not known."""


class Matching:
    """Matches rules with flows, for one set of policies and endpoints."""

    def __init__(self, applicability: Applicability) -> None:
        """Nothing is looked up yet."""
        self._applicability = applicability
        self._owners = applicability.owners
        self._services = {(one.namespace, one.name): one for one in applicability.cluster.services}
        self._backends_known = any(one.backends for one in applicability.cluster.services)

    def matches(self, rule: Rule, flow: PolicyFlow, doubts: Doubts, source_doubt: str = "") -> bool | None:
        """Whether the rule matches; None if that is not known, and ``doubts`` are told why.

        ``source_doubt`` says why the source is perhaps another here than in ``flow``.
        """
        if rule.problem:
            doubts.setdefault(f"a rule is not understood: {rule.problem}")
            return None
        found = []
        for answer in self._clauses(rule, flow, source_doubt):
            if answer is False:
                return False
            if answer is not True:
                found.append(answer)
        doubts.update(dict.fromkeys(found))
        return None if found else True

    def failing(self, rule: Rule, flow: PolicyFlow) -> int:
        """How many clauses of the rule certainly do not hold for the flow."""
        return sum(answer is False for answer in self._clauses(rule, flow, ""))

    def side_answers(self, side: Side, flow: PolicyFlow, *, is_source: bool) -> tuple[bool | str, ...]:
        """What each clause of a side says of the flow's source or destination: True, False, or why it is not known."""
        if is_source:
            return tuple(self._side(side, flow.source, flow.source_port, flow, "source"))
        return tuple(self._side(side, flow.destination, flow.destination_port, flow, "destination"))

    def _clauses(self, rule: Rule, flow: PolicyFlow, source_doubt: str) -> Iterator[_Answer]:
        yield rule.ip_version in (0, flow.source.version)
        yield rule.protocol is None or rule.protocol == flow.protocol
        yield rule.not_protocol is None or rule.not_protocol != flow.protocol
        if rule.icmp is not None:
            yield _icmp(rule.icmp, flow)
        if rule.not_icmp is not None:
            inside = _icmp(rule.not_icmp, flow)
            yield inside if isinstance(inside, str) else not inside
        yield from self._side(rule.destination, flow.destination, flow.destination_port, flow, "destination")
        for answer in self._side(rule.source, flow.source, flow.source_port, flow, "source"):
            yield source_doubt or answer

    def _side(self, side: Side, address: Address, port: int | None, flow: PolicyFlow, which: str) -> Iterator[_Answer]:
        """An answer for each clause that is given."""
        if side.nets:
            yield _within(address, side.nets)
        if side.not_nets:
            # A list that has nothing for the flow's family takes the rule out of that family
            ours = [net for net in side.not_nets if net.version == address.version]
            yield bool(ours) and not _within(address, ours)
        if side.selector is not None and (side.ports or not side.named_ports):
            yield self._selected(side, address, positive=True)
        if side.not_selector is not None:
            yield self._selected(side, address, positive=False)
        if side.service is not None:
            yield self._backend(side.service, address, port if which == "destination" else None, flow, which)
        for ranges, names, wanted in (
            (side.ports, side.named_ports, True),
            (side.not_ports, side.not_named_ports, False),
        ):
            if ranges or names:
                yield self._port(side, ranges, names, address, port, flow, which, wanted=wanted)

    def _selected(self, side: Side, address: Address, *, positive: bool) -> _Answer:
        selector = side.selector if positive else side.not_selector
        if selector is None:
            return True
        doubt = ""
        for owner in self._owners.of(address):
            answer = self._applicability.matches(selector, owner)
            if answer:
                return positive
            if answer is None:
                doubt = f"whether {selector} selects {address} hangs on {missing_labels(owner)}, which evidence lacks"
        return doubt or not positive

    def _port(
        self,
        side: Side,
        ranges: tuple[tuple[int, int], ...],
        names: tuple[str, ...],
        address: Address,
        port: int | None,
        flow: PolicyFlow,
        which: str,
        *,
        wanted: bool,
    ) -> _Answer:
        if flow.protocol not in WITH_PORTS:
            return not wanted
        if port is None:
            return f"the {which} port is not given"
        if any(first <= port <= last for first, last in ranges):
            return wanted
        return self._named(side, names, address, port, flow.protocol, wanted=wanted)

    def _named(
        self, side: Side, names: tuple[str, ...], address: Address, port: int, protocol: int, *, wanted: bool
    ) -> _Answer:
        """Ports with names are those of endpoints that the side's positive selector selects, if it has one."""
        doubt = ""
        for endpoint in self._owners.endpoints(address):
            if any((one.name in names, one.protocol, one.number) == (True, protocol, port) for one in endpoint.ports):
                answer = True if side.selector is None else self._applicability.matches(side.selector, endpoint)
                if answer:
                    return wanted
                if answer is None:
                    doubt = f"whether {side.selector} selects {endpoint} hangs on labels that evidence lacks"
        return doubt or not wanted

    def _backend(
        self, name: tuple[str, str], address: Address, port: int | None, flow: PolicyFlow, which: str
    ) -> _Answer:
        service: Service | None = self._services.get(name)
        if not self._backends_known:
            return f"evidence does not have the backends of service {'/'.join(name)}"
        own = [one for one in service.backends if one.address == address] if service else []
        if which == "source":
            return bool(own)
        if port is None and own and flow.protocol in WITH_PORTS:
            return "the destination port is not given"
        return any((PROTOCOL_NUMBERS.get(one.protocol.lower()), one.port) == (flow.protocol, port) for one in own)


def _within(address: Address, nets: tuple[Network, ...] | list[Network]) -> bool:
    return any(net.version == address.version and address in net for net in nets)


def _icmp(wanted: tuple[int, int | None], flow: PolicyFlow) -> _Answer:
    if flow.protocol not in WITH_TYPES:
        return False
    if flow.icmp is None:
        return "the ICMP type is not given"
    kind, code = wanted
    return flow.icmp[0] == kind and code in (None, flow.icmp[1])
