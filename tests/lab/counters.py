"""Which rules a packet met: every rule's counter, before and after."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Mapping


class RuleKey(NamedTuple):
    """A rule as the kernel names it."""

    family: str
    table: str
    chain: str
    handle: int


def read(namespace: str) -> dict[RuleKey, int]:
    """Packets of every rule that has a counter, in one namespace."""
    found = {}
    for entry in json.loads(namespaces.run(namespace, ["nft", "-j", "list", "ruleset"]))["nftables"]:
        rule = entry.get("rule")
        if rule is None:
            continue
        for statement in rule["expr"]:
            counter = statement.get("counter")
            if isinstance(counter, dict):
                found[RuleKey(rule["family"], rule["table"], rule["chain"], rule["handle"])] = int(counter["packets"])
    return found


def moved(before: Mapping[RuleKey, int], after: Mapping[RuleKey, int]) -> dict[RuleKey, int]:
    """How many packets each rule counted in between; rules that counted none are left out."""
    return {key: after[key] - before.get(key, 0) for key in after if after[key] != before.get(key, 0)}
