"""Makes a matrix: which pods and ports are asked about, from what, and what is said of what was left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.intent.decide import Intent
from calico_debug.matrix.by_intent import intent_table
from calico_debug.matrix.by_walk import MOST_WALKS, walked_table
from calico_debug.matrix.fold import fold
from calico_debug.matrix.model import Asked, Basis, By, FlowMatrix
from calico_debug.matrix.ports import mentioned_ports
from calico_debug.state.ends import listed

if TYPE_CHECKING:
    from calico_debug.explain.engine import Engine
    from calico_debug.intent.model import Endpoint

MOST_PAIRS: Final = 4_000_000
"""Pairs of pods, once for each port, that are looked at by intent: about a minute where policy tells all apart."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show. ``sources`` and ``destinations`` are namespaces ("ns") or pods ("ns/name"), none for all pods.

    ``asked`` is empty for the ports that the cluster mentions; ``basis`` None for what evidence allows; ``version`` is
    the IP version, None for IPv4 where pods have it.
    """

    by: By = "pods"
    basis: Basis | None = None
    sources: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()
    asked: tuple[Asked, ...] = ()
    version: int | None = None


def make_matrix(engine: Engine, wanted: Wanted, is_enough: Callable[[], bool] = lambda: False) -> FlowMatrix:
    """The matrix. Where ``wanted`` leaves the basis open, walking ends when ``is_enough``, and objects decide.

    Raises `EvidenceError` without pods to ask about, `UsageError` for names nobody has or too much.
    """
    cluster = engine.cluster
    if not cluster.pods:
        why = f" ({cluster.problems[0]})" if cluster.problems else ""
        raise EvidenceError(
            f"{cluster.origin} has no pods{why}: name a bundle with the cluster's objects, or a cluster with "
            "--kubeconfig"
        )
    intent = Intent(cluster.cluster)
    pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
    version = wanted.version or (4 if any(a.version == 4 for one in pods for a in one.addresses) else 6)
    able = [one for one in pods if any(address.version == version for address in one.addresses)]
    sources = _chosen(able, wanted.sources, "--from", version)
    destinations = _chosen(able, wanted.destinations, "--to", version)
    notes = list(_left_out(len(cluster.pods), len(pods), len(able), version))
    ports = mentioned_ports(intent.applicability, destinations)
    asked = wanted.asked or ports.asked
    if not wanted.asked and ports.note:
        notes.append(ports.note)
    walks = len(sources) * len(destinations) * len(asked)
    basis, why = _basis(engine, wanted.basis, walks, {one.node for one in (*sources, *destinations)})
    notes += [why] if why else []
    table = None
    if basis == "predicted":
        patience = is_enough if wanted.basis is None else lambda: False
        table = walked_table(engine, sources, destinations, asked, version, patience)
        if table is None:
            basis = "intent"
            notes.append(
                "from the API's objects alone: walking the rules of the nodes takes long; --predicted does it all the "
                "same, better with --from, --to and --port"
            )
    if table is None:
        if walks > MOST_PAIRS:
            raise UsageError(
                f"{walks} pairs and ports are too many, {MOST_PAIRS} can be looked at: name fewer with --from, --to "
                "and --port"
            )
        table = intent_table(intent, sources, destinations, asked, version)
        notes += [f"not in account: {problem}" for problem in cluster.problems]
    shown_sources, shown_destinations, sheets = fold(table, wanted.by)
    return FlowMatrix(
        cluster.origin,
        basis,
        wanted.by,
        version,
        (len(sources), len(destinations)),
        shown_sources,
        shown_destinations,
        sheets,
        tuple(table.reasons),
        tuple(notes),
    )


def _chosen(pods: Sequence[Endpoint], names: Sequence[str], option: str, version: int) -> list[Endpoint]:
    found: dict[Endpoint, None] = {}
    for name in names:
        fitting = [one for one in pods if name in (one.namespace, str(one))]
        if not fitting:
            known = listed(sorted({one.namespace for one in pods})) or "none"
            raise UsageError(
                f"{option} {name!r}: no namespace or pod (as ns/name) with an IPv{version} address and policy of its "
                f"own has that name: namespaces are {known}"
            )
        found.update(dict.fromkeys(fitting))
    return list(found) if names else list(pods)


def _left_out(every: int, policed: int, able: int, version: int) -> Iterator[str]:
    if every != policed:
        yield f"{every - policed} pods are left out: they are in their host's network, have ended or have no address"
    if policed != able:
        yield f"{policed - able} pods are left out: they have no IPv{version} address"


def _basis(engine: Engine, wanted: Basis | None, walks: int, nodes: set[str]) -> tuple[Basis, str]:
    """What the answer is made from and, where nobody said, why not from the nodes."""
    if wanted == "intent":
        return "intent", ""
    missing = sorted(nodes - set(engine.states))
    if wanted == "predicted":
        if not engine.states:
            raise EvidenceError(f"{engine.source.origin} has no node to walk: leave out --predicted")
        if walks > MOST_WALKS:
            raise UsageError(
                f"{walks} flows are too many to walk, {MOST_WALKS} is the limit: name fewer with --from, --to and "
                "--port, or take --intent"
            )
        return "predicted", f"no evidence of {listed(missing)}" if missing else ""
    if missing:
        return "intent", f"from the API's objects alone: there is no evidence of {listed(missing)}"
    if walks > MOST_WALKS:
        return "intent", f"from the API's objects alone: {walks} flows are too many to walk, {MOST_WALKS} is the limit"
    return "predicted", ""
