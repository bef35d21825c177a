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
from calico_debug.diff.replaced import Replaced
from calico_debug.errors import EvidenceError, UsageError
from calico_debug.explain.engine import Engine
from calico_debug.matrix.model import Basis, Reason, decider
from calico_debug.matrix.reasons import of_explanation
from calico_debug.model.explanation import Decision
from calico_debug.state.resolve import Resolver

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import FlowExplanation
    from calico_debug.model.flow import Flow
    from calico_debug.state.cluster import ClusterState


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
    engines = Engine(before), Engine(after)
    replaced = Replaced(engines[0].cluster, engines[1].cluster)
    states = _State(engines[0], engines[0].cluster, namespace), _Later(engines[1], replaced, namespace)
    clusters = states[0].cluster, states[1].cluster
    for cluster in clusters:
        if not cluster.pods:
            why = f" ({cluster.problems[0]})" if cluster.problems else ""
            raise EvidenceError(f"{cluster.origin} has no pods{why}: name a bundle with the cluster's objects")
    objects = changes(clusters[0].cluster, clusters[1].cluster)
    culprits = Culprits(clusters[0], clusters[1], objects, namespace)
    notes = [*_notes(engines), *replaced.notes()]
    basis: Basis = "predicted"
    if bare := [engine.source.origin for engine in engines if not engine.states]:
        basis = "intent"
        notes.append(f"from the API's objects alone: there is no evidence of a node in {' and '.join(bare)}")
    enough = is_enough if flows is None else (lambda: False)  # what is named is answered
    if flows is None:
        intents = culprits.ends[0].intent, culprits.ends[1].intent
        chosen = default_flows(engines, clusters, intents, objects)
        flows = chosen.flows
        notes += chosen.notes
    else:
        flows = [replaced.first_names(flow, namespace) for flow in flows]
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
        before.origin,
        after.origin,
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

    def __init__(self, engine: Engine, cluster: ClusterState, namespace: str | None) -> None:
        self._engine = engine
        self.cluster = cluster
        self._resolver = Resolver(cluster, engine.states)
        self._namespace = namespace

    def answer(self, flow: FlowText) -> _Answered:
        """The answer for a new connection, or why there is none."""
        try:
            asked = self._real(flow.resolved(self._resolver, self._namespace))
            explanation = self._engine.explain(asked, as_new=True)
        except (UsageError, EvidenceError) as error:
            return error
        return Answer(
            of_explanation(explanation, self._engine.cluster),
            explanation.decision.dataplane if explanation.decision else "",
            _backends(explanation),
        )

    def _real(self, flow: Flow) -> Flow:
        return flow


class _Later(_State):
    """The second state, whose pods go by the names of those that they replaced."""

    def __init__(self, engine: Engine, replaced: Replaced, namespace: str | None) -> None:
        super().__init__(engine, replaced.renamed(engine.cluster), namespace)
        self._replaced = replaced

    def _real(self, flow: Flow) -> Flow:
        return self._replaced.real(flow)


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


def _notes(engines: tuple[Engine, Engine]) -> Iterator[str]:
    """What one state has and the other has not, and what could not be read."""
    for number, word in enumerate(("before", "after")):
        own, other = engines[number], engines[1 - number]
        only = sorted(set(own.states) - set(other.states))
        if only:
            yield f"only {word} has evidence of {', '.join(only)}"
        lists = [file for file in sorted(own.cluster.files - other.cluster.files) if file.partition(".")[0] in _LISTS]
        if lists:
            yield f"only {word} has {', '.join(lists)}: taken for an empty list in the other"
        yield from (f"{word}: {problem}" for problem in own.cluster.cluster.problems)
