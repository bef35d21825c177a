"""What checks are given, and what they give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from calico_debug.decode.json_text import parse_json
from calico_debug.decode.policies import CALICO_GROUPS
from calico_debug.errors import MissingEvidence
from calico_debug.state.workloads import workload_prefixes

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource, NodeEvidence
    from calico_debug.model.nft import Ruleset
    from calico_debug.state.cluster import ClusterState
    from calico_debug.state.node import NodeState
    from calico_debug.walk.node import NodeWalker

SEVERITIES = ("error", "warning", "info")
"""The worst first. error: traffic is or will be lost, or policy is not applied; warning: likely to, or not what was
meant; info: worth knowing when something is odd.
"""


@dataclass(frozen=True, slots=True)
class Symptom:
    """Something found. ``code`` is a key of `calico_debug.doctor.catalogue.CATALOGUE`; ``seen`` says what and where."""

    code: str
    severity: str
    seen: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be looked at, and why: one sentence."""

    why: str


Observation = Symptom | Unknown


class ClusterView:
    """The cluster, for checks."""

    def __init__(self, source: EvidenceSource, state: ClusterState) -> None:
        """Nothing is read yet."""
        self.source = source
        self.state = state
        self._raw: dict[str, Sequence[Mapping[str, Any]]] = {}

    def has(self, resource: str) -> bool:
        """Whether evidence has a list of Calico's ``resource`` or of a core one. Bundles leave empty lists out."""
        return self._file(resource) is not None

    def raw(self, resource: str) -> Sequence[Mapping[str, Any]]:
        """Objects as the API has them, for what the model leaves out. Raises `EvidenceError`."""
        if resource not in self._raw:
            file = self._file(resource)
            if file is None:
                raise MissingEvidence(f"{self.source.origin} has no list of {resource}: record cluster/{resource}")
            document = parse_json(self.source.read_cluster(file), f"cluster/{file} of {self.source.origin}")
            items = document.get("items") if isinstance(document, dict) else None
            self._raw[resource] = [one for one in items or () if isinstance(one, dict)]
        return self._raw[resource]

    def felix_setting(self, name: str, node: str = "") -> str | None:
        """A setting of the node's FelixConfiguration, else of the default one; None where evidence has neither."""
        if not self.has("felixconfigurations"):
            return None
        found = {str(part(one, "metadata").get("name")): part(one, "spec") for one in self.raw("felixconfigurations")}
        for owner in (f"node.{node}", "default"):
            for key, value in found.get(owner, {}).items():
                if key.casefold() == name.casefold() and isinstance(value, bool | int | str):
                    return str(value).lower() if isinstance(value, bool) else str(value)
        return None

    def _file(self, resource: str) -> str | None:
        present = set(self.source.cluster_files())
        names = (*(f"{resource}.{group}.json" for group in CALICO_GROUPS), f"{resource}.json")
        return next((name for name in names if name in present), None)


def part(item: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """An object within an object as the API has it; empty where there is none or something else."""
    for name in path:
        found = item.get(name)
        if not isinstance(found, dict):
            return {}
        item = found
    return item


class NodeView:
    """One node, for checks. Everything may raise `EvidenceError`; what runs the checks takes care of it."""

    def __init__(self, evidence: NodeEvidence, walker: NodeWalker, cluster: ClusterView) -> None:
        """``walker`` is of the same node as ``evidence``."""
        self.evidence = evidence
        self.walker = walker
        self.cluster = cluster

    @property
    def state(self) -> NodeState:
        """What the node holds."""
        return self.walker.state

    @property
    def name(self) -> str:
        """The node's name."""
        return self.walker.name

    @property
    def ruleset(self) -> Ruleset:
        """Every rule of the node."""
        return self.walker.program.ruleset

    @property
    def dataplane(self) -> str:
        """One of `calico_debug.state.dataplane`, "" for none."""
        return self.state.dataplane

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """How names of pods' interfaces begin."""
        return workload_prefixes(self.state)

    @cached_property
    def pod_interfaces(self) -> Sequence[str]:
        """Names of interfaces that begin like a pod's."""
        return [name for name in self.state.interfaces if name.startswith(self.prefixes)]

    def setting(self, name: str, default: bool) -> bool:
        """A setting of Felix that is on or off, as far as evidence has it."""
        text = self.setting_text(name)
        return default if text is None else text.strip().lower() in ("true", "1", "yes", "y", "t", "enabled")

    def setting_text(self, name: str) -> str | None:
        """A setting of Felix: of its environment, which goes first, else of FelixConfiguration; None for neither."""
        text = self.state.felix.get(f"FELIX_{name.upper()}")
        return self.cluster.felix_setting(name, self.name) if text is None else text


@dataclass(frozen=True, slots=True)
class NodeCheck:
    """Looks at one node. ``name`` is for messages, ``about`` says what is looked at."""

    name: str
    about: str
    run: Callable[[NodeView], Iterator[Observation]]


@dataclass(frozen=True, slots=True)
class ClusterCheck:
    """Looks at the cluster's objects."""

    name: str
    about: str
    run: Callable[[ClusterView], Iterator[Observation]]
