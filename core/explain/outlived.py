"""Open connections that the current policy would refuse: policy is asked about first packets only.

Each pair of ends is asked about once, as a new connection with any source port; only where the source port matters, or
a service has several backends, are connections asked about one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.errors import CalicoDebugError
from calico_debug.explain.live_connections import LiveConnection, Tally, open_connections
from calico_debug.explain.policy_changes import PolicyChange, PolicyChanges
from calico_debug.model.explanation import Decision, FlowExplanation
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.model.conntrack import Address

REFUSED = frozenset({"denied", "rejected"})

MOST_QUESTIONS = 5_000
"""Pairs of ends that are asked about at most."""

ONE_BY_ONE = 50
"""Connections of one pair of ends that are asked about one by one at most."""

GONE = "the service no longer sends connections to"

NOT_ASKED = "there are more pairs of ends than are asked about"


class Ends(NamedTuple):
    """What connections share that policy cannot tell apart but by their source port."""

    protocol: int
    client: Address
    asked: Address
    port: int | None
    via: str | None


class Answer(NamedTuple):
    """What a new connection would meet; ``why`` says what kept it open, else ""."""

    verdict: str
    decision: Decision | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class OldFlow:
    """Connections of one client to one server and port that one decision would refuse, or about which it is open."""

    protocol: int
    client: Address
    asked: tuple[Address, int | None]
    server: tuple[Address, int | None]
    answer: Answer
    change: PolicyChange | None
    connections: tuple[LiveConnection, ...]


@dataclass(frozen=True, slots=True)
class StaleReport:
    """``refused`` are worth ending; ``undetermined`` could not be settled. ``live`` is how many were judged."""

    nodes: tuple[str, ...]
    live: int
    refused: tuple[OldFlow, ...]
    undetermined: tuple[OldFlow, ...]
    tally: Tally = field(default_factory=Tally)


def find_outlived(engine: Engine, nodes: Sequence[str], now: int | None = None) -> StaleReport:
    """The report for connections of the pods of ``nodes``; ``now`` as in `open_connections`. Raises `EvidenceError`."""
    tally = Tally()
    live = open_connections([engine.states[name] for name in nodes], engine.cluster, tally, now)
    questions = _Questions(engine)
    groups: dict[tuple[object, ...], tuple[Answer, list[LiveConnection]]] = {}
    for connection in live:
        answer = questions.answer(connection)
        if answer.verdict == "allowed":
            continue
        decision = answer.decision
        who = (decision.tier, decision.policy, decision.rule, decision.reason) if decision is not None else answer.why
        key = (connection.protocol, connection.client[0], connection.asked, connection.server, answer.verdict, who)
        groups.setdefault(key, (answer, []))[1].append(connection)
    changes = PolicyChanges(engine.source)
    flows = [_flow(answer, found, changes) for answer, found in groups.values()]
    flows.sort(key=lambda flow: (-len(flow.connections), flow.protocol, int(flow.client), int(flow.asked[0])))
    refused = tuple(flow for flow in flows if flow.answer.verdict in REFUSED)
    others = tuple(flow for flow in flows if flow.answer.verdict not in REFUSED)
    return StaleReport(tuple(nodes), len(live), refused, others, tally)


def _flow(answer: Answer, found: list[LiveConnection], changes: PolicyChanges) -> OldFlow:
    one = found[0]
    change = changes.of(answer.decision.policy if answer.decision is not None else None)
    return OldFlow(one.protocol, one.client[0], one.asked, one.server, answer, change, tuple(found))


class _Questions:
    """Asks the engine, as seldom as possible."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._resolver = Resolver(engine.cluster, engine.states)
        self._known: dict[Ends, FlowExplanation | str] = {}
        self._single: dict[Ends, int] = {}

    def answer(self, connection: LiveConnection) -> Answer:
        """What a connection like this would meet if it were new."""
        address, port = connection.asked
        ends = Ends(connection.protocol, connection.client[0], address, port, entrance(self._engine, connection))
        if ends not in self._known:
            self._known[ends] = self._ask(ends, None) if len(self._known) < MOST_QUESTIONS else NOT_ASKED
        known = self._known[ends]
        if isinstance(known, str):
            return Answer("undetermined", None, known)
        answer = _judged(known, connection)
        source_port = connection.client[1]
        settled = answer.verdict != "undetermined" or answer.why.startswith(GONE)
        if settled or source_port is None or self._single.get(ends, 0) >= ONE_BY_ONE:
            return answer
        self._single[ends] = self._single.get(ends, 0) + 1
        again = self._ask(ends, source_port)
        return answer if isinstance(again, str) else _judged(again, connection)

    def _ask(self, ends: Ends, source_port: int | None) -> FlowExplanation | str:
        try:
            flow = self._resolver.resolve(
                end_text(ends.client, source_port),
                end_text(ends.asked, ends.port),
                protocol=str(ends.protocol),
                via=ends.via,
            )
            return self._engine.explain(flow, as_new=True)
        except CalicoDebugError as error:
            return str(error)


def entrance(engine: Engine, connection: LiveConnection) -> str | None:
    """The node that a client outside the cluster came in by; None for clients inside."""
    client = connection.client[0]
    cluster = engine.cluster
    if cluster.pod_by_address(client) is not None or cluster.node_by_address(client) is not None:
        return None
    if any(state.is_local(client) for state in engine.states.values()):
        return None
    pod = cluster.pod_by_address(connection.server[0])
    home = pod.node if pod is not None else ""
    return next((node for node in connection.nodes if node != home), connection.nodes[0])


def _judged(explanation: FlowExplanation, connection: LiveConnection) -> Answer:
    """The verdict for the backend that the connection has, where a service has been asked for."""
    server, port = connection.server
    if connection.server != connection.asked and explanation.backends:
        for backend in explanation.backends:
            if (backend.ip, backend.port) == (str(server), port):
                return _settled(backend.verdict, backend.decision)
        return Answer("undetermined", None, f"{GONE} {end_text(server, port)}")
    return _settled(explanation.verdict, explanation.decision)


def _settled(verdict: str, decision: Decision | None) -> Answer:
    why = decision.detail or decision.reason if verdict == "undetermined" and decision is not None else ""
    return Answer(verdict, decision, why)


def end_text(address: Address, port: int | None) -> str:
    """An end as the command line takes it."""
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
