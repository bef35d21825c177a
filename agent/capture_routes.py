"""The agent's paths about captures, and the stream of drops."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from calico_debug.agent.captures.running import BOUNDS, KIND, CaptureLimits
from calico_debug.agent.routing import (
    BYTES,
    LINES,
    OBSERVER,
    Answer,
    Request,
    Route,
    json_answer,
    number_schema,
    object_schema,
)
from calico_debug.errors import EvidenceError
from calico_debug.explain.packet_document import (
    event_document,
    json_line,
    predicted_document,
    summary_document,
)
from calico_debug.model.explanation import API_VERSION
from calico_debug.model.subject import KEYS, Subject, checked

if TYPE_CHECKING:
    from calico_debug.agent.captures.manager import Captures
    from calico_debug.agent.packets.watch import LiveWatch
    from calico_debug.model.packet_event import PacketEvent

WATCH_KIND = "PacketWatch"
STREAMS = 2
"""Streams of drops at once; they come on top of other requests, as they last."""
STREAM_SECONDS, STREAM_EVENTS = 60, 100_000
"""The longest stream, and most events of one."""
SECONDS, EVENTS, RATE = 10, 1000, 1000
"""What a stream is given without words."""
SPARE = 15.0
"""Seconds that beginning and ending a stream may take."""

_NAME = {"type": "string", "maxLength": 600}
_SUBJECT: Mapping[str, Any] = {key: {"type": "boolean"} if name == "drops" else _NAME for name, key in KEYS.items()}


START = object_schema("", **_SUBJECT, **{name: number_schema(*bounds) for name, bounds in BOUNDS.items()})
DROPS = object_schema(
    "",
    pod=_NAME,
    policy=_NAME,
    namespace=_NAME,
    seconds=number_schema(1, STREAM_SECONDS),
    events=number_schema(1, STREAM_EVENTS),
    rate=number_schema(*BOUNDS["rate"]),
)
_TEXT, _COUNT = {"type": "string"}, {"type": "integer", "minimum": 0}
FILE = object_schema("name bytes packets", name=_TEXT, bytes=_COUNT, packets=_COUNT, open={"type": "boolean"})
CAPTURE = object_schema(
    "id files",
    apiVersion={"const": API_VERSION},
    kind={"const": KIND},
    id=_TEXT,
    node=_TEXT,
    state={"type": "string", "description": "running, ended, failed, or interrupted by the end of an agent"},
    subject={"type": "string", "description": "what is captured, in words"},
    asked=object_schema("", **_SUBJECT),
    limits=object_schema("", **{name: {"type": "number"} for name in BOUNDS}),
    startedAt=_TEXT,
    endedAt=_TEXT,
    endedBy={"type": "string", "description": "stop, seconds, packets, a problem, a defect, or the end of the agent"},
    problem=_TEXT,
    events={"type": "integer", "description": "packets, each counted wherever it was seen"},
    packets=_COUNT,
    decided={"type": "integer", "description": "events of flows that the captured policy decides"},
    losses=object_schema(
        "noRoom rateLimited passedOver notIp", noRoom=_COUNT, rateLimited=_COUNT, passedOver=_COUNT, notIp=_COUNT
    ),
    files={"type": "array", "items": FILE, "description": "the oldest first"},
    filesRemoved={"type": "integer", "description": "files that made room for newer ones"},
    notes={"type": "array", "items": _TEXT},
)
CAPTURES = object_schema("captures", captures={"type": "array", "items": CAPTURE})

OpenWatch = Callable[[Subject, int, int, int], "LiveWatch"]
"""Of what, for how many seconds and packets, and at which rate."""


class CaptureHandlers:
    """One method for each route."""

    def __init__(self, captures: Captures | None, open_watch: OpenWatch | None) -> None:
        """Without captures the paths say that there are none."""
        self._captures, self._open_watch = captures, open_watch
        self._streams = BoundedSemaphore(STREAMS)

    def start(self, request: Request) -> Answer:
        """Begin a capture."""
        limits = CaptureLimits(**{name: request.body[name] for name in BOUNDS if name in request.body})
        return json_answer(self._ours().start(_subject(request.body), limits))

    def listed(self, _request: Request) -> Answer:
        """Every capture."""
        return json_answer({"captures": self._ours().listed()})

    def one(self, request: Request) -> Answer:
        """A capture."""
        return json_answer(self._ours().one(request.parameters["capture"]))

    def file(self, request: Request) -> Answer:
        """A file."""
        return Answer(self._ours().content(request.parameters["capture"], request.parameters["file"]), BYTES)

    def stop(self, request: Request) -> Answer:
        """End a capture."""
        return json_answer(self._ours().stop(request.parameters["capture"]))

    def delete(self, request: Request) -> Answer:
        """Remove a capture."""
        return json_answer(self._ours().delete(request.parameters["capture"]))

    def drops(self, request: Request) -> Answer:
        """Drops as they come."""
        if self._open_watch is None:
            raise EvidenceError("this agent watches no packets")
        subject = checked(_subject({**request.query, "drops": True}))
        if not self._streams.acquire(blocking=False):
            raise EvidenceError(f"{STREAMS} streams of drops are open already: try again when one has ended")
        request.closing.callback(self._streams.release)
        seconds, events = request.query.get("seconds", SECONDS), request.query.get("events", EVENTS)
        watch = self._open_watch(subject, seconds, events, request.query.get("rate", RATE))
        return Answer(_stream(request.closing.enter_context(watch)), LINES)

    def _ours(self) -> Captures:
        if self._captures is None:
            raise EvidenceError("this agent keeps no captures")
        return self._captures


def _subject(given: Mapping[str, Any]) -> Subject:
    return Subject(**{name: given[key] for name, key in KEYS.items() if key in given})


def _stream(watch: LiveWatch) -> Iterator[bytes]:
    """One line when watching has begun, one for each drop, and one at the end; between them pieces of nothing, so that
    it is noticed when the client goes.
    """
    teller = watch.teller()
    events = 0
    yield json_line(
        {"apiVersion": API_VERSION, "kind": WATCH_KIND, "node": watch.node, "subject": watch.subject}
    ).encode()
    for turn in chain(watch.turns(), _rest(watch)):
        for event in turn:
            told = teller.tell(event, watch.places, ())
            document = event_document(event, told.number, watch.places, watch.mark_words(event.mark))
            if told.prediction is not None and told.prediction.explanation is not None:
                document["predicted"] = predicted_document(told.prediction.explanation)
            events += 1
            yield json_line(document).encode()
        yield b""
    numbers = (events, teller.packets)
    yield json_line(summary_document(None, None, numbers, watch.losses, watch.limited_by, watch.node)).encode()


def _rest(watch: LiveWatch) -> Iterator[Iterator[PacketEvent]]:
    yield iter(watch.finish())


def capture_routes(do: CaptureHandlers) -> tuple[Route, ...]:
    """The part of the agent's table."""
    one = "/v1/captures/{capture}"
    return (
        Route(
            "POST",
            "/v1/captures",
            "startCapture",
            "Begin a capture",
            "the capture",
            do.start,
            schema=CAPTURE,
            body=START,
            role=OBSERVER,
        ),
        Route(
            "GET",
            "/v1/captures",
            "captures",
            "Captures, under way and ended",
            "each",
            do.listed,
            schema=CAPTURES,
            role=OBSERVER,
        ),
        Route("GET", one, "capture", "One capture", "what is known of it", do.one, schema=CAPTURE, role=OBSERVER),
        Route(
            "GET",
            f"{one}/files/{{file}}",
            "captureFile",
            "A file of a capture",
            "pcapng",
            do.file,
            BYTES,
            role=OBSERVER,
        ),
        Route(
            "DELETE",
            one,
            "stopCapture",
            "End a capture; its files stay",
            "the capture",
            do.stop,
            schema=CAPTURE,
            role=OBSERVER,
        ),
        Route(
            "DELETE",
            f"{one}/files",
            "deleteCapture",
            "End a capture, and remove it with its files",
            "what was known of it",
            do.delete,
            schema=CAPTURE,
            role=OBSERVER,
        ),
        Route(
            "GET",
            "/v1/drops",
            "drops",
            "Packets that this node drops, as they are dropped",
            "one JSON object a line: PacketWatch, PacketEvent for each, PacketObservation",
            do.drops,
            LINES,
            query=DROPS,
            seconds=STREAM_SECONDS + SPARE,
            light=True,
            statuses=(404, 500),
            role=OBSERVER,
        ),
    )
