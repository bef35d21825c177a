"""A matrix as it is shown: groups of equals, a sheet for each port, and for each cell who decided what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from calico_debug.model.explanation import Decision
from calico_debug.model.flow import protocol_name

By = Literal["pods", "namespaces"]
Basis = Literal["predicted", "intent"]
"""From the rules of the nodes, or from the API's objects alone."""

MIXED = "mixed"
"""The verdict of a cell whose pairs of pods differ."""


SOURCE_PORT: Final = 49152
"""The source port of what is asked about: the first that systems give to clients (RFC 6335)."""


@dataclass(frozen=True, slots=True, order=True)
class Asked:
    """What is asked about: an IP protocol number, and a destination port where the protocol has ports."""

    protocol: int
    port: int | None = None

    @property
    def source_port(self) -> int | None:
        """The port that the flow is taken to come from."""
        return None if self.port is None else SOURCE_PORT

    def __str__(self) -> str:
        """As in "tcp 80"."""
        name = protocol_name(self.protocol)
        return name if self.port is None else f"{name} {self.port}"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pair of pods has its verdict. ``decisions`` are the one that denied, or those of both ends that allowed.

    Nodes are left out where policy decided: equals on different nodes are equal. ``closest`` is the rule of a tier
    that came closest to allowing what the tier's end denied, in words; "" where there is none.
    """

    verdict: str
    decisions: tuple[Decision, ...] = ()
    closest: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """Verdict and who decided, without where and in which words."""
        return self.verdict, tuple(decider(one) for one in self.decisions)


def decider(one: Decision) -> tuple[object, ...]:
    """Who decided, without where and in which words."""
    return one.direction, one.reason, one.tier, one.policy, one.rule


@dataclass(frozen=True, slots=True)
class Group:
    """A row or column: pods ("ns/name") that no cell tells apart, or all pods of a namespace that are asked about."""

    name: str
    pods: tuple[str, ...]
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """What happens between two groups. ``counts`` are (index of the reason, pairs of different pods), most first.

    Without any the groups are the same single pod, which reaches itself unpoliced.
    """

    verdict: str
    counts: tuple[tuple[int, int], ...] = ()


SELF = Cell("")
"""The cell of a pod with itself."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """All pairs at a port, or at several that make no difference: a row a source, in it a cell a destination."""

    asked: tuple[Asked, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class FlowMatrix:
    """Everything that is shown. ``pods`` is how many sources and destinations were asked about, ``version`` 4 or 6.

    ``notes`` are what was left out or taken for granted, a sentence each.
    """

    origin: str
    basis: Basis
    by: By
    version: int
    pods: tuple[int, int]
    sources: tuple[Group, ...]
    destinations: tuple[Group, ...]
    sheets: tuple[Sheet, ...]
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Table:
    """Reasons for sources times destinations times ports, before equals are put together.

    ``sources`` and ``destinations`` are pods ("ns/name") that the maker of the table knows to be equal; ``rows`` has
    for each source, asked and destination the index of a reason, None where a pod meets itself.
    """

    sources: Sequence[tuple[str, ...]]
    destinations: Sequence[tuple[str, ...]]
    asked: Sequence[Asked]
    rows: Sequence[Sequence[Sequence[int | None]]]
    reasons: Sequence[Reason]
