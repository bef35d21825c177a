"""The names of the tiers of an endpoint's chain.

In nftables mode comments may be of the past: Felix leaves a rule alone whose hash is the same, and the hash does not
cover the comment (felix/nftables/renderer.go of v3.29 to v3.32; that of felix/iptables does). The rule that starts a
tier is the same for every tier, so it goes on to say the name of a tier that stood there before. The rule at a tier's
end has the policies before it in its hash, and they know their tier.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.model.nft import Verdict
from calico_debug.policy.chains import ChainKind, CommentKind, chain_role, parse_comment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from calico_debug.model.nft import Rule

SINGLE_TIER = "default"
"""v3.28 has one tier and writes no comment where it starts."""

_OUTSIDE = frozenset({CommentKind.NO_PROFILE, CommentKind.PROFILE_ACCEPTED})
ASKED = frozenset({ChainKind.POLICY, ChainKind.POLICY_GROUP})
"""Kinds of chains that an endpoint's chain asks for a verdict in a tier."""
_PROFILES = frozenset({ChainKind.PROFILE})


def tier_names(rules: Sequence[Rule], tiers_of: Callable[[str], Iterable[str]]) -> Mapping[int, str]:
    """The tier that each rule of an endpoint's chain belongs to, by the rule's id(); other rules are not in it.

    ``tiers_of`` gives the tiers of the policies behind the chain of a policy or a group, "" for one that is not known.
    Without them the comment at the tier's end has the name (since v3.30), then that at its start.
    """
    found: dict[int, str] = {}
    for tier in _tiers(rules):
        known = list(dict.fromkeys(name for chain in tier.asked for name in tiers_of(chain) if name))
        said = [name for name in (tier.at_end, tier.at_start) if name]
        # Policies of different tiers in one: the objects are not those that were programmed
        name = known[0] if len(known) == 1 else next((one for one in said if one in known), "")
        name = name or next(iter(said + known), SINGLE_TIER)
        found.update((id(rule), name) for rule in tier.rules)
    return found


@dataclass(slots=True)
class _Tier:
    at_start: str = ""
    at_end: str = ""
    asked: list[str] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)


def _tiers(rules: Sequence[Rule]) -> Iterator[_Tier]:
    tier: _Tier | None = None
    for rule in rules:
        said = parse_comment(rule.comment)
        asked = list(chains_asked(rule, ASKED))
        if said.kind is CommentKind.TIER_START:
            if tier is not None:
                yield tier
            tier = _Tier(said.name)
        elif said.kind in _OUTSIDE or any(chains_asked(rule, _PROFILES)):
            if tier is not None:
                yield tier
            tier = None
            continue
        if tier is None and (asked or said.kind is CommentKind.TIER_END):
            tier = _Tier()
        if tier is None:
            continue
        tier.asked += asked
        tier.rules.append(rule)
        if said.kind is CommentKind.TIER_END:
            tier.at_end = said.name
            yield tier
            tier = None
    if tier is not None:
        yield tier


def policy_chains(chain: str, rules_of: Callable[[str], Iterable[Rule]]) -> Iterator[str]:
    """The chains of policies behind one that is asked in a tier: itself, or the members of a group; of others none.

    ``rules_of`` gives the rules of a chain.
    """
    role = chain_role(chain)
    if role is not None and role.kind is ChainKind.POLICY:
        yield chain
    elif role is not None and role.kind is ChainKind.POLICY_GROUP:
        for rule in rules_of(chain):
            yield from chains_asked(rule)


def chains_asked(rule: Rule, kinds: frozenset[ChainKind] = frozenset({ChainKind.POLICY})) -> Iterator[str]:
    """The chains of policies, or of other ``kinds``, that a rule jumps or goes to."""
    for statement in rule.statements:
        if isinstance(statement, Verdict) and statement.kind in ("jump", "goto"):
            role = chain_role(statement.chain)
            if role is not None and role.kind in kinds:
                yield statement.chain
