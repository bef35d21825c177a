"""A matrix from what nodes are programmed with: every pair of pods walked through the rules, as a new connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from calico_debug.activity import say
from calico_debug.errors import EvidenceError
from calico_debug.matrix.model import Asked, Reason, Table
from calico_debug.matrix.reasons import of_explanation
from calico_debug.model.explanation import Decision
from calico_debug.model.flow import Endpoint as FlowEnd
from calico_debug.model.flow import Flow
from calico_debug.state.ends import ECHO_REQUEST

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.intent.model import Endpoint
    from calico_debug.model.cluster import Address

MOST_WALKS: Final = 20_000
"""Flows that are walked for one matrix: some 15 seconds."""


def walked_table(
    engine: Engine,
    sources: Sequence[Endpoint],
    destinations: Sequence[Endpoint],
    asked: Sequence[Asked],
    version: int,
    is_enough: Callable[[], bool] = lambda: False,
) -> Table | None:
    """What would happen to new connections between pods; None when it was enough before all were walked."""
    reasons: dict[Reason, int] = {}
    rows: list[list[list[int | None]]] = []
    pairs, total = 0, len(sources) * len(asked) * len(destinations)
    for source in sources:
        rows.append([[] for _ in asked])
        for number, one in enumerate(asked):
            for target in destinations:
                if is_enough():
                    return None
                pairs += 1
                say(f"flow {pairs:,} of {total:,}")
                rows[-1][number].append(_cell(engine, source, target, one, version, reasons))
    return Table([(str(one),) for one in sources], [(str(one),) for one in destinations], asked, rows, list(reasons))


def _cell(
    engine: Engine, source: Endpoint, target: Endpoint, asked: Asked, version: int, reasons: dict[Reason, int]
) -> int | None:
    if source is target:
        return None
    try:
        explanation = engine.explain(flow_between(source, target, asked, version), as_new=True)
    except EvidenceError as error:
        reason = Reason("undetermined", (Decision("", "", "missing-evidence", detail=str(error)),))
    else:
        reason = of_explanation(explanation, engine.cluster)
    return reasons.setdefault(reason, len(reasons))


def flow_between(source: Endpoint, target: Endpoint, asked: Asked, version: int) -> Flow:
    """The flow between two pods that both have an address of the IP version."""
    ends = [
        FlowEnd(_address(one, version), port, (one.namespace, one.name), node=one.node or None)
        for one, port in ((source, asked.source_port), (target, asked.port))
    ]
    return Flow(ends[0], ends[1], asked.protocol, icmp=ECHO_REQUEST.get(asked.protocol))


def _address(one: Endpoint, version: int) -> Address:
    return next(address for address in one.addresses if address.version == version)
