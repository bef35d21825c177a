"""What changed for flows between two states of a cluster, and because of what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from calico_debug.matrix.model import SOURCE_PORT, Basis, Reason
from calico_debug.state.ends import PORT_PROTOCOLS

if TYPE_CHECKING:
    from calico_debug.model.flow import Flow
    from calico_debug.state.resolve import Resolver

How = Literal["added", "removed", "changed"]

CAUSES: Final[Mapping[str, str]] = {
    "objects": "these objects of the API; of several sets each does it alone, all objects of a set are needed",
    "dataplane": "the objects decide the same: the nodes run another dataplane",
    "path": "the objects decide the same: what decides is outside of policy, such as routes or address translation",
    "programmed": "the objects decide the same: a node is not programmed as they say, which drift shows",
    "not-found": "what did it was not found out, and why",
}
"""Every kind of cause with its meaning; docs/cli.md has the same table."""


class ObjectKey(NamedTuple):
    """What identifies an object: kind as explanations name it, namespace ("" if it has none) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``Kind ns/name`` or ``Kind name``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """An object that is another in the second state. ``fields`` say what of it changed, as in "labels app"."""

    key: ObjectKey
    how: How
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As in "added Tier web", "changed Pod shop/web (labels app)"."""
        return f"{self.how} {self.key}" + (f" ({', '.join(self.fields)})" if self.fields else "")


@dataclass(frozen=True, slots=True)
class FlowText:
    """A flow by names, so that it means the same in both states: ends, protocol and ``via`` as for a trace."""

    source: str
    destination: str
    protocol: str | None = None
    via: str | None = None

    def resolved(self, resolver: Resolver, namespace: str | None) -> Flow:
        """The flow in one state, from `SOURCE_PORT` where no port of the source is named. Raises `CalicoDebugError`."""
        flow = resolver.resolve(
            self.source, self.destination, protocol=self.protocol, namespace=namespace, via=self.via
        )
        if flow.source.port is not None or flow.protocol not in PORT_PROTOCOLS:
            return flow
        return replace(flow, source=replace(flow.source, port=SOURCE_PORT))

    def __str__(self) -> str:
        """In one line."""
        via = f" via {self.via}" if self.via else ""
        return f"{self.protocol} {self.source} -> {self.destination}{via}".removeprefix("None ")


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to a new connection. ``backends`` are keys of the answers of a service's backends, of several.

    ``dataplane`` is that of the node that decided.
    """

    reason: Reason
    dataplane: str = ""
    backends: frozenset[tuple[object, ...]] = frozenset()

    @property
    def verdict(self) -> str:
        """Allowed, denied, rejected or undetermined."""
        return self.reason.verdict

    @property
    def key(self) -> tuple[object, ...]:
        """Verdict and who decided: what must be equal for nothing to have changed."""
        return *self.reason.key, self.backends

    @property
    def settled(self) -> bool:
        """Whether evidence settles it: each backend's answer too, where it depends on which one is picked."""
        each = {str(backend[0]) for backend in self.backends}
        return self.verdict != "undetermined" or (len(each) > 1 and "undetermined" not in each)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an answer changed. ``kind`` is a key of `CAUSES`; ``objects`` are sets of changes, each of which suffices."""

    kind: str
    objects: tuple[tuple[Change, ...], ...] = ()
    message: str = ""


@dataclass(frozen=True, slots=True)
class FlowChange:
    """A flow with another answer."""

    flow: FlowText
    before: Answer
    after: Answer
    cause: Cause

    @property
    def what(self) -> Literal["verdict", "decision"]:
        """What changed: "decision" where only who decides did."""
        return "verdict" if self.before.verdict != self.after.verdict else "decision"


@dataclass(frozen=True, slots=True)
class Unsettled:
    """A flow that cannot be compared: undetermined in a state, or named after something that a state does not have."""

    flow: FlowText
    why: str


@dataclass(frozen=True, slots=True)
class DiffReport:
    """The whole comparison. ``basis`` is as of a matrix: without evidence of nodes the objects alone answer.

    ``asked`` is how many flows were asked about, ``notes`` what was left out, a sentence each.

    ``unsettled`` are not determined in one state, ``gone`` have an end that only one of the states has.
    """

    before: str
    after: str
    basis: Basis
    objects: tuple[Change, ...]
    asked: int
    flows: tuple[FlowChange, ...]
    unsettled: tuple[Unsettled, ...] = ()
    gone: tuple[Unsettled, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def result(self) -> Literal["same", "changed", "undetermined"]:
        """What the exit code tells."""
        if self.flows:
            return "changed"
        return "undetermined" if self.unsettled else "same"
