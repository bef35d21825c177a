"""iptables rules of one node behind `calico_debug.model.nft.Ruleset`, so that the walk over nftables walks them too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.state.ruleset import ElementIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.decode.ipset import SavedSets, SetDescription
    from calico_debug.decode.iptables import SavedTables
    from calico_debug.model.nft import Chain, Element, Rule, SetContent
    from calico_debug.state.ruleset import LookupKey

LEGACY_SUFFIX = " (legacy)"
"""Stands behind the name of a legacy table where nf_tables has one of the same name."""


class IpSets:
    """A node's ipsets, read when a rule first names one. Every table of both backends shares them."""

    def __init__(self, read: Callable[[], SavedSets]) -> None:
        """``read`` is called once at the most; it may raise `EvidenceError`."""
        self._read = read
        self._saved: SavedSets | None = None
        self._indexes: dict[str, ElementIndex] = {}

    @property
    def saved(self) -> SavedSets:
        """The listing. Raises `EvidenceError`."""
        if self._saved is None:
            self._saved = self._read()
        return self._saved

    def describe(self, name: str) -> SetDescription | None:
        """A set without its elements, None when it is not known, also for lack of evidence: `find` then says so."""
        try:
            return self.saved.describe(name)
        except EvidenceError:
            return None

    def members(self, name: str) -> Sequence[str]:
        """The sets in a list:set that is known."""
        return self.saved.members(name)

    def elements(self, name: str) -> SetContent | None:
        """A set's content, None when there is none of that name. Raises `EvidenceError`."""
        return self.saved.elements(name)

    def find(self, name: str, key: LookupKey) -> Element | None:
        """The element that a key meets. Raises `MissingEvidence` when there is no such set."""
        index = self._indexes.get(name)
        if index is None:
            content = self.saved.elements(name)
            if content is None:
                raise MissingEvidence(f"ipset {name} is named by a rule but is not there; record again: ipset save")
            index = self._indexes[name] = ElementIndex(content)
        return index.find(key)


class IptablesRuleset:
    """The tables of several listings, IPv4 and IPv6, of one backend, with the node's ipsets.

    Families are "ip" and "ip6". A table is called as iptables calls it, apart from those in ``renamed``.
    """

    def __init__(
        self, listings: Sequence[SavedTables], sets: IpSets, renamed: Mapping[tuple[str, str], str] | None = None
    ) -> None:
        """``renamed`` maps (family, table) to the name to show; nothing is decoded yet."""
        self._sets = sets
        self._places: dict[tuple[str, str], tuple[SavedTables, str]] = {}
        for listing in listings:
            for table in listing.tables():
                shown = (renamed or {}).get((listing.family, table), table)
                self._places[listing.family, shown] = (listing, table)
        self._rules: dict[tuple[str, str, str], tuple[Rule, ...]] = {}

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, table as shown), in the order of the listings."""
        return tuple(self._places)

    def base_chains(self) -> Sequence[Chain]:
        """The chains that the kernel calls."""
        found: list[Chain] = []
        for (_, shown), (listing, table) in self._places.items():
            found += (chain for chain in listing.chains(table, shown) if chain.hook is not None)
        return found

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain, None when there is no such chain."""
        place = (family, table, chain)
        rules = self._rules.get(place)
        if rules is None and (family, table) in self._places:
            listing, name = self._places[family, table]
            rules = listing.rules(name, chain, table, self._sets)
            if rules is not None:
                self._rules[place] = rules
        return rules

    def elements(self, family: str, table: str, name: str) -> SetContent | None:  # noqa: ARG002 - sets have no table
        """The content of an ipset, None when there is none of that name."""
        return self._sets.elements(name)

    def find(self, family: str, table: str, name: str, key: LookupKey) -> Element | None:  # noqa: ARG002
        """The element of an ipset that a key meets. Raises `MissingEvidence` when there is no such set."""
        return self._sets.find(name, key)
