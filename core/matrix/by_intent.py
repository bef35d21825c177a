"""A matrix from the API's objects alone: decided once for pods that policy cannot tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from calico_debug.activity import counted
from calico_debug.intent.matrix import Member, Pairs
from calico_debug.matrix.model import Asked, Reason, Table
from calico_debug.matrix.reasons import of_intent

if TYPE_CHECKING:
    from calico_debug.intent.decide import Intent
    from calico_debug.intent.evaluate import Decision
    from calico_debug.intent.model import Endpoint

_Key = tuple[int, int, str]
"""What tells a pod apart as source or as destination: its group, its policies, and its node where hosts police."""


def intent_table(
    intent: Intent, sources: Sequence[Endpoint], destinations: Sequence[Endpoint], asked: Sequence[Asked], version: int
) -> Table:
    """What policies decide between pods, those of host endpoints on the way among them."""
    return _Maker(intent, version).table(sources, destinations, asked)


class _Maker:
    def __init__(self, intent: Intent, version: int) -> None:
        self._intent = intent
        self._version = version
        self._hosts = intent.polices_forwarding()
        self._reasons: dict[Reason, int] = {}
        self._known: dict[tuple[int, ...], int] = {}

    def table(self, sources: Sequence[Endpoint], destinations: Sequence[Endpoint], asked: Sequence[Asked]) -> Table:
        sheets: list[list[list[int | None]]] = []
        senders: dict[_Key, list[Member]] = {}
        receivers: dict[_Key, list[Member]] = {}
        for number, one in enumerate(counted(asked, len(asked), "port")):
            pairs = Pairs(self._intent, one.protocol, one.port, self._version, one.source_port)
            senders = self._classes(pairs, sources, lambda member: member.egress)
            receivers = self._classes(pairs, destinations, lambda member: member.ingress)
            sheets.append([[self._cell(pairs, number, a, b) for b in receivers.values()] for a in senders.values()])
        return Table(
            [_names(members) for members in senders.values()],
            [_names(members) for members in receivers.values()],
            asked,
            [[sheet[row] for sheet in sheets] for row in range(len(senders))],
            list(self._reasons),
        )

    def _classes(
        self, pairs: Pairs, pods: Sequence[Endpoint], policies: Callable[[Member], int]
    ) -> dict[_Key, list[Member]]:
        found: dict[_Key, list[Member]] = {}
        for member in pairs.members(pods):
            node = member.endpoint.node if self._hosts else ""
            found.setdefault((member.group, policies(member), node), []).append(member)
        return found

    def _cell(self, pairs: Pairs, number: int, senders: Sequence[Member], receivers: Sequence[Member]) -> int | None:
        sender = senders[0]
        receiver = next((one for one in receivers if one.endpoint is not sender.endpoint), None)
        if receiver is None:
            other = next((one for one in senders if one.endpoint is not receivers[0].endpoint), None)
            if other is None:
                return None
            sender, receiver = other, receivers[0]
        flow = pairs.flow(sender, receiver)
        decisions: tuple[Decision, ...]
        if self._hosts:
            decisions = self._intent.decide(flow).stages
        else:
            decisions = tuple(one for one in pairs.decisions(sender, receiver) if one is not None)
        # The same objects are the same decision: only what is new is put into words.
        key = (number, *map(id, decisions))
        if self._hosts or key not in self._known:
            reason = of_intent(decisions, self._intent.matching, flow)
            self._known[key] = self._reasons.setdefault(reason, len(self._reasons))
        return self._known[key]


def _names(members: Sequence[Member]) -> tuple[str, ...]:
    return tuple(str(member.endpoint) for member in members)
