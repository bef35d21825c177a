"""A node's nf_tables rules behind one interface, `calico_debug.model.nft.Ruleset`, whatever they were read from."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING

from calico_debug.decode.nft_json import RecordedTables, decode_ruleset
from calico_debug.errors import MissingEvidence
from calico_debug.model.nft import Interval, NamePrefix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Chain, Element, Key, Rule, Scalar, SetContent

LookupKey = int | str | tuple[int | str, ...]


class ElementIndex:
    """Finds the element that a key meets; single intervals by bisection, as sets of addresses have thousands."""

    def __init__(self, content: SetContent) -> None:
        """Index ``content``."""
        self._content = content
        intervals = [(e.key.low, e.key.high, e) for e in content.ranged if isinstance(e.key, Interval)]
        self._intervals = sorted(intervals, key=lambda entry: entry[0])
        self._lows = [low for low, _, _ in self._intervals]
        self._others = tuple(e for e in content.ranged if not isinstance(e.key, Interval))

    def find(self, key: LookupKey) -> Element | None:
        """The element for a fully known key, the catch-all when no other has it, None when there is neither."""
        element = self._content.exact.get(key)
        if element is None and self._lows and isinstance(key, int):
            element = self._find_interval(key)
        if element is None:
            element = next((e for e in self._others if covers(e.key, key)), None)
        return element or self._content.default

    def _find_interval(self, key: int) -> Element | None:
        position = bisect_right(self._lows, key) - 1
        if position < 0:
            return None
        _, high, element = self._intervals[position]
        return element if key <= high else None


def covers(pattern: Key, key: LookupKey) -> bool:
    """Whether an element's key, ranges and wildcards included, stands for this fully known key."""
    if isinstance(pattern, tuple):
        return (
            isinstance(key, tuple)
            and len(pattern) == len(key)
            and all(_covers_field(field, value) for field, value in zip(pattern, key, strict=True))
        )
    return not isinstance(key, tuple) and _covers_field(pattern, key)


def _covers_field(field: Scalar, value: int | str) -> bool:
    if isinstance(field, Interval):
        return isinstance(value, int) and field.low <= value <= field.high
    if isinstance(field, NamePrefix):
        return isinstance(value, str) and value.startswith(field.prefix)
    return field == value


class RecordedRuleset:
    """The rules of a recorded ``nft -j list ruleset``."""

    def __init__(self, tables: RecordedTables) -> None:
        """Wrap decoded tables; see `read`."""
        self._recorded = tables
        self._indexes: dict[tuple[str, str, str], ElementIndex] = {}

    @classmethod
    def read(cls, text: bytes | str, where: str) -> RecordedRuleset:
        """From the file's content; ``where`` names it. Raises `EvidenceError` when it is not a listing."""
        return cls(decode_ruleset(text, where))

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, table) of every table, in the order of the listing, which is that of creation."""
        return self._recorded.tables()

    def base_chains(self) -> Sequence[Chain]:
        """The chains at a hook: tables in order, and in a table by handle, so in the order of creation."""
        order = {table: number for number, table in enumerate(self._recorded.tables())}
        chains = [chain for chain in self._recorded.chains() if chain.hook is not None]
        return sorted(chains, key=lambda chain: (order.get((chain.family, chain.table), len(order)), chain.handle))

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain, None when there is no such chain."""
        return self._recorded.rules(family, table, chain)

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        """The content of a named set or map, None when there is none of that name."""
        return self._recorded.elements(family, table, name)

    def find(self, family: str, table: str, name: str, key: LookupKey) -> Element | None:
        """The element that a fully known key meets. Raises `MissingEvidence` when there is no such set."""
        place = (family, table, name)
        index = self._indexes.get(place)
        if index is None:
            content = self._recorded.elements(family, table, name)
            if content is None:
                raise MissingEvidence(f"table {family} {table} has no set {name}; record the ruleset again")
            index = self._indexes[place] = ElementIndex(content)
        return index.find(key)
