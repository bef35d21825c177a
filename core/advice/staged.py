"""What would change between pods if a staged policy were enforced."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from calico_debug.advice.flips import EXAMPLES, Change, changed_pairs
from calico_debug.intent.model import Direction, PolicyKey
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.flow import protocol_name

if TYPE_CHECKING:
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Endpoint, Policy, Verdict

KIND: Final = "StagedEffect"
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
MOST_PORTS: Final = 64
"""Ports that are tried of a protocol; one that no rule names stands for all the others."""

PORTS: Final = 65535
MOST_PODS: Final = 3000
"""Pods of a cluster beyond which pairs of them are not compared."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of a protocol: those listed, or all but those listed. A protocol without ports has neither."""

    protocol: int
    listed: tuple[int, ...] = ()
    but: bool = False

    def __str__(self) -> str:
        """As in "tcp port 80", "udp, all ports but 53"."""
        name = protocol_name(self.protocol)
        if self.protocol not in (TCP, UDP):
            return name
        numbers = ", ".join(map(str, self.listed))
        if self.but:
            return f"{name}, all ports but {numbers}" if numbers else f"{name}, all ports"
        return f"{name} port{'' if len(self.listed) == 1 else 's'} {numbers}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        key = "allPortsBut" if self.but else "ports"
        return {
            "protocol": protocol_name(self.protocol),
            **({key: list(self.listed)} if self.listed or self.but else {}),
        }


@dataclass(frozen=True, slots=True)
class Effect:
    """Pairs of pods whose verdict would change, for the same ``services`` all of them. ``examples`` are some."""

    version: int
    was: Verdict
    becomes: Verdict
    services: tuple[Ports, ...]
    count: int
    examples: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class StagedEffects:
    """What enforcing one staged policy would do. ``action`` is Set, Delete, Learn or Ignore; ``problem`` says why
    nothing was worked out, "" where it was.
    """

    policy: PolicyKey
    action: str
    endpoints: int
    effects: tuple[Effect, ...]
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/cli.md)."""
        policy = {"kind": self.policy.kind, "namespace": self.policy.namespace, "name": self.policy.name}
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "policy": {key: value for key, value in policy.items() if value},
            "stagedAction": self.action,
            "endpoints": self.endpoints,
            **({"problem": self.problem} if self.problem else {}),
            "effects": [
                {
                    "ipVersion": one.version,
                    "services": [service.to_dict() for service in one.services],
                    "was": one.was,
                    "becomes": one.becomes,
                    "pairs": one.count,
                    "examples": [list(pair) for pair in one.examples],
                }
                for one in self.effects
            ],
        }


def staged_effects(intent: Intent, keys: Sequence[PolicyKey] = ()) -> Iterator[StagedEffects]:
    """Each staged policy, enforced alone beside what is; of ``keys`` alone where there are some."""
    for policy in intent.applicability.policies:
        if policy.staged and (not keys or policy.key in keys):
            yield _effects(intent, policy)


def _effects(intent: Intent, policy: Policy) -> StagedEffects:
    target = intent.applicability.policy(policy.key._replace(kind=policy.key.kind.removeprefix("Staged")))
    selecting = [policy] if target is None else [policy, target]
    own = list(dict.fromkeys(one for each in selecting for one in _pods(intent, each)))
    pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
    if policy.problem:
        return StagedEffects(policy.key, policy.staged_action, len(own), (), policy.problem)
    if len(pods) > MOST_PODS:
        problem = f"there are more than {MOST_PODS} pods, pairs of them are not compared"
        return StagedEffects(policy.key, policy.staged_action, len(own), (), problem)
    after = intent.with_staged([policy.key])
    directions: frozenset[Direction] = frozenset(way for each in selecting for way in each.types)
    found: dict[_Kind, list[_Service]] = {}
    numbers = _numbers(intent.applicability.policies)
    for version in sorted({address.version for one in own for address in one.addresses}):
        for service in _services(numbers, version):
            pairs: dict[tuple[Verdict, Verdict], dict[tuple[str, str], None]] = {}
            for change in _changes(intent, after, own, pods, directions, service, version):
                pair = str(change.source), str(change.destination)
                pairs.setdefault((change.was, change.becomes), {})[pair] = None
            for (was, becomes), changed in pairs.items():
                found.setdefault((version, was, becomes, tuple(changed)), []).append(service)
    effects = tuple(
        Effect(version, was, becomes, tuple(_ports(services, numbers)), len(pairs_), pairs_[:EXAMPLES])
        for (version, was, becomes, pairs_), services in found.items()
    )
    return StagedEffects(policy.key, policy.staged_action, len(own), effects)


_Service = tuple[int, int | None]
"""Protocol and port; None for one that no rule names."""

_Kind = tuple[int, "Verdict", "Verdict", tuple[tuple[str, str], ...]]
"""IP version, verdicts before and after, and the pairs of pods."""


def _ports(services: Sequence[_Service], numbers: Sequence[int]) -> Iterator[Ports]:
    """The services in few words: where the ports that no rule names are among them, those that are not."""
    for protocol in dict.fromkeys(protocol for protocol, _ in services):
        ports = {port for number, port in services if number == protocol}
        if protocol not in (TCP, UDP):
            yield Ports(protocol)
        elif None in ports:
            yield Ports(protocol, tuple(sorted(set(numbers) - ports)), but=True)
        else:
            yield Ports(protocol, tuple(sorted(port for port in ports if port is not None)))


def _pods(intent: Intent, policy: Policy) -> Iterator[Endpoint]:
    return (one for one, _ in intent.applicability.selected_by(policy) if one.kind == "pod")


def _changes(
    before: Intent,
    after: Intent,
    own: Sequence[Endpoint],
    pods: Sequence[Endpoint],
    directions: Iterable[Direction],
    service: _Service,
    version: int,
) -> Iterator[Change]:
    known = {str(one): one for one in after.applicability.endpoints}
    mine, all_of_them = [known[str(one)] for one in own], [known[str(one)] for one in pods]
    protocol, port = service
    if port is None and protocol in (TCP, UDP):
        numbers = _numbers(before.applicability.policies)
        port = next(number for number in range(PORTS, 0, -1) if number not in numbers)
    for direction in directions:
        ends = (mine, all_of_them) if direction == "egress" else (all_of_them, mine)
        yield from changed_pairs(before, after, *ends, protocol, port, version)


def _services(numbers: Sequence[int], version: int) -> Iterator[_Service]:
    """What is tried: an echo, and of TCP and UDP each port that a rule begins or ends at, and one that none names."""
    yield (ICMP if version == 4 else ICMPV6), None
    for protocol in (TCP, UDP):
        yield from ((protocol, number) for number in numbers)
        yield protocol, None


def _numbers(policies: Iterable[Policy]) -> tuple[int, ...]:
    found: dict[int, None] = {}
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            for span in (*rule.destination.ports, *rule.destination.not_ports):
                found.update(dict.fromkeys(span))
    return tuple(found)[:MOST_PORTS]
