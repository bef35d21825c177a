"""What policy an endpoint is programmed with: one form for every dataplane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calico_debug.model.explanation import Finding, PolicyRef

API_VERSION, KIND = "calico-debug/v1", "EndpointPolicy"

POD, HOST = "pod", "host"
"""What an endpoint is."""

RULES_UNIT = "packets of new connections that met the rule, of one IP version, of every endpoint with the policy"
BPF_UNIT = "connections allowed, packets denied, of both IP versions, of every endpoint of the node with the policy"
"""What a hit is: rules of policies are programmed once for a node's endpoints."""


@dataclass(frozen=True, slots=True)
class SetUse:
    """An IP set that a rule looks into. ``side`` is what is looked up, as in "source" or "not destination with port".

    ``members`` are None where evidence does not tell.
    """

    side: str
    name: str
    members: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        known = {"members": list(self.members)} if self.members is not None else {}
        return {"side": self.side, "set": self.name, **known}


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule, the end of a tier, or the end of all.

    ``index`` counts the API object's rules of the direction, None where that is not known. ``text`` is the API's rule
    in words, ``programmed`` what the dataplane has, "" where unknown. ``hits`` None: not counted. ``rule_id`` is the
    eBPF dataplane's, 16 hexadecimal digits; ``handles`` are those of the kernel's rules. ``absent`` tells why the
    program has no code for the rule, "" where it has.
    """

    action: str
    index: int | None = None
    text: str = ""
    programmed: str = ""
    hits: int | None = None
    rule_id: str = ""
    handles: tuple[int, ...] = ()
    ip_sets: tuple[SetUse, ...] = ()
    absent: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        optional: dict[str, Any] = {
            "absent": self.absent,
            "text": self.text,
            "programmed": self.programmed,
            "ruleId": self.rule_id,
            "handles": list(self.handles),
            "ipSets": [one.to_dict() for one in self.ip_sets],
        }
        return {
            **({"index": self.index} if self.index is not None else {}),
            "action": self.action,
            "hits": self.hits,
            **{key: value for key, value in optional.items() if value},
        }


@dataclass(frozen=True, slots=True)
class PolicyView:
    """A policy, or a profile. ``chain`` is the kernel's chain, ``group`` the chain of the group it is asked through."""

    ref: PolicyRef
    rules: tuple[RuleView, ...] = ()
    chain: str = ""
    group: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        ref = self.ref
        return {
            "policy": {
                "kind": ref.kind,
                **({"namespace": ref.namespace} if ref.namespace else {}),
                "name": ref.name,
            },
            **({"chain": self.chain} if self.chain else {}),
            **({"group": self.group} if self.group else {}),
            "rules": [rule.to_dict() for rule in self.rules],
        }


@dataclass(frozen=True, slots=True)
class TierView:
    """A tier. ``end`` is what happens when no rule matched, None where evidence does not tell."""

    name: str
    policies: tuple[PolicyView, ...] = ()
    end: RuleView | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "tier": self.name,
            "policies": [policy.to_dict() for policy in self.policies],
            **({"end": self.end.to_dict()} if self.end is not None else {}),
        }


@dataclass(frozen=True, slots=True)
class Count:
    """A counter of one endpoint's own chain: ``what`` happened, and in which tier; ``packets`` None: not counted."""

    what: str
    tier: str = ""
    packets: int | None = None
    handle: int = 0


@dataclass(frozen=True, slots=True)
class EndpointView:
    """One endpoint's policy in one direction, for one IP version.

    ``direction`` is the endpoint's own view. ``stage`` is "" for the usual policy, else when it is asked. ``place`` is
    the chain or the programs. ``end`` is what happens when no tier and no profile decided. ``unit`` says what hits
    are. ``problem`` tells why nothing is known, "" where it is; ``unread`` that there may be policy, which the
    evidence does not show.
    """

    node: str
    dataplane: str
    interface: str
    kind: str
    direction: str
    family: int
    place: str
    unit: str
    stage: str = ""
    pod: tuple[str, str] | None = None
    tiers: tuple[TierView, ...] = ()
    profiles: tuple[PolicyView, ...] = ()
    end: RuleView | None = None
    counts: tuple[Count, ...] = ()
    findings: tuple[Finding, ...] = ()
    problem: str = ""
    unread: bool = False

    @property
    def policies(self) -> Iterator[PolicyView]:
        """Policies of every tier, and the profiles."""
        for tier in self.tiers:
            yield from tier.policies
        yield from self.profiles

    def to_dict(self) -> dict[str, Any]:
        """The JSON form (docs/cli.md)."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "node": self.node,
            "dataplane": self.dataplane,
            "endpoint": self.kind,
            "interface": self.interface,
            **({"pod": {"namespace": self.pod[0], "name": self.pod[1]}} if self.pod else {}),
            "direction": self.direction,
            "ipVersion": self.family,
            **({"stage": self.stage} if self.stage else {}),
            **({"place": self.place} if self.place else {}),
            **({"problem": self.problem} if self.problem else {}),
            "hitUnit": self.unit,
            "tiers": [tier.to_dict() for tier in self.tiers],
            "profiles": [profile.to_dict() for profile in self.profiles],
            **({"end": self.end.to_dict()} if self.end is not None else {}),
            "findings": [{"code": one.code, "severity": one.severity, "message": one.message} for one in self.findings],
        }
