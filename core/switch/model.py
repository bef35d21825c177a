"""What is written down of a cluster before its dataplane is changed (docs/switch.md has the file's form)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from calico_debug.model.explanation import Decision

KIND = "SwitchRecord"
VERSION = 1
"""Of the file's form; a reader refuses what is newer."""

ENDS = ("pod", "service", "node", "outside")
"""Kinds of a flow's end."""

ORIGINS = ("asked", "connection", "matrix")
"""Why a flow is in a record: somebody named it, connections of it were open, it is one that matters anywhere."""


@dataclass(frozen=True, slots=True)
class RecordedEnd:
    """An end of a flow, with what it takes to find it again: pods are restarted, and have other addresses then.

    ``namespace`` and ``name`` are a pod's or a service's, ``name`` also a node's. ``labels`` are a pod's without those
    that each pod has of its own; ``node`` is where a pod runs.
    """

    kind: str
    ip: str
    port: int | None = None
    namespace: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    node: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A flow to ask about. ``protocol`` is the IP protocol number, ``via`` the node by which a client from outside
    comes in. ``connections`` is how many open ones it stands for, which ``origin`` is the first reason of `ORIGINS`.
    """

    source: RecordedEnd
    destination: RecordedEnd
    protocol: int
    via: str | None = None
    origin: str = "matrix"
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """What becomes of a new connection for one backend, or at all where there is no translation.

    ``seen_as`` is the source address that the far end sees (or would see, had policy let the packet on), "" when the
    packet does not get there; ``seen_name`` says whose it is. ``backend`` is None without translation.
    """

    verdict: str
    backend: RecordedEnd | None = None
    seen_as: str = ""
    seen_name: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A source address was replaced on a node; ``by`` says who did it."""

    node: str
    before: str
    after: str
    by: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a new connection would meet. ``ways`` are the different ones, in order of their backends.

    ``problem`` says why the question could not be asked; the verdict is then "undetermined".
    """

    verdict: str
    decision: Decision | None = None
    ways: tuple[Way, ...] = ()
    rewrites: tuple[Rewrite, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class RecordedFlow:
    """A flow and its answer."""

    question: Question
    answer: Answer


@dataclass(frozen=True, slots=True)
class RecordedConnection:
    """An open connection: the client's end, the one it asked for, and the one that answers, as addresses and ports."""

    protocol: int
    client: tuple[str, int | None]
    asked: tuple[str, int | None]
    server: tuple[str, int | None]
    nodes: tuple[str, ...]
    state: str = ""


@dataclass(frozen=True, slots=True)
class RecordedNode:
    """A node's dataplane ("" when it is not known, and ``problem`` says why) and whether answers of node ports go
    straight to the client (``dsr``: None where that cannot be, or is not known). ``kube_proxy`` is how many packets
    kube-proxy's rules had counted, None where there are none.
    """

    name: str
    dataplane: str
    taken_at: str = ""
    dsr: bool | None = None
    problem: str = ""
    kube_proxy: int | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """Everything written down. ``left_out`` says what did not fit or could not be read, one sentence each."""

    origin: str
    nodes: tuple[RecordedNode, ...]
    flows: tuple[RecordedFlow, ...]
    connections: tuple[RecordedConnection, ...] = ()
    left_out: tuple[str, ...] = ()
