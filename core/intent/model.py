"""Policies of every kind in one form, endpoints with all their labels, and flows as policy sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from calico_debug.intent.selectors import Selector
from calico_debug.model.cluster import Address, PolicyObject
from calico_debug.model.routing import Network

Direction = Literal["ingress", "egress"]
"""Always the endpoint's own view: egress leaves it."""

DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")

Verdict = Literal["allowed", "denied", "undetermined"]


class PolicyKey(NamedTuple):
    """What identifies a policy object: kind as in `PolicyObject.kind`, namespace ("" if it has none) and name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``Kind ns/name`` or ``Kind name``."""
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a rule: all that is given must hold. Of each list one must fit; of a ``not_`` list, none may.

    ``selector`` has namespaces and service accounts folded in, as Felix does; ``ports`` are inclusive ranges, of which
    or of ``named_ports`` one must fit; ``service`` is (namespace, name).
    """

    selector: Selector | None = None
    not_selector: Selector | None = None
    nets: tuple[Network, ...] = ()
    not_nets: tuple[Network, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    named_ports: tuple[str, ...] = ()
    not_ports: tuple[tuple[int, int], ...] = ()
    not_named_ports: tuple[str, ...] = ()
    service: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as Calico evaluates it. ``index`` counts the API object's rules of the direction from 0.

    Protocols are IP protocol numbers; ``ip_version`` is 0 for both; ``icmp`` is (type, code or None for any). A
    ``problem`` says why it is not known what the rule matches: then it may match anything. ``name`` is the rule's own,
    "" if it has none.
    """

    index: int
    action: Literal["Allow", "Deny", "Pass", "Log"]
    ip_version: int = 0
    protocol: int | None = None
    not_protocol: int | None = None
    icmp: tuple[int, int | None] | None = None
    not_icmp: tuple[int, int | None] | None = None
    source: Side = Side()
    destination: Side = Side()
    name: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """A policy of any kind. ``order`` is infinite where the object has none; ``types`` are the directions it governs.

    A staged policy has ``staged_action`` Set, Delete, Learn or Ignore, the others "". A ``problem`` says why it is not
    known what the policy selects: ``selector`` is None then.
    """

    key: PolicyKey
    tier: str
    order: float
    types: frozenset[Direction]
    selector: Selector | None
    ingress: tuple[Rule, ...]
    egress: tuple[Rule, ...]
    source: PolicyObject
    apply_on_forward: bool = False
    pre_dnat: bool = False
    do_not_track: bool = False
    staged_action: str = ""
    problem: str = ""

    @property
    def staged(self) -> bool:
        """Whether it is only staged: it is in no dataplane."""
        return bool(self.staged_action)

    def rules(self, direction: Direction) -> tuple[Rule, ...]:
        """The rules of a direction, in order."""
        return self.ingress if direction == "ingress" else self.egress


class NamedPort(NamedTuple):
    """A port of an endpoint that rules may name. ``protocol`` is an IP protocol number."""

    name: str
    protocol: int
    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """What policy is applied to: a pod (``kind`` "pod") or a host endpoint ("host", without namespace).

    ``labels`` are all that selectors see, those of namespace and service account as ``pcns.…`` and ``pcsa.…``.
    ``unknown`` are prefixes of labels that evidence does not have. ``interface`` is a host endpoint's, "*" for all.
    """

    kind: Literal["pod", "host"]
    namespace: str
    name: str
    node: str
    addresses: tuple[Address, ...]
    labels: Mapping[str, str]
    profiles: tuple[str, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    interface: str = ""
    unknown: tuple[str, ...] = ()

    def __str__(self) -> str:
        """``ns/name`` of a pod, ``host endpoint name``."""
        return f"{self.namespace}/{self.name}" if self.kind == "pod" else f"host endpoint {self.name}"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledNets:
    """A network set: ranges that selectors find by labels. ``namespace`` is "" for a GlobalNetworkSet."""

    namespace: str
    name: str
    nets: tuple[Network, ...]
    labels: Mapping[str, str]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyFlow:
    """The first packet of a flow, as the destination's policy sees it: after service translation.

    ``protocol`` is the IP protocol number. A port or ``icmp`` (type, code) that is None is not known; rules that ask
    for it may match. ``asked_for`` is the address and port before service translation, where there was one.
    ``source_doubt`` says why the destination may see another source (masquerading), "" if it does not.
    """

    source: Address
    destination: Address
    protocol: int
    source_port: int | None = None
    destination_port: int | None = None
    icmp: tuple[int, int] | None = None
    asked_for: tuple[Address, int | None] | None = None
    source_doubt: str = field(default="", compare=False)
