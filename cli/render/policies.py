"""The documents of ``policies`` and ``endpoints`` as text: pure functions, a line an item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

Document = Mapping[str, Any]

LONGEST: Final = 200
"""Longest list of names that text shows; wide shows all."""


def lines(document: Document, *, wide: bool) -> Iterator[str]:
    """The lines of a document of `calico_debug.explain.policy_listing`; not yet safe for a terminal."""
    readers = {"PodPolicies": _pod, "PolicyList": _all, "PolicyEndpoints": _endpoints}
    yield from readers[document["kind"]](document, wide)


def _pod(document: Document, wide: bool) -> Iterator[str]:
    yield f"pod {document['pod']['namespace']}/{document['pod']['name']} on {document['node']}"
    units: dict[str, None] = {}
    for direction in ("egress", "ingress"):
        way = document[direction]
        yield direction
        if not way["tiers"]:
            yield "  no policy applies"
        for tier in way["tiers"]:
            yield f"  tier {_tier(tier)}"
            shown = [_name(policy) for policy in tier["policies"]]
            width = max(map(len, shown))
            for name, policy in zip(shown, tier["policies"], strict=True):
                yield f"    {name.ljust(width)}  {_order(policy)}{_hits(policy, units)}".rstrip()
                yield from _details(policy) if wide else ()
        yield f"  where every tier passes: profiles {', '.join(way['profiles'])}"
    for unit in units:
        yield f"counts are {unit}"


def _details(policy: Document) -> Iterator[str]:
    if "doubt" in policy:
        yield f"        not certain: {policy['doubt']}"
    counts = {rule.get("index"): rule["count"] for rule in policy.get("hits", {}).get("rules", ())}
    for rule in policy["rules"]:
        count = f": {counts[rule['index']]}" if rule["index"] in counts else ""
        yield f"        rule {rule['index']} ({rule['text']}){count}"


def _all(document: Document, wide: bool) -> Iterator[str]:
    if not document["tiers"]:
        yield "no policies"
    for tier in document["tiers"]:
        yield f"tier {_tier(tier)}"
        shown = [_name(policy) for policy in tier["policies"]]
        width = max(map(len, shown))
        for name, policy in zip(shown, tier["policies"], strict=True):
            perhaps = f", perhaps {policy['perhaps']} more" if "perhaps" in policy else ""
            number = f"{policy['endpoints']} endpoint{'' if policy['endpoints'] == 1 else 's'}{perhaps}"
            yield f"  {name.ljust(width)}  {_order(policy)}  {' and '.join(policy['types'])}  {number}"
            if wide and "problem" in policy:
                yield f"      not understood: {policy['problem']}"


def _endpoints(document: Document, wide: bool) -> Iterator[str]:
    yield f"{_name(document['policy'])}, tier {document['policy']['tier']}, {' and '.join(document['types'])}"
    if wide:
        yield f"  selector {document['selector'] or '(not understood)'}"
    if "problem" in document:
        yield f"  not understood: {document['problem']}"
    found: Sequence[Document] = document["endpoints"]
    for endpoint in found if wide else found[:LONGEST]:
        own = f"pod {endpoint['namespace']}/" if endpoint["kind"] == "Pod" else "host endpoint "
        interface = f" ({endpoint['interface']})" if endpoint.get("interface") else ""
        certain = "" if endpoint.get("certain", True) else "  perhaps"
        yield f"  {own}{endpoint['name']} on {endpoint['node']}{interface}{certain}"
    if len(found) > LONGEST and not wide:
        yield f"  and {len(found) - LONGEST} more, which -o wide shows"
    if not found:
        yield "  selects no endpoint"
    units: dict[str, None] = {}
    for hits in document["hits"]:
        units.setdefault(hits["unit"])
        yield f"  {hits['node']}  {hits['direction']}  {hits['count']}"
        for rule in hits["rules"] if wide else ():
            yield f"      rule {rule.get('index', '?')} ({rule['action']}): {rule['count']}"
    for unit in units:
        yield f"counts are {unit}"


def _tier(tier: Document) -> str:
    order = f", order {tier['order']}" if "order" in tier else ""
    end = "passes, as all is staged" if tier.get("onlyStaged") else f"{tier['defaultAction']} at its end"
    return f"{tier['tier']}{order}, {end}"


def _name(policy: Document) -> str:
    own = f"{policy['namespace']}/" if "namespace" in policy else ""
    flags = [flag for flag in ("applyOnForward", "preDNAT", "doNotTrack") if policy.get(flag)]
    notes = [f"staged: {policy['stagedAction']}"] if "stagedAction" in policy else []
    perhaps = ["perhaps"] if policy.get("certain") is False else []
    more = ", ".join([*notes, *flags, *perhaps])
    return f"{policy['kind']} {own}{policy['name']}{f' ({more})' if more else ''}"


def _order(policy: Document) -> str:
    return f"order {policy['order']}" if "order" in policy else "no order"


def _hits(policy: Document, units: dict[str, None]) -> str:
    hits = policy.get("hits")
    if not hits:
        return ""
    units.setdefault(hits["unit"])
    return f"  {hits['count']} on {hits['node']}"
