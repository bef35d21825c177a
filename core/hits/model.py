"""What is told of rules: how often they were met, since when, and whether they can be met at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

PACKETS: Final = "packets"
EVALUATIONS: Final = "evaluations"
"""Units: of rules of the kernel, of the eBPF dataplane. docs/metrics.md says what is counted."""

MET, NOT_MET, UNREACHABLE, EMPTY, NOT_COUNTED = "met", "not met", "unreachable", "matches nothing now", "not counted"
STANDINGS: Final = {
    MET: "its counter is above 0",
    NOT_MET: "its counter is 0, and nothing shows that it could not be met",
    UNREACHABLE: "no packet can get to it: rules before it take all that would match (proven on the programmed rules)",
    EMPTY: "no packet can match it as long as the sets that it looks into stay as they are, or ever",
    NOT_COUNTED: "evidence has no counter for it",
}
"""What a rule's standing means; docs/cli.md has the same table. Unreachable goes before met: counts are from before."""

ALWAYS, AS_SETS_ARE = "always", "with the members that sets have now"
"""How long a proof holds."""


class RuleKey(NamedTuple):
    """What identifies a rule: the labels of `calico_debug.metrics.families.RULE_PACKETS`, in their order."""

    dataplane: str
    direction: str
    tier: str
    kind: str
    namespace: str
    policy: str
    rule: str
    action: str

    @property
    def owner(self) -> str:
        """The policy as kubectl shows it, with its kind; of the end of a tier "end of tier X"."""
        if not self.policy:
            return f"end of tier {self.tier}" if self.tier else self.rule.replace("-", " ")
        return f"{self.kind} {self.namespace}/{self.policy}" if self.namespace else f"{self.kind} {self.policy}"

    def __str__(self) -> str:
        """For messages: policy, rule and action."""
        return f"{self.owner}, rule {self.rule} ({self.action})" if self.policy else self.owner


@dataclass(frozen=True, slots=True)
class Proof:
    """Why no packet matches. ``standing`` is `UNREACHABLE` or `EMPTY`, ``by`` names the rules that shadow it.

    ``holds`` is `ALWAYS` or `AS_SETS_ARE`.
    """

    standing: str
    holds: str
    by: tuple[str, ...] = ()


def everywhere(proven: Sequence[Proof | None]) -> Proof | None:
    """What is proven in every place where a rule stands; None if packets may match in one."""
    known = [one for one in proven if one is not None]
    if not known or len(known) < len(proven):
        return None
    standing = UNREACHABLE if any(one.standing == UNREACHABLE for one in known) else EMPTY
    holds = ALWAYS if all(one.holds == ALWAYS for one in known) else AS_SETS_ARE
    return Proof(standing, holds, tuple(dict.fromkeys(name for one in known for name in one.by)))


@dataclass(frozen=True, slots=True)
class NodeCount:
    """A rule on one node. ``count`` and ``bytes`` are None where they are not counted.

    ``proof`` is None where packets may match, as far as that can be told.
    """

    node: str
    key: RuleKey
    count: int | None
    bytes: int | None = None
    text: str = ""
    proof: Proof | None = None


@dataclass(frozen=True, slots=True)
class NodeHits:
    """One node's rules. ``since`` says from when on counters count; ``notes`` what limits them."""

    node: str
    since: str
    counts: tuple[NodeCount, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleHits:
    """One rule over all nodes that were looked at, or over those that Prometheus knows.

    ``nodes`` are counts by node. ``past`` is the growth over the window that was asked for, with ``resets`` of the
    counters in it; None without Prometheus.
    """

    key: RuleKey
    unit: str
    count: int | None
    bytes: int | None = None
    text: str = ""
    nodes: tuple[tuple[str, int | None], ...] = ()
    proof: Proof | None = None
    past: float | None = None
    resets: int = 0

    @property
    def standing(self) -> str:
        """One of `STANDINGS`."""
        if self.proof is not None:
            return self.proof.standing
        if self.past is not None:
            return MET if self.past > 0 else NOT_MET
        if self.count is None:
            return NOT_COUNTED
        return MET if self.count else NOT_MET


@dataclass(frozen=True, slots=True)
class HitReport:
    """Every rule. ``since`` says what counts are of, ``notes`` what they lack."""

    since: str
    rules: tuple[RuleHits, ...] = ()
    notes: tuple[str, ...] = ()
