"""``nft -j list ruleset`` (bundle file ``nft-ruleset.json``): indexed at once, decoded chain by chain as asked for.

Source: libnftables-json(5). nft lists tables in the order they were created, and chains likewise within a table.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from calico_debug.decode.nft_json_expressions import ExpressionDecoder
from calico_debug.decode.nft_json_rules import decode_rule, decode_stateful
from calico_debug.decode.nft_json_values import MALFORMED, decode_elements, set_types
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Chain, Hook, Rule, SetContent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.decode.nft_fields import DataType

REMEDY = "record it again with: nft -j list ruleset"

NOT_VALUES = (
    "verdict",
    "counter",
    "quota",
    "limit",
    "ct helper",
    "ct timeout",
    "ct expectation",
    "secmark",
    "synproxy",
)
"""What a map leads to other than a value: a verdict or the name of an object."""

Place = tuple[str, str, str]
"""Family, table and the name of a chain or set in it."""


class RecordedTables:
    """Every table of one listing. Chains and sets are decoded at the first request and kept."""

    def __init__(self, objects: Sequence[Any], where: str) -> None:
        """Index the list behind ``nftables``; ``where`` names the file for messages."""
        self._where = where
        self._tables: dict[tuple[str, str], bool] = {}
        self._chains: dict[Place, Chain] = {}
        self._raw_rules: dict[Place, list[dict[str, Any]]] = {}
        self._raw_sets: dict[Place, dict[str, Any]] = {}
        self._rules: dict[Place, tuple[Rule, ...]] = {}
        self._sets: dict[Place, SetContent] = {}
        for number, item in enumerate(objects):
            try:
                ((kind, content),) = item.items()
                self._add(kind, content)
            except MALFORMED:
                raise EvidenceError(f"{where}: object {number} of the ruleset is malformed; {REMEDY}") from None

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, name) in the order of the listing."""
        return tuple(self._tables)

    def dormant_tables(self) -> frozenset[tuple[str, str]]:
        """Tables whose chains are not attached. Only nft 1.1 and later write that down."""
        return frozenset(table for table, dormant in self._tables.items() if dormant)

    def chains(self) -> Sequence[Chain]:
        """Every chain, in the order of the listing."""
        return tuple(self._chains.values())

    def sets(self) -> Sequence[Place]:
        """Every named set and map."""
        return tuple(self._raw_sets)

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain, None when the listing has no such chain."""
        place = (family, table, chain)
        rules = self._rules.get(place)
        if rules is None and place in self._chains:
            raw = self._raw_rules.get(place, ())
            rules = self._rules[place] = tuple(decode_rule(rule, family, table, chain) for rule in raw)
        return rules

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        """The content of a named set or map, None when the listing has none of that name.

        Raises `EvidenceError` when an element is not understood: a lookup in half a set would be a guess.
        """
        place = (family, table, name)
        content = self._sets.get(place)
        if content is None and place in self._raw_sets:
            content = self._sets[place] = self._decode_set(place, self._raw_sets[place])
        return content

    def _decode_set(self, place: Place, raw: dict[str, Any]) -> SetContent:
        try:
            data = None
            if "map" in raw:
                data = () if raw["map"] in NOT_VALUES else _types(raw["map"], place[0])
            return decode_elements(_types(raw["type"], place[0]), data, raw.get("elem") or (), decode_stateful)
        except MALFORMED as error:
            text = " ".join(str(error).split())[:200]
            raise EvidenceError(
                f"{self._where}: set {place[2]} of table {place[0]} {place[1]} has an element that is not understood "
                f"({text}); report it with the file"
            ) from None

    def _add(self, kind: str, content: dict[str, Any]) -> None:
        if kind == "rule":
            place = (content["family"], content["table"], content["chain"])
            self._raw_rules.setdefault(place, []).append(content)
        elif kind == "chain":
            place = (content["family"], content["table"], content["name"])
            self._chains[place] = _decode_chain(content)
        elif kind in ("set", "map"):
            self._raw_sets[content["family"], content["table"], content["name"]] = content
        elif kind == "table":
            flags = content.get("flags") or ()
            self._tables[content["family"], content["name"]] = "dormant" in flags


def decode_ruleset(text: bytes | str, where: str) -> RecordedTables:
    """Read a whole listing; ``where`` names the file. Raises `EvidenceError` when it is not one."""
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        what = "is empty" if not text.strip() else f"is not JSON, or was cut off ({place}: {error.msg})"
        raise EvidenceError(f"{where} {what}; {REMEDY}") from None
    except UnicodeDecodeError as error:
        raise EvidenceError(f"{where} is not text (byte {error.start}); {REMEDY}") from None
    except (ValueError, RecursionError):
        raise EvidenceError(f"{where} is not the JSON of a ruleset; {REMEDY}") from None
    objects = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(objects, list):
        raise EvidenceError(f'{where} has no list "nftables", so it is not a listing of nft; {REMEDY}')
    return RecordedTables(objects, where)


def _types(types: Any, family: str) -> tuple[DataType, ...]:
    """The types of a set's keys or data, which nft 1.1 and later may give as the expression they are the type of."""
    if isinstance(types, dict):
        return ExpressionDecoder(family, decode_stateful).decode(types["typeof"]).types
    return set_types(types)


def _decode_chain(content: dict[str, Any]) -> Chain:
    hook = None
    if "hook" in content:
        devices = content.get("dev", ())
        names = (devices,) if isinstance(devices, str) else tuple(str(device) for device in devices)
        priority = content["prio"]
        hook = Hook(content["type"], content["hook"], int(priority), content.get("policy", "accept"), names)
    return Chain(content["family"], content["table"], content["name"], int(content["handle"]), hook)
