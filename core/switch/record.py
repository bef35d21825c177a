"""Writing down what flows there are, and what becomes of each, before a dataplane is changed."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from calico_debug.activity import counted
from calico_debug.doctor.model import ClusterView
from calico_debug.errors import EvidenceError
from calico_debug.explain.live_connections import Tally, open_connections
from calico_debug.state.dataplane import EBPF
from calico_debug.switch.answers import Asker
from calico_debug.switch.leftovers import kube_proxy_packets
from calico_debug.switch.model import Record, RecordedConnection, RecordedFlow, RecordedNode
from calico_debug.switch.questions import matrix, of_connections, question_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.explain.engine import Engine
    from calico_debug.explain.live_connections import LiveConnection
    from calico_debug.state.node import NodeState
    from calico_debug.switch.model import Question

MOST_FLOWS = 5_000
"""Flows of a record at most, those of open connections first."""

MOST_CONNECTIONS = 50_000
"""Open connections that a record lists at most."""

COUNTED = 100_000
"""Flows beyond that are counted at most."""


def make_record(engine: Engine, asked: Sequence[Question] = (), now: int | None = None) -> Record:
    """The record of every node of the engine's evidence. ``asked`` are flows that somebody named; ``now`` as in
    `open_connections`. Nothing raises for evidence that is missing: it is said in the record.
    """
    asker = Asker(engine)
    left_out: list[str] = []
    live = _live(engine, left_out, now)
    chosen, beyond = _choose(asker, asked, live)
    if beyond:
        more = f"{COUNTED} or more" if beyond >= COUNTED else str(beyond)
        left_out.append(f"{more} flows that did not fit: a record has {MOST_FLOWS} at most")
    if len(live) > MOST_CONNECTIONS:
        left_out.append(f"{len(live) - MOST_CONNECTIONS} connections: a record lists {MOST_CONNECTIONS} at most")
    flows = tuple(RecordedFlow(question, asker.answer(question)) for question in counted(chosen, len(chosen)))
    connections = tuple(_connection(one) for one in live[:MOST_CONNECTIONS])
    return Record(engine.source.origin, describe(engine), flows, connections, (*left_out, *engine.cluster.problems))


def describe(engine: Engine) -> tuple[RecordedNode, ...]:
    """What each node runs. Nothing raises for evidence that is missing."""
    view = ClusterView(engine.source, engine.cluster)
    return tuple(_describe(state, view) for state in engine.states.values())


def _describe(state: NodeState, view: ClusterView) -> RecordedNode:
    try:
        dataplane = state.dataplane
        dsr = _is_dsr(state, view) if dataplane == EBPF else None
        kube_proxy = kube_proxy_packets(state.ruleset)
    except EvidenceError as error:
        return RecordedNode(state.name, "", state.taken_at, problem=str(error))
    problem = "" if dataplane else "no dataplane of Calico is on it"
    return RecordedNode(state.name, dataplane, state.taken_at, dsr, problem, kube_proxy)


def _is_dsr(state: NodeState, view: ClusterView) -> bool | None:
    """BPFExternalServiceMode, which is Tunnel where nobody sets it; None when settings are not in evidence."""
    mode = state.felix.get("FELIX_BPFEXTERNALSERVICEMODE") or view.felix_setting("bpfExternalServiceMode", state.name)
    if mode is None:
        return False if view.has("felixconfigurations") else None
    return mode.strip().lower() == "dsr"


def _live(engine: Engine, left_out: list[str], now: int | None) -> Sequence[LiveConnection]:
    tally = Tally()
    try:
        live = open_connections(list(engine.states.values()), engine.cluster, tally, now, passing=True)
    except EvidenceError as error:
        left_out.append(f"open connections: {error}")
        return ()
    left_out.extend(f"open connections of {node}: {why}" for node, why in tally.unread.items())
    if tally.left_out:
        left_out.append(f"{tally.left_out} open connections that did not fit")
    return live


def _choose(asker: Asker, asked: Sequence[Question], live: Sequence[LiveConnection]) -> tuple[list[Question], int]:
    chosen = {question_key(question): question for question in asked[:MOST_FLOWS]}
    beyond = len(asked) - len(asked[:MOST_FLOWS])
    more = iter((*of_connections(asker, live),))
    for source in (more, matrix(asker.engine)):
        for question in source:
            if len(chosen) == MOST_FLOWS:
                beyond += 1 + sum(1 for _ in islice(source, COUNTED))
                break
            chosen.setdefault(question_key(question), question)
    return list(chosen.values()), beyond


def _connection(one: LiveConnection) -> RecordedConnection:
    client, asked, server = ((str(address), port) for address, port in (one.client, one.asked, one.server))
    return RecordedConnection(one.protocol, client, asked, server, one.nodes, one.state)
