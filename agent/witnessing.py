"""Paths of the agent that change something on its node for a while: observing a flow, and sending probes of it.

They take another role than those that read.
"""

from __future__ import annotations

import json
import secrets
from threading import BoundedSemaphore, Event, Thread
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from calico_debug.agent.observe import Observer
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.agent.probe import probe
from calico_debug.agent.routing import OBSERVER, Answer, Request, Route, json_answer, object_schema
from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError
from calico_debug.evidence.plain import from_plain, to_plain
from calico_debug.evidence.wire import OBSERVATION_SECONDS
from calico_debug.model.observation import FlowTuple, ProbeReport
from calico_debug.model.packet_event import Ends
from calico_debug.state.node import NodeState
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.wiring import Place, Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import Witness

Flow = TypeVar("Flow", FlowTuple, Ends)

LINES = "application/x-ndjson"
ANSWER_SECONDS = OBSERVATION_SECONDS + 15.0
MOST_OBSERVATIONS = 2
"""At once: the requests of others need slots, too."""
TURN = 0.25
SIGN_SECONDS = 1.0
"""How often a line says that the observation goes on; a client that is gone is noticed by it."""
MOST_FLOWS = 128

_FLOWS = {"type": "array", "minItems": 1, "maxItems": MOST_FLOWS, "items": {"type": "object"}}
OBSERVATION = object_schema(
    "node kind flows milliseconds",
    node={"type": "string", "minLength": 1, "maxLength": 253},
    kind={"type": "string", "maxLength": 7, "pattern": "^(rules|packets)$"},
    flows=_FLOWS,
    milliseconds={"type": "integer", "minimum": 1, "maximum": OBSERVATION_SECONDS * 1000},
)
PROBE = object_schema(
    "node flow interface",
    node={"type": "string", "minLength": 1, "maxLength": 253},
    flow={"type": "object"},
    interface={"type": "string", "maxLength": 15},
)
FINISHED = object_schema("finished", finished={"type": "boolean"})


class Witnessing:
    """Observations under way, and what is asked of them."""

    def __init__(self, source: Callable[[Request], EvidenceSource]) -> None:
        """``source`` gives the evidence of a request."""
        self._source = source
        self._slots = BoundedSemaphore(MOST_OBSERVATIONS)
        self._ends: dict[str, Event] = {}

    def observe(self, request: Request) -> Answer:
        """Watch packets; the answer's first line says that it has begun, the last what was seen."""
        body = request.body
        state = NodeState(self._source(request).node(body["node"]))
        seconds = body["milliseconds"] / 1000
        if not self._slots.acquire(blocking=False):
            raise EvidenceError(f"{MOST_OBSERVATIONS} observations are under way on {state.name}: try again later")
        request.closing.callback(self._slots.release)
        number, ended = secrets.token_hex(8), Event()
        self._ends[number] = ended
        request.closing.callback(self._ends.pop, number, None)
        request.closing.callback(ended.set)
        if body["kind"] == "rules":
            observer = request.closing.enter_context(Observer(_checked(FlowTuple, body["flows"])))
            seen = _rules(observer, seconds, ended)
        else:
            watch = request.closing.enter_context(PacketWitness(state, _checked(Ends, body["flows"]), seconds))
            seen = _packets(watch, seconds, ended, request)
        return Answer(_lines(number, seen), LINES)

    def finish(self, request: Request) -> Answer:
        """Let an observation end now; its own answer then tells what was seen."""
        ended = self._ends.get(request.parameters["id"])
        if ended is None:
            raise MissingEvidence("there is no such observation: it may have ended")
        ended.set()
        return json_answer({"finished": True})

    def probe(self, request: Request) -> Answer:
        """Send probes of a flow from where its source is on this node."""
        body = request.body
        flow, interface = _checked(FlowTuple, [body["flow"]])[0], body["interface"]
        state = NodeState(self._source(request).node(body["node"]))
        if _home(state, flow) != Place(state.name, interface):
            where = f"behind {interface} of" if interface else "an address of"
            raise UsageError(f"{flow.source} is not {where} {state.name}: probes leave from where their address is")
        words = f"{interface} of {state.name}" if interface else state.name
        report: ProbeReport = probe(flow, interface, words)
        return json_answer(to_plain(report))


def _rules(observer: Observer, seconds: float, ended: Event) -> Iterator[dict[str, Any]]:
    end = monotonic() + seconds
    sign = monotonic() + SIGN_SECONDS
    while not ended.is_set() and not observer.full and (left := end - monotonic()) > 0:
        observer.watch(min(TURN, left))
        if monotonic() > sign:
            yield {}
            sign = monotonic() + SIGN_SECONDS
    yield {"observation": to_plain(observer.finish())}


def _packets(watch: PacketWitness, seconds: float, ended: Event, request: Request) -> Iterator[dict[str, Any]]:
    found: list[Witness] = []
    failed: list[CalicoDebugError] = []

    def work() -> None:
        try:
            found.append(watch.finish())
        except CalicoDebugError as error:
            failed.append(error)

    thread = Thread(target=work, daemon=True)
    thread.start()
    request.closing.callback(thread.join, ANSWER_SECONDS)
    request.closing.callback(watch.stop)
    for _ in range(int((seconds + ANSWER_SECONDS) / TURN)):
        for _ in range(int(SIGN_SECONDS / TURN)):
            if ended.is_set():
                watch.stop()
            thread.join(TURN)
        if not thread.is_alive():
            break
        yield {}
    yield {"witness": to_plain(found[0])} if found else {"error": str(failed[0]) if failed else "it did not end"}


def _lines(number: str, seen: Iterator[Mapping[str, Any]]) -> Iterator[bytes]:
    yield json.dumps({"id": number}).encode() + b"\n"
    for document in seen:
        yield json.dumps(document).encode() + b"\n"


def _checked(kind: type[Flow], flows: Sequence[object]) -> Sequence[Flow]:
    try:
        found = [from_plain(kind, flow) for flow in flows]
    except EvidenceError:
        raise UsageError(f"a flow is no {kind.__name__}: see docs/agent.md") from None
    for flow in found:
        ports = (flow.source_port or 0, flow.destination_port or 0)
        if not 0 <= flow.protocol <= 255 or not all(0 <= port <= 65535 for port in ports):
            raise UsageError("a flow has a protocol or a port that is none")
        if flow.source.version != found[0].source.version or flow.destination.version != found[0].source.version:
            raise UsageError("the flows are of several IP versions: observe them one after the other")
    return found


def _home(state: NodeState, flow: FlowTuple) -> Place | None:
    wiring = Wiring({state.name: NodeWalker(state)}, lambda *_: "")
    return wiring.place(flow.source.version, int(flow.source))


def witness_routes(source: Callable[[Request], EvidenceSource]) -> tuple[Route, ...]:
    """The rows of the table; docs/agent.md has the same."""
    do = Witnessing(source)
    return (
        Route(
            "POST",
            "/v1/observations",
            "observe",
            "Observe packets of a flow, for a while",
            "a line when it has begun, one a second, and one with what was seen",
            do.observe,
            LINES,
            body=OBSERVATION,
            seconds=ANSWER_SECONDS,
            role=OBSERVER,
        ),
        Route(
            "POST",
            "/v1/observations/{id}/finish",
            "finishObservation",
            "End an observation now",
            "that it will end",
            do.finish,
            schema=FINISHED,
            light=True,
            statuses=(404,),
            role=OBSERVER,
        ),
        Route(
            "POST",
            "/v1/probes",
            "probe",
            "Send probe packets of a flow",
            "what was sent, and what answered",
            do.probe,
            schema={"type": "object"},
            body=PROBE,
            role=OBSERVER,
        ),
    )
