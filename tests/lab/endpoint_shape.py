"""The chains of endpoints, as felix/rules/endpoints.go and dispatch.go build them from tiers, policies and profiles."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.lab import names
from tests.lab.model import Profile, Rule
from tests.lab.policy_shape import policy_rules, profile_rules
from tests.lab.rules import Chains, NftRule, any_set, clear_mark, is_clear, is_set, nflog, set_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tests.lab.model import Direction, HostEndpoint, Model, Pod, Policy, Tier
    from tests.lab.policy_shape import Context

ChainKind = Literal["normal", "untracked", "pre-dnat", "forward"]
ANY_INTERFACE = "any-interface-at-all"
UNKNOWN_INTERFACE = "Unknown interface"
RETURN_STRIDE = 5


@dataclass(frozen=True, slots=True)
class EndpointTier:
    """A tier as one endpoint meets it: the policies that select it, for both directions."""

    tier: Tier
    policies: tuple[Policy, ...]

    def of(self, direction: Direction) -> tuple[Policy, ...]:
        return tuple(policy for policy in self.policies if policy.rules(direction) is not None)


def ordered_tiers(model: Model) -> list[Tier]:
    """By order, absent last, then by name."""
    return sorted(model.tiers, key=lambda t: (t.order is None, t.order or 0.0, t.name))


def endpoint_tiers(
    model: Model, labels: Mapping[str, str], wanted: Callable[[Policy], bool] = lambda _: True
) -> list[EndpointTier]:
    """Tiers with at least one policy that selects these labels; policies by order, then "name/namespace/kind"."""
    found = []
    for tier in ordered_tiers(model):
        chosen = [p for p in model.policies if p.tier == tier.name and wanted(p) and p.selects(labels)]
        chosen.sort(key=lambda p: (p.order is None, p.order or 0.0, f"{p.name}/{p.namespace}/{p.kind}"))
        if chosen:
            found.append(EndpointTier(tier, tuple(chosen)))
    return found


class EndpointShape:
    """Adds the chains of endpoints, and of every policy and profile that they use, to ``chains``."""

    def __init__(self, context: Context, chains: Chains) -> None:
        self.context = context
        self.chains = chains
        self.model = context.sets.model
        self.felix = self.model.felix
        self.marks = context.marks

    # ------------------------------------------------------------------------------------------------ endpoints

    def workload(self, pod: Pod) -> None:
        tiers = endpoint_tiers(self.model, pod.all_labels(), lambda p: not (p.pre_dnat or p.do_not_track))
        self._chain("filter", f"cali-tw-{pod.interface}", tiers, pod.profiles, "ingress")
        drops = self._encapsulated()
        self._chain("filter", f"cali-fw-{pod.interface}", tiers, pod.profiles, "egress", drops=drops)

    def host(self, endpoint: HostEndpoint) -> None:
        """The chains of one host endpoint: filter always, mangle and raw where policies of their kind exist."""
        name = ANY_INTERFACE if endpoint.interface == "*" else endpoint.interface
        labels = endpoint.labels
        normal = endpoint_tiers(self.model, labels, lambda p: not (p.pre_dnat or p.do_not_track))
        forward = endpoint_tiers(
            self.model, labels, lambda p: p.apply_on_forward and not (p.pre_dnat or p.do_not_track)
        )
        pre_dnat = endpoint_tiers(self.model, labels, lambda p: p.pre_dnat)
        untracked = endpoint_tiers(self.model, labels, lambda p: p.do_not_track)
        profiles = endpoint.profiles
        for layer in ("filter", "mangle"):
            self._chain(layer, f"cali-th-{name}", normal, profiles, "egress", failsafe="cali-failsafe-out")
        self._chain("filter", f"cali-fh-{name}", normal, profiles, "ingress", failsafe="cali-failsafe-in")
        self._chain("filter", f"cali-thfw-{name}", forward, (), "egress", kind="forward")
        self._chain("filter", f"cali-fhfw-{name}", forward, (), "ingress", kind="forward")
        if pre_dnat:
            self._chain(
                "mangle", f"cali-fh-{name}", pre_dnat, (), "ingress", kind="pre-dnat", failsafe="cali-failsafe-in"
            )
        if untracked:
            self._chain(
                "raw", f"cali-th-{name}", untracked, (), "egress", kind="untracked", failsafe="cali-failsafe-out"
            )
            self._chain(
                "raw", f"cali-fh-{name}", untracked, (), "ingress", kind="untracked", failsafe="cali-failsafe-in"
            )

    def _encapsulated(self) -> list[NftRule]:
        word, deny = self.felix.deny_action, self.context.deny
        texts = [f"{word} {what} encapped packets originating in workloads" for what in ("VXLAN", "IPinIP")]
        return [
            NftRule("meta l4proto 17 udp dport { 4789 }", deny, (texts[0],)),
            NftRule("meta l4proto 4", deny, (texts[1],)),
        ]

    # ---------------------------------------------------------------------------------------------- one chain

    def _chain(
        self,
        layer: str,
        name: str,
        tiers: Sequence[EndpointTier],
        profiles: Sequence[str],
        direction: Direction,
        kind: ChainKind = "normal",
        failsafe: str = "",
        drops: Sequence[NftRule] = (),
    ) -> None:
        rules = [] if kind == "untracked" else self._conntrack(layer, kind)
        if failsafe:
            rules.append(NftRule("", f"jump {failsafe}"))
        rules.append(NftRule("", clear_mark(self.marks.accept | self.marks.passed)))
        rules += drops
        for tier in tiers:
            rules += self._tier(layer, tier, direction, kind)
        if kind == "forward" and not tiers:
            rules += [
                NftRule("", set_mark(self.marks.accept), ("Allow forwarded traffic by default",)),
                NftRule("", "return", ("Return for accepted forward traffic",)),
            ]
        if kind == "normal":
            rules += self._profiles(layer, profiles, direction)
        self.chains.add(layer, name, rules)

    def _conntrack(self, layer: str, kind: ChainKind) -> list[NftRule]:
        """Established connections pass; as RETURN (always in mangle's egress chain) with the accept mark."""
        returns = self.felix.allow_action == "Return" if layer == "filter" else kind == "normal"
        match = "ct state related,established"
        rules = [NftRule(match, set_mark(self.marks.accept))] if returns else []
        rules.append(NftRule(match, "return" if returns else "accept"))
        if self.felix.drop_invalid:
            rules.append(NftRule("ct state invalid", self.context.deny))
        return rules

    def _tier(self, layer: str, tier: EndpointTier, direction: Direction, kind: ChainKind) -> list[NftRule]:
        policies = tier.of(direction)
        if not policies:
            return []
        rules = [NftRule("", clear_mark(self.marks.passed), (f"Start of tier {tier.tier.name}",))]
        for target in self._targets(layer, policies, direction):
            rules.append(NftRule(is_clear(self.marks.passed), f"jump {target}"))
            if kind == "untracked":
                rules.append(NftRule(is_set(self.marks.accept), "notrack"))
            rules.append(NftRule(is_set(self.marks.accept), "return", ("Return if policy accepted",)))
        if kind in {"normal", "forward"}:
            rules += self._end_of_tier(tier.tier, policies, direction)
        return rules

    def _end_of_tier(self, tier: Tier, policies: Sequence[Policy], direction: Direction) -> list[NftRule]:
        unpassed = is_clear(self.marks.passed)
        drops = any(not policy.staged for policy in policies) and tier.default_action != "Pass"
        rules = []
        if self.felix.flow_logs:
            prefix = names.nflog_prefix("Deny" if drops else "Pass", "P", direction, None, tier.name)
            rules.append(NftRule(unpassed, nflog(direction, prefix)))
        if drops:
            text = f"{self.felix.deny_action} if no policies passed packet"
            if self.felix.release != "v3.29":
                text = f"End of tier {tier.name}. {text}"
            rules.append(NftRule(unpassed, self.context.deny, (text,)))
        return rules

    def _profiles(self, layer: str, profiles: Sequence[str], direction: Direction) -> list[NftRule]:
        rules = []
        for profile in profiles:
            target = names.profile_chain(profile, direction, self.felix.release)
            self.chains.add(layer, target, profile_rules(self.context, self._profile(profile), direction))
            rules += [
                NftRule("", f"jump {target}"),
                NftRule(is_set(self.marks.accept), "return", ("Return if profile accepted",)),
            ]
        if self.felix.flow_logs:
            rules.append(NftRule("", nflog(direction, names.nflog_prefix("Deny", "R", direction, None, None))))
        return [*rules, NftRule("", self.context.deny, (f"{self.felix.deny_action} if no profiles matched",))]

    def _profile(self, name: str) -> Profile:
        """A profile of the model, or what Kubernetes gives: namespaces allow everything, service accounts nothing."""
        for profile in self.model.profiles:
            if profile.name == name:
                return profile
        allow = (Rule("Allow"),) if name.startswith("kns.") else ()
        return Profile(name, allow, allow)

    # ------------------------------------------------------------------------------------------------- policies

    def _targets(self, layer: str, policies: Sequence[Policy], direction: Direction) -> list[str]:
        """Chains to jump to: a policy's own, or a group's for neighbours with the same selector."""
        targets = []
        release = self.felix.release
        for _, group in itertools.groupby(policies, key=lambda p: p.full_selector()):
            together = list(group)
            live = [policy for policy in together if not policy.staged]
            for policy in live:
                name = names.policy_chain(policy, direction, release)
                self.chains.add(layer, name, policy_rules(self.context, policy, direction))
            jumps = [names.policy_chain(policy, direction, release) for policy in live]
            if len(live) > 1 and self.felix.group_policies:
                name = names.group_chain(together, direction, release)
                self.chains.add(layer, name, self._group(jumps))
                jumps = [name]
            targets += jumps
        return targets

    def _group(self, jumps: Sequence[str]) -> list[NftRule]:
        verdict = self.marks.passed | self.marks.accept
        rules = []
        for number, target in enumerate(jumps):
            if number and number % RETURN_STRIDE == 0:
                rules.append(NftRule(any_set(verdict), "return", ("Return on verdict",)))
            rules.append(NftRule("" if number % RETURN_STRIDE == 0 else is_clear(verdict), f"jump {target}"))
        return rules


def _common_prefix(texts: Sequence[str]) -> str:
    """Of sorted texts, so that the first and the last tell."""
    if not texts:
        return ""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(texts[0], texts[-1], strict=False))
    return "".join(first for first, _ in alike)


def dispatch_tree(
    name: str, interfaces: Sequence[str], match: str, prefix: str, end: list[NftRule]
) -> dict[str, list[NftRule]]:
    """Chains that choose by interface name: one child chain a next character that several names share."""
    ordered = sorted(interfaces)
    common = _common_prefix(ordered)
    root: list[NftRule] = []
    chains: dict[str, list[NftRule]] = {}
    for start, group in itertools.groupby(ordered, key=lambda i: i[: len(common) + 1]):
        found = list(group)
        leaves = [NftRule(f'{match} "{interface}"', f"goto {prefix}{interface}") for interface in found]
        if len(found) == 1:
            root += leaves
        else:
            child = f"{name}-{start[len(common) :]}"
            root.append(NftRule(f'{match} "{start}*"', f"goto {child}"))
            chains[child] = [*leaves, *end]
    return {**chains, name: [*root, *end]}
