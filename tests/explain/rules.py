"""Rulesets in a line a rule, for tests: ``iif=cali* mark&1=1 dport=80 jump:x # comment`` becomes nft's JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Json = dict[str, Any]
Chains = Mapping[str, Iterable[str]]
"""``{"name": rules}`` and for base chains ``{"name@hook:priority[:policy[:type]]": rules}``."""

MARK = {"meta": {"key": "mark"}}
ALL_BITS = 0xFFFFFFFF


def ruleset(tables: Mapping[str, Chains]) -> str:
    """``nft -j list ruleset`` for ``{"ip calico": chains}``."""
    listed: list[Json] = [{"metainfo": {"json_schema_version": 1}}]
    handle = 0
    for name, chains in tables.items():
        family, table = name.split()
        where = {"family": family, "table": table}
        listed.append({"table": {"family": family, "name": table, "handle": 1}})
        for full in chains:
            chain, _, hook = full.partition("@")
            handle += 1
            listed.append({"chain": {**where, "name": chain, "handle": handle, **_hook(hook)}})
        for full, rules in chains.items():
            for text in rules:
                handle += 1
                words, _, comment = text.partition(" # ") if not text.startswith("# ") else ("", "", text[2:])
                rule = {**where, "chain": full.partition("@")[0], "handle": handle, "expr": _expressions(words, family)}
                listed.append({"rule": {**rule, "comment": comment} if comment else rule})
    return json.dumps({"nftables": listed})


def _hook(text: str) -> Json:
    if not text:
        return {}
    hook, priority, policy, kind = (text.split(":") + ["accept", "filter"][text.count(":") - 1 :])[:4]
    return {"type": kind, "hook": hook, "prio": int(priority), "policy": policy}


def _expressions(words: str, family: str) -> list[Json]:
    made = [_expression(word, family) for word in words.split()]
    verdict = made and next(iter(made[-1])) in _VERDICTS
    at = len(made) - 1 if verdict else len(made)
    return [*made[:at], {"counter": {"packets": 7, "bytes": 700}}, *made[at:]]


_VERDICTS = frozenset({"accept", "drop", "return", "continue", "jump", "goto", "reject", "vmap"})


def _expression(word: str, family: str) -> Json:
    if word in ("accept", "drop", "return", "continue", "masquerade", "notrack", "reject"):
        return {word: None}
    for start, make in _FORMS.items():
        if word.startswith(start):
            return make(word.removeprefix(start), family)
    raise ValueError(f"{word!r} is no word of a rule")


def _match(left: Json, right: object, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _marked(text: str, _family: str) -> Json:
    mask, wanted = (int(part, 16) for part in text.split("="))
    return _match({"&": [MARK, mask]}, wanted)


def _address(field: str) -> Callable[[str, str], Json]:
    def make(text: str, family: str) -> Json:
        address, _, length = text.partition("/")
        right = {"prefix": {"addr": address, "len": int(length)}} if length else address
        return _match({"payload": {"protocol": family, "field": field}}, right)

    return make


def _port(field: str) -> Callable[[str, str], Json]:
    def make(text: str, _family: str) -> Json:
        return _match({"payload": {"protocol": "th", "field": field}}, int(text))

    return make


def _translation(text: str, family: str) -> Json:
    address, port = text.rsplit("|", 1)
    return {"dnat": {"family": family, "addr": address, "port": int(port)}}


def _spread(text: str, _family: str) -> Json:
    """``spread=a,b`` goes to one of these chains at random."""
    chains = [[number, {"goto": {"target": chain}}] for number, chain in enumerate(text.split(","))]
    draw = {"numgen": {"mode": "random", "mod": len(chains), "offset": 0}}
    return {"vmap": {"key": draw, "data": {"set": chains}}}


_FORMS: Mapping[str, Callable[[str, str], Json]] = {
    "mark&": _marked,
    "mark|": lambda text, _: {"mangle": {"key": MARK, "value": {"|": [MARK, int(text, 16)]}}},
    "mark-": lambda text, _: {"mangle": {"key": MARK, "value": {"&": [MARK, ALL_BITS ^ int(text, 16)]}}},
    "iif=": lambda text, _: _match({"meta": {"key": "iifname"}}, text),
    "oif=": lambda text, _: _match({"meta": {"key": "oifname"}}, text),
    "protocol=": lambda text, _: _match({"meta": {"key": "l4proto"}}, text),
    "user=": lambda text, _: _match({"meta": {"key": "skuid"}}, int(text)),
    "saddr=": _address("saddr"),
    "daddr=": _address("daddr"),
    "dport=": _port("dport"),
    "sport=": _port("sport"),
    "icmp=": lambda text, _: _match({"payload": {"protocol": "icmp", "field": "type"}}, text),
    "ct=": lambda text, _: _match({"ct": {"key": "state"}}, text.split(","), "in"),
    "spoofed": lambda _, __: _match({"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}, False),
    "local": lambda _, __: _match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"),
    "limit=": lambda text, _: {"limit": {"rate": int(text), "burst": 5, "per": "second"}},
    "log=": lambda text, _: {"log": {"prefix": text}},
    "nflog=": lambda text, _: {"log": {"prefix": text, "group": 1, "snaplen": 80}},
    "jump:": lambda text, _: {"jump": {"target": text}},
    "goto:": lambda text, _: {"goto": {"target": text}},
    "dnat:": _translation,
    "spread=": _spread,
    "alien": lambda text, _: {"alien": {"from": text}},
}
