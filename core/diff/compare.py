"""Two states of a cluster compared, flow by flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from calico_debug.activity import counted
from calico_debug.decode.policies import POLICY_SOURCES
from calico_debug.diff.asked import default_flows
from calico_debug.diff.changes import changes
from calico_debug.diff.culprits import Culprits
from calico_debug.diff.intended import NO_BACKENDS, Intended
from calico_debug.diff.model import Answer, DiffReport, FlowChange, FlowText, Unsettled
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.engine import Engine
from calico_debug.matrix.model import Basis, Reason, decider
from calico_debug.matrix.reasons import of_explanation
from calico_debug.model.explanation import Decision
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation


def compare(
    before: EvidenceSource,
    after: EvidenceSource,
    flows: Sequence[FlowText] | None = None,
    namespace: str | None = None,
    is_enough: Callable[[], bool] = lambda: False,
) -> DiffReport:
    """The comparison. ``flows`` None asks about those of `default_flows`, until ``is_enough``.

    ``namespace`` is that of bare names.

    Where a state has no evidence of a node, the API's objects alone answer, and it is said. Raises `EvidenceError` for
    a state without pods.
    """
    states = _State(before, namespace), _State(after, namespace)
    clusters = [state.engine.cluster for state in states]
    for cluster in clusters:
        if not cluster.pods:
            why = f" ({cluster.problems[0]})" if cluster.problems else ""
            raise EvidenceError(f"{cluster.origin} has no pods{why}: name a bundle with the cluster's objects")
    objects = changes(clusters[0].cluster, clusters[1].cluster)
    culprits = Culprits(clusters[0], clusters[1], objects, namespace)
    notes = list(_notes(states))
    basis: Basis = "predicted"
    if bare := [state.origin for state in states if not state.engine.states]:
        basis = "intent"
        notes.append(f"from the API's objects alone: there is no evidence of a node in {' and '.join(bare)}")
    enough = is_enough if flows is None else (lambda: False)  # what is named is answered
    if flows is None:
        intents = culprits.ends[0].intent, culprits.ends[1].intent
        chosen = default_flows((states[0].engine, states[1].engine), intents, objects)
        flows = chosen.flows
        notes += chosen.notes
    found: list[FlowChange] = []
    unsettled: list[Unsettled] = []
    gone: list[Unsettled] = []
    asked = 0
    for flow in counted(flows, len(flows)):
        if enough():
            notes.append(
                f"{len(flows) - asked} of {len(flows)} flows are not asked about, as it takes long: name those that "
                "matter with --flows"
            )
            break
        asked += 1
        if basis == "predicted":
            answers = [state.answer(flow) for state in states]
        else:
            answers = [_intended(end.of(flow)) for end in culprits.ends]
        old, new = answers
        if isinstance(old, Exception) or isinstance(new, Exception):
            _apart(flow, answers, unsettled, gone)
        elif not (old.settled and new.settled):
            unsettled.append(Unsettled(flow, _why_open(old, new)))
        elif old.key != new.key:
            found.append(FlowChange(flow, old, new, culprits.cause(flow, old, new)))
    return DiffReport(
        states[0].origin,
        states[1].origin,
        basis,
        objects,
        asked,
        tuple(found),
        tuple(unsettled),
        tuple(gone),
        tuple(notes),
    )


_Answered = Answer | UsageError | EvidenceError


class _State:
    """Answers flows in one state."""

    def __init__(self, source: EvidenceSource, namespace: str | None) -> None:
        self.engine = Engine(source)
        self.origin = source.origin
        self._resolver = Resolver(self.engine.cluster, self.engine.states)
        self._namespace = namespace

    def answer(self, flow: FlowText) -> _Answered:
        """The answer for a new connection, or why there is none."""
        try:
            explanation = self.engine.explain(flow.resolved(self._resolver, self._namespace), as_new=True)
        except (UsageError, EvidenceError) as error:
            return error
        return Answer(
            of_explanation(explanation, self.engine.cluster),
            explanation.decision.dataplane if explanation.decision else "",
            _backends(explanation),
        )


def _backends(explanation: FlowExplanation) -> frozenset[tuple[object, ...]]:
    if len(explanation.backends) < 2:
        return frozenset()
    return frozenset((one.verdict, decider(one.decision) if one.decision else ()) for one in explanation.backends)


def _intended(meant: Intended) -> _Answered:
    """What the objects decide, as an answer; of backends that differ it is not determined."""
    if isinstance(meant.error, UsageError | EvidenceError):
        return meant.error
    if meant.verdict == NO_BACKENDS:
        return Answer(Reason("rejected", (Decision("", "", NO_BACKENDS),)))
    if len(meant.reasons) == 1:
        return Answer(meant.reasons[0])
    decisions = tuple(decision for reason in meant.reasons for decision in reason.decisions)
    return Answer(Reason(meant.verdict, decisions), backends=frozenset(reason.key for reason in meant.reasons))


def _apart(
    flow: FlowText, answers: Sequence[Answer | Exception], unsettled: list[Unsettled], gone: list[Unsettled]
) -> None:
    """A flow that a state cannot answer: an end is not there, or evidence is missing."""
    errors = [one for one in answers if isinstance(one, Exception)]
    names = [
        f"{which}: {one}" for which, one in zip(("before", "after"), answers, strict=True) if isinstance(one, Exception)
    ]
    entry = Unsettled(flow, "; ".join(names))
    if len(errors) == 1 and isinstance(errors[0], UsageError):
        gone.append(entry)
    else:
        unsettled.append(entry)


def _why_open(old: Answer, new: Answer) -> str:
    parts = []
    for which, answer in (("before", old), ("after", new)):
        if not answer.settled:
            details = "; ".join(one.detail or one.reason for one in answer.reason.decisions)
            parts.append(f"{which}: {details or 'undetermined'}")
        else:
            parts.append(f"{which}: {answer.verdict}")
    return ", ".join(parts)


_LISTS: Final = frozenset(
    {
        *(source.resource for source in POLICY_SOURCES),
        *("tiers", "networksets", "globalnetworksets", "hostendpoints"),
        *("pods", "services", "endpointslices", "nodes", "namespaces", "serviceaccounts"),
    }
)
"""Lists whose objects are compared."""


def _notes(states: tuple[_State, _State]) -> Iterator[str]:
    """What one state has and the other has not, and what could not be read."""
    for number, word in enumerate(("before", "after")):
        own, other = states[number].engine, states[1 - number].engine
        only = sorted(set(own.states) - set(other.states))
        if only:
            yield f"only {word} has evidence of {', '.join(only)}"
        lists = [file for file in sorted(own.cluster.files - other.cluster.files) if file.partition(".")[0] in _LISTS]
        if lists:
            yield f"only {word} has {', '.join(lists)}: taken for an empty list in the other"
        yield from (f"{word}: {problem}" for problem in own.cluster.cluster.problems)
