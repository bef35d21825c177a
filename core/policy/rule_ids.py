"""Rule ids of the eBPF dataplane, computed from names: what a rule, an end of tier or a profile counts under.

felix/rules/nflogprefix.go (since v3.30: FNV-1a of the NFLOG prefix) and
felix/dataplane/linux/bpf_ep_mgr.go ruleMatchID (v3.28, v3.29). With flow logs on, ids come from an allocator instead
and cannot be computed: nothing is found then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, product
from math import prod
from typing import Final

from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.identity import FELIX_KINDS, SHORT_KINDS

PREFIX_LIMIT: Final = 63
"""Longer NFLOG prefixes are replaced by a digest (felix/rules/nflogprefix.go)."""
SPARE_RULES: Final = 4
"""Rules tried beyond those that an object seems to have, and for profiles, whose rules are not in the objects."""

_ACTIONS: Final = {"A": "allow", "D": "deny", "P": "pass"}
_DIRECTIONS: Final = {"ingress": "I", "egress": "E"}
_LEGACY_ACTIONS: Final = {"allow": "allow", "deny": "deny", "pass": "pass", "next-tier": "pass"}
_Owner = tuple[str, str, str, str, str, Mapping[str, int]]
"""Kind, namespace, name and tier of an object, its name as Felix writes it, and how many rules it can have."""
_SHORT: Final = {kind: short for short, kind in SHORT_KINDS.items()}


def fnv1a(text: str) -> int:
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for octet in text.encode():
        value = ((value ^ octet) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def rule_id(prefix: str) -> int:
    """The id that an NFLOG prefix such as ``API0|np/default/allow-web`` counts under, since v3.30."""
    if len(prefix) >= PREFIX_LIMIT:
        digest = base64.urlsafe_b64encode(hashlib.sha256(prefix.encode()).digest()).decode()
        prefix = f"{prefix[:10]}_{digest[:41]}_{prefix[-10:]}"
    return fnv1a(prefix)


def end_of_tier_id(tier: str, direction: str, action: str) -> int:
    """The id of the end of a tier; ``direction`` is "ingress" or "egress", ``action`` "deny" or "pass"."""
    return rule_id(f"{'D' if action == 'deny' else 'P'}P{_DIRECTIONS[direction]}|{tier}")


def policy_ids(policy: PolicyObject, direction: str) -> dict[int, int]:
    """The ids that rules of an object's direction can count under, each with its place in the converted rules."""
    count = _count(policy.spec.get(direction))
    kind, ids = policy.kind, _full_ids(policy)
    return {
        number: index
        for full_id in ids
        for index in range(count)
        for number, _ in _ids(kind, full_id, direction, index)
    }


def named(
    ids: Iterable[int],
    policies: Iterable[PolicyObject],
    tiers: Iterable[str],
    profiles: Iterable[str],
) -> dict[int, Section]:
    """What ids stand for, found by computing those of every rule that the objects can have. Others are left out.

    Both directions are tried: programs of workloads hold the other direction of host endpoints too. ``tiers`` and
    ``profiles`` are names (``kns.default``).
    """
    wanted = set(ids) - {0}
    found: dict[int, Section] = {}
    for tier in tiers:
        for action, direction in product(("deny", "pass"), _DIRECTIONS):
            number = end_of_tier_id(tier, direction, action)
            if number in wanted:
                found[number] = Section(SectionKind.END_OF_TIER, tier, match_id=number, action=action)
    for kind, namespace, name, tier, full_id, counts in chain(_owners(policies), map(_profile, profiles)):
        if wanted <= found.keys():
            break
        for direction, count in counts.items():
            for index in range(count + SPARE_RULES):
                for number, action in _ids(kind, full_id, direction, index):
                    if number in wanted and number not in found:
                        found[number] = Section(
                            SectionKind.RULE, tier, kind, namespace, name, index, match_id=number, action=action
                        )
    return found


def renamed_ids(
    policies: Iterable[tuple[PolicyObject, PolicyObject]],
    tiers: Iterable[tuple[str, str]],
    profiles: Iterable[tuple[str, str]],
) -> dict[int, int]:
    """What ids become when names change: pairs are an object, a tier or a profile as it was called and as it is."""
    found: dict[int, int] = {}
    for before, after in tiers:
        for action, direction in product(("deny", "pass"), _DIRECTIONS):
            found[end_of_tier_id(before, direction, action)] = end_of_tier_id(after, direction, action)
    owners = [pair for old, new in policies for pair in zip(_owners([old]), _owners([new]), strict=True)]
    owners += [(_profile(before), _profile(after)) for before, after in profiles]
    for (kind, *_, old_id, counts), (*_, new_id, _) in owners:
        for direction, count in counts.items():
            for index in range(count + SPARE_RULES):
                pairs = zip(_ids(kind, old_id, direction, index), _ids(kind, new_id, direction, index), strict=True)
                found.update((old, new) for (old, _), (new, _) in pairs)
    return found


def direction_of(section: Section) -> str:
    """What a section's id tells: "ingress", "egress", or "" when it was not computed from names (flow logs)."""
    full_ids = [f"{section.namespace}/{section.name}" if section.namespace else section.name]
    if section.owner != "Profile":
        kind = FELIX_KINDS.get(section.owner, section.owner)
        full_ids += _full_ids(PolicyObject(kind, section.namespace, section.name, section.tier, None, {}))
    for direction in _DIRECTIONS:
        if section.kind is SectionKind.END_OF_TIER:
            found = [end_of_tier_id(section.tier, direction, action) for action in ("deny", "pass")]
        else:
            found = [n for one in full_ids for n, _ in _ids(section.owner, one, direction, section.index)]
        if section.match_id in found:
            return direction
    return ""


def _ids(kind: str, full_id: str, direction: str, index: int) -> Iterator[tuple[int, str]]:
    owner, long_owner = ("R", "Profile") if kind == "Profile" else ("P", "Policy")
    for letter, action in _ACTIONS.items():
        yield rule_id(f"{letter}{owner}{_DIRECTIONS[direction]}{index}|{full_id}"), action
    for word, action in _LEGACY_ACTIONS.items():
        yield fnv1a(f"{word}{long_owner}{direction.capitalize()}{index}{full_id}"), action


def _owners(policies: Iterable[PolicyObject]) -> Iterator[_Owner]:
    for policy in policies:
        if policy.kind.startswith("Staged"):
            continue
        counts = {direction: _count(policy.spec.get(direction)) for direction in _DIRECTIONS}
        for full_id in _full_ids(policy):
            yield policy.kind, policy.namespace, policy.name, policy.tier, full_id, counts


def _profile(name: str) -> _Owner:
    return "Profile", "", name, "", name, dict.fromkeys(_DIRECTIONS, 0)


def _count(rules: object) -> int:
    """How many rules Felix can make of these: Kubernetes' become one for each peer and port."""
    if not isinstance(rules, list):
        return 0
    return sum(prod(len(part) for part in _lists(rule)) for rule in rules)


def _lists(rule: object) -> Iterator[Sequence[object]]:
    parts = rule.values() if isinstance(rule, dict) else ()
    return (part for part in parts if isinstance(part, list) and part)


def _full_ids(policy: PolicyObject) -> Iterator[str]:
    own = f"{policy.namespace}/" if policy.namespace else ""
    if short := _SHORT.get(policy.kind):
        yield f"{short}/{own}{policy.name}"  # v3.32
    tier = policy.tier or "default"
    if policy.kind == "KubernetesNetworkPolicy":
        yield f"{own}knp.default.{policy.name}"  # v3.28 to v3.31
    elif policy.name.startswith(f"{tier}."):
        yield f"{own}{policy.name}"
    else:
        yield f"{own}{tier}.{policy.name}"
        yield f"{own}{policy.name}"
