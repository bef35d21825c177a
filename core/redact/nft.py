"""``nft -j list ruleset`` with addresses and names replaced.

Where neighbouring addresses are written as a range, networks take its place: those keep their meaning when addresses
are mapped prefix by prefix, ranges do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network, summarize_address_range
from itertools import product
from typing import Any

from calico_debug.errors import EvidenceError
from calico_debug.redact.text import TextRedactor

_VERBATIM = """
    metainfo family hook op protocol field key flags base type policy result mode dir unit per rate_unit burst_unit
    level
"""
VERBATIM = frozenset(_VERBATIM.split())
"""Keys whose values are nft's own words, whatever they are (libnftables-json(5))."""

NAMES = frozenset({"comment", "name", "table", "chain", "target", "set", "map"})
"""Keys whose values are names."""

MOST_ELEMENTS = 1 << 20
"""Elements that one with ranges may become."""


def redact_nft(document: Any, text: TextRedactor) -> Any:
    """The document. Raises `EvidenceError` for what cannot be replaced and keep its meaning."""
    return _Walk(text).value(document, "")


@dataclass(frozen=True, slots=True)
class _Walk:
    text: TextRedactor

    def value(self, value: Any, key: str) -> Any:
        if isinstance(value, str):
            return self.text.text(value, is_name=key in NAMES)
        if isinstance(value, list):
            return self._elements(value, key)
        if not isinstance(value, dict):
            return value
        if set(value) == {"prefix"} and isinstance(value["prefix"], dict):
            return {"prefix": self._prefix(value["prefix"])}
        if "range" in value and len(value) == 1 and _addresses(value):
            raise EvidenceError("it has a range of addresses in a place where networks cannot stand for it")
        if "payload" in value and "offset" in value["payload"] and self.text.addresses is not None:
            raise EvidenceError("it has a rule that compares bytes of packets by their place, which may be an address")
        if "match" in value and isinstance(value["match"], dict):
            return {**{k: self._member(k, v) for k, v in value.items() if k != "match"}, "match": self._match(value)}
        return {name: self._member(name, member) for name, member in value.items()}

    def _member(self, key: str, value: Any) -> Any:
        if key in VERBATIM and (isinstance(value, str | int) or _is_words(value) or key == "metainfo"):
            return value
        return self.value(value, key)

    def _match(self, statement: dict[str, Any]) -> Any:
        match = statement["match"]
        left, right = match.get("left"), match.get("right")
        if isinstance(left, dict) and "&" in left and _is_address(right):
            raise EvidenceError("it compares an address under a mask, which does not survive the replacement")
        changed = {key: self._member(key, value) for key, value in match.items() if key != "right"}
        if isinstance(right, dict) and set(right) == {"range"} and _addresses(right):
            elements = self._expand(right)
            return {**changed, "right": elements[0] if len(elements) == 1 else {"set": elements}}
        if "right" in match:
            changed["right"] = self.value(right, "right")
        return changed

    def _elements(self, values: list[Any], key: str) -> list[Any]:
        if key not in ("elem", "set"):
            return [self.value(value, key) for value in values]
        return [expanded for value in values for expanded in self._expand(value)]

    def _expand(self, element: Any) -> list[Any]:
        """An element of a set or map as those that stand for it; several where it holds a range of addresses."""
        if isinstance(element, list) and len(element) == 2:
            return [[key, self.value(element[1], "data")] for key in self._expand(element[0])]
        if isinstance(element, dict) and set(element) == {"range"} and _addresses(element):
            first, last = (ip_address(text) for text in element["range"])
            return [self._network(network) for network in summarize_address_range(first, last)]
        if isinstance(element, dict) and set(element) == {"concat"}:
            return self._several(list(map(self._expand, element["concat"])), lambda parts: {"concat": list(parts)})
        if isinstance(element, dict) and set(element) == {"elem"}:
            rest = {k: self._member(k, v) for k, v in element["elem"].items() if k != "val"}
            return [{"elem": {"val": value, **rest}} for value in self._expand(element["elem"].get("val"))]
        return [self.value(element, "elem")]

    @staticmethod
    def _several(parts: list[list[Any]], build: Callable[[tuple[Any, ...]], Any]) -> list[Any]:
        count = 1
        for part in parts:
            count *= len(part)
        if count > MOST_ELEMENTS:
            raise EvidenceError("an element of a set holds ranges that are too many networks")
        return [build(chosen) for chosen in product(*parts)]

    def _network(self, network: Any) -> Any:
        mapped = self.text.addresses.network(network) if self.text.addresses else network
        if mapped.prefixlen == mapped.max_prefixlen:
            return str(mapped.network_address)
        return {"prefix": {"addr": str(mapped.network_address), "len": mapped.prefixlen}}

    def _prefix(self, prefix: dict[str, Any]) -> Any:
        address, length = prefix.get("addr"), prefix.get("len")
        if not _is_address(address) or not isinstance(length, int):
            return {key: self._member(key, value) for key, value in prefix.items()}
        network = ip_network((str(address), length), strict=False)
        mapped = self.text.addresses.network(network) if self.text.addresses else network
        return {"addr": str(mapped.network_address), "len": length}


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _addresses(value: dict[str, Any]) -> bool:
    """Whether a range is one of addresses."""
    ends = value["range"]
    return isinstance(ends, list) and len(ends) == 2 and all(map(_is_address, ends))


def _is_address(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        ip_address(value)
    except ValueError:
        return False
    return True
