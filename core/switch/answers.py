"""What new connections would meet, in the form that is written down and compared."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.errors import CalicoDebugError
from calico_debug.explain.kube_proxy import is_kube_proxy
from calico_debug.explain.outlived import end_text
from calico_debug.model.routing import address_from_int
from calico_debug.state.resolve import Resolver
from calico_debug.switch.ends import Ends
from calico_debug.switch.model import Answer, Question, RecordedEnd, Rewrite, Way
from calico_debug.walk.context import Translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.explain.alternatives import Told
    from calico_debug.explain.engine import Engine
    from calico_debug.model.flow import Flow
    from calico_debug.walk.journey import Journey

PROGRAMS = "Calico's eBPF programs"


class _Seen(NamedTuple):
    """One alternative, reduced to what tells it from others. Sorts by backend; ("", 0) is none."""

    backend: tuple[str, int]
    verdict: str
    seen_as: str


class Asker:
    """Asks one engine."""

    def __init__(self, engine: Engine) -> None:
        """Nothing is read yet."""
        self.engine = engine
        self.ends = Ends(engine.cluster, engine.states)
        self._resolver = Resolver(engine.cluster, engine.states)

    def answer(self, question: Question) -> Answer:
        """What a new connection would meet. What cannot be asked is an answer, too."""
        told: list[Told] = []
        try:
            ends = _typed(question.source), _typed(question.destination)
            flow = self.resolve(*ends, str(question.protocol), question.via)
            explanation = self.engine.explain(flow, as_new=True, told_to=told.append)
        except CalicoDebugError as error:
            return Answer("undetermined", problem=str(error))
        seen = sorted({_seen(one) for one in told})
        rewrites = dict.fromkeys(rewrite for one in told for rewrite in _rewrites(one.journey))
        ways = tuple(self._way(one) for one in seen)
        return Answer(explanation.verdict, explanation.decision, ways, tuple(rewrites))

    def resolve(self, source: str, destination: str, protocol: str | None, via: str | None) -> Flow:
        """The flow between two ends as typed. Raises `CalicoDebugError`."""
        return self._resolver.resolve(source, destination, protocol=protocol, via=via)

    def _way(self, seen: _Seen) -> Way:
        address, port = seen.backend
        backend = self.ends.name(ip_address(address), port) if address else None
        name = ""
        if seen.seen_as:
            known = ip_address(seen.seen_as)
            name = self.engine.name_of(known.version, int(known))
        return Way(seen.verdict, backend, seen.seen_as, name)


def _typed(end: RecordedEnd) -> str:
    return end_text(ip_address(end.ip), end.port)


def _seen(told: Told) -> _Seen:
    final, backend = told.journey.final, told.narrative.backend
    source = str(address_from_int(final.family, final.source)) if final is not None else ""
    place = ("", 0)
    if backend is not None:
        family = told.journey.legs[0].made.packet.family
        place = (str(address_from_int(family, backend[0])), backend[1] if isinstance(backend[1], int) else 0)
    return _Seen(place, told.narrative.verdict, source)


def _rewrites(journey: Journey) -> Iterator[Rewrite]:
    for leg in journey.legs:
        if leg.reply or leg.outer:
            continue
        family = leg.made.packet.family
        for event in leg.made.trace.events:
            if isinstance(event, Translated) and event.side == "src" and event.before.source != event.after.source:
                before, after = (str(address_from_int(family, ends.source)) for ends in (event.before, event.after))
                yield Rewrite(leg.made.node, before, after, _author(event))


def _author(event: Translated) -> str:
    rule = event.rule
    if rule is None:
        return PROGRAMS if event.service else ""
    who = "kube-proxy, " if is_kube_proxy(rule) else ""
    return f"{who}table {rule.family} {rule.table}, chain {rule.chain}"
