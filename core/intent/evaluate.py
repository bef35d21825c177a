"""What the policies of one endpoint decide for a flow in one direction: tiers, rules, end of tier, profiles.

Source: felix/rules/endpoints.go (endpointIptablesChain), felix/calc/active_rules_calculator.go (missing profiles) and
libcalico-go/lib/backend/k8s/conversion (NamespaceToProfile, ServiceAccountToProfile) of v3.32.1.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from calico_debug.intent.applies import Applicability, AppliedPolicy, AppliedTier, Traffic
from calico_debug.intent.matching import Doubts, Matching
from calico_debug.intent.model import Direction, Endpoint, Policy, PolicyFlow, Rule, Verdict

DEFAULT_ALLOW: Final = "projectcalico-default-allow"
"""The profile that Calico itself gives to host endpoints that it makes."""


_Ended = Literal["decided", "decided if it applies", "no match"]


@dataclass(frozen=True, slots=True)
class Passed:
    """A tier that did not decide: by a Pass rule (``policy``, ``rule``), or at its end by its default action."""

    tier: str
    policy: Policy | None = None
    rule: Rule | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one endpoint decides. ``reason`` is a key of `calico_debug.model.explanation.REASONS`.

    ``policy`` and ``rule`` are what decided; at the end of a tier both are None, ``selecting`` are the tier's enforced
    policies. ``passed`` are the tiers before. ``doubts`` say what could change the decision; of an undetermined one
    ``possible`` are the decisions it could be.
    """

    verdict: Verdict
    reason: str
    direction: Direction
    endpoint: Endpoint | None = None
    traffic: Traffic = "normal"
    tier: str = ""
    policy: Policy | None = None
    rule: Rule | None = None
    selecting: tuple[Policy, ...] = ()
    passed: tuple[Passed, ...] = ()
    doubts: tuple[str, ...] = ()
    possible: tuple[Decision, ...] = ()


def evaluate(
    applicability: Applicability,
    matching: Matching,
    endpoint: Endpoint,
    direction: Direction,
    flow: PolicyFlow,
    traffic: Traffic = "normal",
    source_doubt: str = "",
) -> Decision:
    """What the endpoint's policies and profiles decide for the flow."""
    tiers = applicability.tiers_of(endpoint, direction, traffic)
    return _Evaluation(matching, endpoint, direction, flow, traffic, source_doubt, tiers).decide()


class _Evaluation:
    """One evaluation. A rule that may match or not is taken both ways; every outcome is collected."""

    def __init__(
        self,
        matching: Matching,
        endpoint: Endpoint,
        direction: Direction,
        flow: PolicyFlow,
        traffic: Traffic,
        source_doubt: str,
        tiers: Sequence[AppliedTier],
    ) -> None:
        self._matching, self._flow, self._source_doubt = matching, flow, source_doubt
        self._tiers = tiers
        self._blank = Decision("allowed", "", direction, endpoint, traffic)
        self._doubts: Doubts = {}
        self._known: dict[int, list[Decision]] = {}

    def decide(self) -> Decision:
        """The outcome that every possibility has, or undetermined with all of them."""
        possible = self._from(0)
        doubts = tuple(self._doubts) if len(possible) > 1 else ()
        if len({one.verdict for one in possible}) == 1:
            return replace(possible[-1], doubts=doubts)
        return replace(
            self._blank, verdict="undetermined", reason="not-understood", doubts=doubts, possible=tuple(possible)
        )

    def _from(self, number: int) -> list[Decision]:
        """What can come out of the tiers from that number on; the last is what no doubtful rule would give."""
        if number not in self._known:
            found = self._tier(number) if number < len(self._tiers) else self._behind_all_tiers()
            # One outcome for each thing that decides, or their number could grow with every doubtful Pass
            last = {(one.tier, one.policy, id(one.rule), one.reason): one for one in reversed(list(found))}
            self._known[number] = list(reversed(last.values()))
        return self._known[number]

    def _tier(self, number: int) -> Iterator[Decision]:
        tier = self._tiers[number]
        reached: list[AppliedPolicy] = []  # none of whose rules match, if no doubtful one does
        for applied in tier.enforced:
            ended = yield from self._policy(number, applied)
            if ended == "decided":
                return
            if ended == "no match":
                reached.append(applied)
        if not reached or self._blank.traffic not in ("normal", "forward"):
            yield from self._from(number + 1)
        elif tier.default_action == "Pass":
            yield from (_after(one, Passed(tier.name)) for one in self._from(number + 1))
        else:
            selecting = tuple(applied.policy for applied in tier.enforced)
            yield replace(self._blank, verdict="denied", reason="end-of-tier", tier=tier.name, selecting=selecting)
            if not any(applied.certain for applied in reached):
                self._doubts.update(dict.fromkeys(_doubt_of(applied) for applied in reached))
                yield from self._from(number + 1)

    def _policy(self, number: int, applied: AppliedPolicy) -> Generator[Decision, None, _Ended]:
        """Outcomes by the rules of a policy. Returns how it ended if no doubtful rule matches."""
        tier, policy = self._tiers[number].name, applied.policy
        for rule in policy.rules(self._blank.direction):
            if rule.action == "Log":
                continue
            answer = self._matching.matches(rule, self._flow, self._doubts, self._source_doubt)
            if answer is False:
                continue
            if rule.action == "Pass":
                yield from (_after(one, Passed(tier, policy, rule)) for one in self._from(number + 1))
            else:
                verdict: Verdict = "allowed" if rule.action == "Allow" else "denied"
                yield replace(self._blank, verdict=verdict, reason="rule", tier=tier, policy=policy, rule=rule)
            if not applied.certain:
                self._doubts.setdefault(_doubt_of(applied))
            if answer:
                return "decided" if applied.certain else "decided if it applies"
        return "no match"

    def _behind_all_tiers(self) -> Iterator[Decision]:
        if self._blank.traffic != "normal":
            yield replace(self._blank, reason="no-policy")
            return
        endpoint = self._blank.endpoint
        for profile in endpoint.profiles if endpoint else ():
            if profile.startswith("kns.") or profile == DEFAULT_ALLOW:
                yield replace(self._blank, reason="profile")
                return
            if not profile.startswith("ksa."):
                # Kubernetes clusters have no others, and Felix denies for one that is not there; etcd has more
                self._doubts.setdefault(f"what profile {profile} allows is not in evidence")
                yield replace(self._blank, reason="profile")
        yield replace(self._blank, verdict="denied", reason="no-profile")


def _doubt_of(applied: AppliedPolicy) -> str:
    return f"whether {applied.policy.key} applies is not known: {applied.doubt}"


def _after(one: Decision, passed: Passed) -> Decision:
    return replace(one, passed=(passed, *one.passed))
