"""Which flows are compared when none are named: between pods that are told apart in either state, and open ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from calico_debug.diff.model import Change, FlowText
from calico_debug.diff.touched import touched
from calico_debug.errors import EvidenceError
from calico_debug.explain.live_connections import Tally, open_connections
from calico_debug.intent.matrix import Member, Pairs
from calico_debug.matrix.model import Asked
from calico_debug.matrix.ports import mentioned_ports
from calico_debug.model.flow import protocol_name
from calico_debug.state.ends import listed

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.model import Endpoint
    from calico_debug.model.conntrack import Address
    from calico_debug.state.cluster import ClusterState

MOST_FLOWS: Final = 6_000
"""Flows between pods that are compared: each is walked twice, some 10 seconds in all."""

MOST_PODS: Final = 150
"""Pods that stand for all others; those that changed objects have to do with go first."""

MOST_JUDGED: Final = 300_000
"""Flows between pods of which the objects are asked whether they decide otherwise; more ports are left out."""

MOST_TO_SERVICES: Final = 1_000
"""Flows to services that changed, from the first `TO_EACH` pods to each of them."""

TO_EACH: Final = 10

MOST_OPEN: Final = 500
"""Open connections whose flows are compared as well."""

EACH: Final = 2
"""Pods of a class of equals: one to speak to the other."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The flows, and what was left out, a sentence each."""

    flows: tuple[FlowText, ...]
    notes: tuple[str, ...]


def default_flows(
    engines: tuple[Engine, Engine],
    clusters: tuple[ClusterState, ClusterState],
    intents: tuple[Intent, Intent],
    changes: Sequence[Change],
) -> Chosen:
    """What is compared, by the names in ``clusters``. Pods that only one of the states has are not."""
    notes: list[str] = []
    found: dict[FlowText, None] = {}
    pods, left = _representatives(intents, touched(intents, changes))
    notes += _only_in_one(intents)
    if left:
        notes.append(
            f"{left} more kinds of pods are not asked about; those that changed objects have to do with go first: name "
            "flows of theirs with --flows"
        )
    asked = _ports(intents, len(pods), notes)
    pairs = [(source, target, one) for one in asked for source in pods for target in pods if source is not target]
    if len(pairs) > MOST_FLOWS:
        notes.append(
            f"{len(pairs) - MOST_FLOWS} of {len(pairs)} flows between pods are not asked about; those that the objects "
            "decide otherwise go first: name flows with --flows"
        )
        pairs = _most_telling(pairs, intents)[:MOST_FLOWS]
    for source, target, one in pairs:
        found.setdefault(_between(str(source), str(target), one))
    to_services = [flow for change in changes for flow in _to_service(change, intents[0], pods[:TO_EACH])]
    if len(to_services) > MOST_TO_SERVICES:
        notes.append(f"of {len(to_services)} flows to changed services the first {MOST_TO_SERVICES} are asked about")
    found.update(dict.fromkeys(to_services[:MOST_TO_SERVICES]))
    for flow in _open(engines, clusters, notes):
        found.setdefault(flow)
    return Chosen(tuple(found), tuple(notes))


def _representatives(intents: tuple[Intent, Intent], first: Sequence[str]) -> tuple[list[Endpoint], int]:
    """Pods that both states have, some of each kind that any state tells apart, and how many kinds are left out.

    Those named ``first`` go before all others.
    """
    classes: list[dict[str, tuple[object, ...]]] = [_classes(intent) for intent in intents]
    kinds: dict[object, list[Endpoint]] = {}
    early = set(first)
    for pod in sorted(intents[0].applicability.endpoints, key=lambda one: str(one) not in early):
        name = str(pod)
        if pod.kind == "pod" and all(name in each for each in classes):
            members = kinds.setdefault(tuple(each[name] for each in classes), [])
            if len(members) < EACH:
                members.append(pod)
    chosen = [pod for number in range(EACH) for members in kinds.values() for pod in members[number : number + 1]]
    return chosen[:MOST_PODS], max(0, len(kinds) - MOST_PODS)


def _only_in_one(intents: tuple[Intent, Intent]) -> Iterator[str]:
    names = [{str(one) for one in intent.applicability.endpoints if one.kind == "pod"} for intent in intents]
    for own, other, word in ((names[0], names[1], "before"), (names[1], names[0], "after")):
        if only := sorted(own - other):
            yield f"{len(only)} of {len(own)} pods are there only {word} and not asked about: {listed(only)}"


def _classes(intent: Intent) -> dict[str, tuple[object, ...]]:
    """By pod what tells it apart for policy, and its node."""
    found: dict[str, tuple[object, ...]] = {}
    pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
    for version in (4, 6):
        for one in Pairs(intent, 6, None, version).members(pods):
            name = str(one.endpoint)
            found[name] = (*found.get(name, (one.endpoint.node,)), one.group, one.egress, one.ingress)
    return found


def _ports(intents: tuple[Intent, Intent], pods: int, notes: list[str]) -> Sequence[Asked]:
    """The ports that a matrix of either state asks about, as many as can be judged for so many pods."""
    both = [mentioned_ports(one.applicability, one.applicability.endpoints).asked for one in intents]
    every = sorted({*both[0], *both[1]})
    most = max(1, MOST_JUDGED // max(1, pods * pods))
    if len(every) > most:
        notes.append(
            f"{len(every) - most} of {len(every)} ports are not asked about: {listed([*map(str, every[most:])])}"
        )
    return every[:most]


_Pair = tuple["Endpoint", "Endpoint", Asked]


def _most_telling(pairs: Sequence[_Pair], intents: tuple[Intent, Intent]) -> list[_Pair]:
    """First those by which the objects decide otherwise; of the others the order is kept."""
    judges: dict[Asked, list[_Judge]] = {}
    for _, _, asked in pairs:
        if asked not in judges:
            judges[asked] = [_Judge(intent, asked) for intent in intents]

    def same(pair: _Pair) -> bool:
        source, target, asked = pair
        before, after = (judge.verdict(str(source), str(target)) for judge in judges[asked])
        return before == after

    return sorted(pairs, key=same)


class _Judge:
    """Verdicts by the objects of one state, of one port."""

    def __init__(self, intent: Intent, asked: Asked) -> None:
        self._pairs = Pairs(intent, asked.protocol, asked.port, 4, asked.source_port)
        pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
        self._members: dict[str, Member] = {str(one.endpoint): one for one in self._pairs.members(pods)}

    def verdict(self, source: str, target: str) -> str:
        sender, receiver = self._members.get(source), self._members.get(target)
        return self._pairs.verdict(sender, receiver) if sender and receiver else ""


def _between(source: str, target: str, asked: Asked) -> FlowText:
    port = "" if asked.port is None else f":{asked.port}"
    return FlowText(f"pod/{source}", f"pod/{target}{port}", protocol_name(asked.protocol))


def _to_service(change: Change, before: Intent, pods: Sequence[Endpoint]) -> Iterator[FlowText]:
    """From each pod to each port of a service that changed."""
    if change.key.kind != "Service" or change.how != "changed":
        return
    key = change.key.namespace, change.key.name
    service = next((one for one in before.cluster.services if (one.namespace, one.name) == key), None)
    if service is None or not service.cluster_addresses:
        return
    for port in service.ports:
        target = f"svc/{service.namespace}/{service.name}:{port.port}"
        yield from (FlowText(f"pod/{pod}", target, port.protocol.lower()) for pod in pods)


def _open(
    engines: tuple[Engine, Engine], clusters: tuple[ClusterState, ClusterState], notes: list[str]
) -> Iterator[FlowText]:
    """Flows of connections that are open in a state, by names where their ends have some."""
    number = 0
    for engine, cluster in zip(engines, clusters, strict=True):
        if not engine.states:
            continue
        tally = Tally()
        try:
            connections = open_connections(list(engine.states.values()), engine.cluster, tally)
        except EvidenceError as error:
            notes.append(f"open connections of {engine.source.origin} are not asked about: {error}")
            continue
        for one in connections:
            number += 1
            if number > MOST_OPEN:
                notes.append(f"of open connections the first {MOST_OPEN} are asked about")
                return
            target = _name(cluster, one.asked[0], one.asked[1], one.protocol)
            yield FlowText(_name(cluster, one.client[0], None, one.protocol), target, protocol_name(one.protocol))


def _name(cluster: ClusterState, address: Address, port: int | None, protocol: int) -> str:
    """An end as the command line takes it, by its name where it has one, so that it means the same in both states."""
    suffix = "" if port is None else f":{port}"
    pod = cluster.pod_by_address(address)
    if pod is not None:
        return f"pod/{pod.namespace}/{pod.name}{suffix}"
    word = protocol_name(protocol).upper()
    found = cluster.service_by_address(address, port, word)
    if found is not None and found[1] is not None and address in found[0].cluster_addresses[:1]:
        return f"svc/{found[0].namespace}/{found[0].name}{suffix}"
    return f"[{address}]{suffix}" if suffix and address.version == 6 else f"{address}{suffix}"
