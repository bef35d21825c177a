"""Rule ids of the eBPF dataplane, computed from names: what a rule, an end of tier or a profile counts under.

felix/rules/nflogprefix.go (since v3.30: FNV-1a of the NFLOG prefix) and
felix/dataplane/linux/bpf_ep_mgr.go ruleMatchID (v3.28, v3.29). With flow logs on, ids come from an allocator instead
and cannot be computed: nothing is found then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final

from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.identity import SHORT_KINDS

PREFIX_LIMIT: Final = 63
"""Longer NFLOG prefixes are replaced by a digest (felix/rules/nflogprefix.go)."""
MOST_RULES: Final = 512
"""Rules of one direction that are tried: Felix splits one API rule into several, how many is not in the object."""

_ACTIONS: Final = {"A": "allow", "D": "deny", "P": "pass"}
_DIRECTIONS: Final = {"ingress": "I", "egress": "E"}
_LEGACY_ACTIONS: Final = {"allow": "allow", "deny": "deny", "pass": "pass", "next-tier": "pass"}
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


def named(
    ids: Iterable[int],
    policies: Iterable[PolicyObject],
    tiers: Iterable[str],
    profiles: Iterable[str],
) -> dict[int, Section]:
    """What ids stand for, found by computing those of every rule that the objects can have. Unknown ones are left out.

    Both directions are tried: programs of workloads hold the other direction of host endpoints too. ``tiers`` and
    ``profiles`` are names (``kns.default``). Rules of low index are tried first, and no further than needed.
    """
    wanted = set(ids) - {0}
    found: dict[int, Section] = {}
    for tier in tiers:
        for action, direction in product(("deny", "pass"), _DIRECTIONS):
            number = end_of_tier_id(tier, direction, action)
            if number in wanted:
                found[number] = Section(SectionKind.END_OF_TIER, tier, match_id=number, action=action)
    owners = [*_owners(policies), *(("Profile", "", name, "", name) for name in profiles)]
    for index in range(MOST_RULES):
        if wanted <= found.keys():
            break
        for kind, namespace, name, tier, full_id in owners:
            for number, action in _ids(kind, full_id, index):
                if number in wanted and number not in found:
                    found[number] = Section(
                        SectionKind.RULE, tier, kind, namespace, name, index, match_id=number, action=action
                    )
    return found


def _ids(kind: str, full_id: str, index: int) -> Iterator[tuple[int, str]]:
    owner, long_owner = ("R", "Profile") if kind == "Profile" else ("P", "Policy")
    for direction, short in _DIRECTIONS.items():
        for letter, action in _ACTIONS.items():
            yield rule_id(f"{letter}{owner}{short}{index}|{full_id}"), action
        for word, action in _LEGACY_ACTIONS.items():
            yield fnv1a(f"{word}{long_owner}{direction.capitalize()}{index}{full_id}"), action


def _owners(policies: Iterable[PolicyObject]) -> Iterator[tuple[str, str, str, str, str]]:
    for policy in policies:
        if policy.kind.startswith("Staged"):
            continue
        for full_id in _full_ids(policy):
            yield policy.kind, policy.namespace, policy.name, policy.tier, full_id


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
