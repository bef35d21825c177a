"""What differs after a change of the dataplane: every flow of a record is asked about again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from calico_debug.activity import counted
from calico_debug.switch.answers import Asker
from calico_debug.switch.causes import cause_of
from calico_debug.switch.connections import Fate, fates
from calico_debug.switch.ends import identity
from calico_debug.switch.leftovers import look_for_leftovers
from calico_debug.switch.model import Answer, Question, Record, RecordedNode
from calico_debug.switch.record import describe

if TYPE_CHECKING:
    from collections.abc import Hashable

    from calico_debug.doctor.examine import Report
    from calico_debug.explain.engine import Engine
    from calico_debug.switch.model import RecordedFlow, Way

RESULTS = ("differs", "undetermined", "same", "gone")
"""How a flow can turn out: "undetermined" when evidence of before or after does not settle it, "gone" when an end of it
is no longer there.
"""

SOURCES = ("preserved", "rewritten", "otherwise")
"""What can change about the source address that the far end sees: it is the client's own now, it no longer is, or it
is another one in place of the client's.
"""


@dataclass(frozen=True, slots=True)
class SourceChange:
    """The source address that the far end sees is another one. ``kind`` is of `SOURCES`."""

    kind: str
    before: Way
    after: Way


@dataclass(frozen=True, slots=True)
class Comparison:
    """One flow. ``now`` is the question as it was asked again, None for a flow that is gone. ``why`` says what makes
    the difference, or what kept it open. ``new_backends`` tells that the service sends to other pods than before.
    """

    flow: RecordedFlow
    result: str
    now: Question | None = None
    answer: Answer | None = None
    why: str = ""
    source: SourceChange | None = None
    new_backends: bool = False


@dataclass(frozen=True, slots=True)
class NodeChange:
    """A node before and after; None where evidence of one side does not have it."""

    name: str
    before: RecordedNode | None
    after: RecordedNode | None


@dataclass(frozen=True, slots=True)
class SwitchReport:
    """Everything that was compared, flows that differ first."""

    before: str
    after: str
    nodes: tuple[NodeChange, ...]
    flows: tuple[Comparison, ...]
    fates: tuple[Fate, ...]
    leftovers: Report
    notes: tuple[str, ...]

    @property
    def result(self) -> str:
        """ "differs" if any flow does, else "undetermined" if any is or none could be compared, else "same"."""
        found = {one.result for one in self.flows}
        if "differs" in found:
            return "differs"
        return "same" if "same" in found and "undetermined" not in found else "undetermined"


def compare(record: Record, engine: Engine, now: int | None = None) -> SwitchReport:
    """Ask about every flow of the record again. ``now`` as in `open_connections`."""
    asker = Asker(engine)
    compared = (_compare(flow, asker) for flow in counted(record.flows, len(record.flows)))
    flows = sorted(compared, key=lambda one: RESULTS.index(one.result))
    after = {node.name: node for node in describe(engine)}
    before = {node.name: node for node in record.nodes}
    nodes = tuple(NodeChange(name, before.get(name), after.get(name)) for name in sorted({*before, *after}))
    notes = [f"not in the record: {one}" for one in record.left_out]
    return SwitchReport(
        record.origin,
        engine.source.origin,
        nodes,
        tuple(flows),
        fates(record.connections, after, engine, now),
        look_for_leftovers(
            engine, {name: one.kube_proxy for name, one in before.items() if one.kube_proxy is not None}
        ),
        tuple(notes),
    )


def _compare(flow: RecordedFlow, asker: Asker) -> Comparison:
    question = flow.question
    source, destination = asker.ends.find(question.source), asker.ends.find(question.destination)
    if source is None or destination is None:
        lost = question.source if source is None else question.destination
        return Comparison(flow, "gone", why=f"{lost.kind} {lost.namespace}/{lost.name} is no longer there")
    asked = replace(question, source=source, destination=destination)
    answer = asker.answer(asked)
    result, why = _judge(flow.answer, answer)
    if result == "differs":
        why = cause_of(question, flow.answer, answer)
    return Comparison(
        flow,
        result,
        asked,
        answer,
        why,
        _source_change(question, flow.answer, asked, answer),
        _backends(flow.answer) != _backends(answer) and "undetermined" not in (flow.answer.verdict, answer.verdict),
    )


def _judge(before: Answer, after: Answer) -> tuple[str, str]:
    """The result, and what kept it open."""
    known = (before.verdict, after.verdict)
    if "undetermined" not in known:
        return ("same" if before.verdict == after.verdict else "differs"), ""
    # A service whose backends fare differently is open as a whole, and settled for each of them.
    old, new = _verdicts(before), _verdicts(after)
    if old and new and not any("undetermined" in each for each in (*old.values(), *new.values())):
        if old == new:
            return "same", ""
        if old.keys() == new.keys() or frozenset().union(*old.values()).isdisjoint(frozenset().union(*new.values())):
            return "differs", ""
    open_one = before if before.verdict == "undetermined" else after
    when = "before" if open_one is before else "now"
    detail = open_one.problem or (open_one.decision.detail if open_one.decision is not None else "")
    return "undetermined", f"{when}: {detail}" if detail else f"it was not settled {when}"


def _verdicts(answer: Answer) -> Mapping[Hashable, frozenset[str]]:
    """Verdicts by backend; None stands for a way without translation."""
    found: dict[Hashable, set[str]] = {}
    for way in answer.ways:
        found.setdefault(identity(way.backend) if way.backend is not None else None, set()).add(way.verdict)
    return {backend: frozenset(verdicts) for backend, verdicts in found.items()}


def _backends(answer: Answer) -> frozenset[Hashable]:
    return frozenset(identity(way.backend) for way in answer.ways if way.backend is not None)


def _source_change(before: Question, old: Answer, after: Question, new: Answer) -> SourceChange | None:
    """The first backend for which it changed that both have."""
    arrived = {_place(way): way for way in old.ways if way.seen_as}
    for way in new.ways:
        earlier = arrived.get(_place(way))
        if earlier is None or not way.seen_as:
            continue
        kept = earlier.seen_as == before.source.ip, way.seen_as == after.source.ip
        if kept == (False, True):
            return SourceChange("preserved", earlier, way)
        if kept == (True, False):
            return SourceChange("rewritten", earlier, way)
        if kept == (False, False) and earlier.seen_as != way.seen_as:
            return SourceChange("otherwise", earlier, way)
    return None


def _place(way: Way) -> Hashable:
    return identity(way.backend) if way.backend is not None else None
