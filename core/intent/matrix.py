"""Who may speak to whom: a decision for every pair of many pods, made once for pairs that policy cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from calico_debug.intent.applies import AppliedTier
from calico_debug.intent.decide import Intent
from calico_debug.intent.evaluate import Decision
from calico_debug.intent.model import Direction, Endpoint, PolicyFlow, Rule, Side, Verdict
from calico_debug.intent.nets import NetIndex
from calico_debug.model.cluster import Address

ECHO: Final = {1: (8, 0), 58: (128, 0)}


@dataclass(frozen=True, slots=True)
class Matrix:
    """Verdicts for all pairs of ``sources`` and ``destinations``. A pod without an address of the family has none.

    ``groups`` is how many groups of pods were told apart, ``decisions`` how many decisions were made.
    """

    sources: tuple[Endpoint, ...]
    destinations: tuple[Endpoint, ...]
    rows: tuple[tuple[Verdict, ...], ...]
    groups: int
    decisions: int


def matrix(
    intent: Intent,
    sources: Sequence[Endpoint],
    destinations: Sequence[Endpoint],
    protocol: int,
    port: int | None = None,
    version: int = 4,
) -> Matrix:
    """What pods' own policies decide for flows between them; what host endpoints do with them is left out.

    ``protocol`` is the IP protocol number, ``port`` the destination's, ``version`` 4 or 6.
    """
    return Pairs(intent, protocol, port, version).matrix(sources, destinations)


_Answer = tuple[bool | str, ...]
_Answers = dict[int, _Answer]
"""What a side of a rule says of the groups of addresses."""

_Signature = tuple[_Answer, ...]
"""What the rules of a pod's policies say of the other end: all that a decision can depend on."""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod, its group, and the numbers of the policies that apply to it each way; -1 where that is not asked."""

    endpoint: Endpoint
    address: Address
    group: int
    egress: int = -1
    ingress: int = -1


class Pairs:
    """What pods decide about each other for one protocol and port, decided once where nothing can be told apart."""

    def __init__(
        self, intent: Intent, protocol: int, port: int | None, version: int, source_port: int | None = None
    ) -> None:
        """As for `matrix`; ``source_port`` None is any."""
        self.intent = intent
        self._protocol, self._port, self._version = protocol, port, version
        self._source_port = source_port
        self._groups = _Groups(intent)
        self._known: dict[tuple[Direction, int, int, _Signature], Decision] = {}
        self._looks_at_itself: dict[int, bool] = {}
        self._sides: dict[int, list[tuple[Side, _Answers]]] = {}
        self._answers: dict[tuple[Direction, Side], _Answers] = {}

    def matrix(self, sources: Sequence[Endpoint], destinations: Sequence[Endpoint]) -> Matrix:
        """See the function of that name."""
        senders, receivers = list(self.members(sources)), list(self.members(destinations))
        columns = {(one.group, one.ingress): one for one in receivers}
        rows: dict[tuple[int, int], tuple[Verdict, ...]] = {}
        for sender in senders:
            if (sender.group, sender.egress) not in rows:
                cells = {key: self.verdict(sender, receiver) for key, receiver in columns.items()}
                row = tuple(cells[receiver.group, receiver.ingress] for receiver in receivers)
                rows[sender.group, sender.egress] = row
        return Matrix(
            tuple(one.endpoint for one in senders),
            tuple(one.endpoint for one in receivers),
            tuple(rows[one.group, one.egress] for one in senders),
            len({one.group for one in (*senders, *receivers)}),
            len(self._known),
        )

    def member(self, endpoint: Endpoint, *directions: Direction) -> Member | None:
        """A pod, to be asked about its policies in those directions; None without an address of the family."""
        address = next((one for one in endpoint.addresses if one.version == self._version), None)
        if address is None:
            return None
        tiers = {direction: self._tiers(endpoint, direction) for direction in directions}
        return Member(endpoint, address, self._groups.of(address), **tiers)

    def flow(self, sender: Member, receiver: Member) -> PolicyFlow:
        """The flow from one pod to another."""
        ends = sender.address, receiver.address
        return PolicyFlow(*ends, self._protocol, self._source_port, self._port, ECHO.get(self._protocol))

    def decision(self, own: Member, direction: Direction, other: Member) -> Verdict:
        """What a pod's own policies decide about what it sends to another one, or has from it."""
        return self._decided(own, direction, other).verdict

    def decisions(self, sender: Member, receiver: Member) -> tuple[Decision, Decision | None]:
        """What the sender's policies decide, and the receiver's; None where the sender's deny."""
        egress = self._decided(sender, "egress", receiver)
        return egress, None if egress.verdict == "denied" else self._decided(receiver, "ingress", sender)

    def _decided(self, own: Member, direction: Direction, other: Member) -> Decision:
        ends = (own, other) if direction == "egress" else (other, own)
        tiers = own.egress if direction == "egress" else own.ingress
        return self._one_way(own, direction, tiers, other.group, self.flow(*ends))

    def members(self, endpoints: Sequence[Endpoint]) -> Iterator[Member]:
        """The pods with an address of the family, to be asked about their policies in both directions."""
        members = (self.member(endpoint, "egress", "ingress") for endpoint in endpoints)
        return (member for member in members if member is not None)

    def verdict(self, sender: Member, receiver: Member) -> Verdict:
        """What both decide together."""
        egress = self.decision(sender, "egress", receiver)
        return egress if egress == "denied" else both(egress, self.decision(receiver, "ingress", sender))

    def _one_way(self, own: Member, direction: Direction, tiers: int, other: int, flow: PolicyFlow) -> Decision:
        signature = tuple(
            [
                answers[other] if other in answers else self._look(side, answers, other, direction, flow)
                for side, answers in self._sides[tiers]
            ]
        )
        key = direction, tiers, own.group if self._looks_at_itself[tiers] else -1, signature
        if key not in self._known:
            self._known[key] = self.intent.pod_decision(own.endpoint, direction, flow)
        return self._known[key]

    def _look(self, side: Side, answers: _Answers, other: int, direction: Direction, flow: PolicyFlow) -> _Answer:
        """What a side of a rule says of the other end's group; the same for every pod of the group."""
        found = self.intent.matching.side_answers(side, flow, is_source=direction == "ingress")
        answers[other] = found
        return found

    def _tiers(self, endpoint: Endpoint, direction: Direction) -> int:
        """A number for the policies that apply; with it is noted whether a rule looks at the endpoint's own side."""
        tiers = self.intent.applicability.tiers_of(endpoint, direction)
        number = self._groups.number_of((direction, tiers, endpoint.profiles[:1]))
        if number not in self._looks_at_itself:
            rules = list(_rules(tiers, direction))
            own = (rule.source if direction == "egress" else rule.destination for rule in rules)
            self._looks_at_itself[number] = any(_by_address(side) for side in own)
            others = dict.fromkeys(rule.source if direction == "ingress" else rule.destination for rule in rules)
            self._sides[number] = [
                (side, self._answers.setdefault((direction, side), {})) for side in others if _by_address(side)
            ]
        return number


def both(egress: Verdict, ingress: Verdict) -> Verdict:
    """What becomes of a flow about which its two ends decide so."""
    if egress == "denied":
        return egress
    return egress if ingress == "allowed" else ingress


def _rules(tiers: Sequence[AppliedTier], direction: Direction) -> Iterator[Rule]:
    for tier in tiers:
        for applied in tier.enforced:
            yield from applied.policy.rules(direction)


def _by_address(side: Side) -> bool:
    """Whether a side of a rule tells addresses apart. Numbers of ports are the same in every cell."""
    return side != Side(ports=side.ports, not_ports=side.not_ports)


class _Groups:
    """Numbers for addresses, the same for those that no rule can tell apart."""

    def __init__(self, intent: Intent) -> None:
        self._applicability = intent.applicability
        sides = [
            side
            for policy in intent.applicability.policies
            for rule in (*policy.ingress, *policy.egress)
            for side in (rule.source, rule.destination)
        ]
        nets = {net for side in sides for net in (*side.nets, *side.not_nets)}
        self._nets = NetIndex((net, net) for net in nets)
        self._backends: dict[Address, list[tuple[object, ...]]] = {}
        named = {side.service for side in sides}
        for service in intent.cluster.services:
            if (service.namespace, service.name) in named:
                for backend in service.backends:
                    place = (service.namespace, service.name, backend.protocol, backend.port)
                    self._backends.setdefault(backend.address, []).append(place)
        self._numbers: dict[object, int] = {}
        self._known: dict[Address, int] = {}

    def of(self, address: Address) -> int:
        """The number of the address's group."""
        known = self._known.get(address)
        if known is None:
            owners = self._applicability.owners.of(address)
            known = self._known[address] = self.number_of(
                (
                    frozenset(self._applicability.class_of(owner) for owner in owners),
                    frozenset(port for owner in owners if isinstance(owner, Endpoint) for port in owner.ports),
                    frozenset(self._nets.covering(address)),
                    frozenset(self._backends.get(address, ())),
                )
            )
        return known

    def number_of(self, thing: object) -> int:
        """A number for anything that can be a key."""
        return self._numbers.setdefault(thing, len(self._numbers))
