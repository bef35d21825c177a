"""The rules of a node that has iptables rules: nf_tables, iptables-nft and iptables-legacy as one ruleset.

Tables that iptables-nft made are nf_tables tables, too, but a listing of nft leaves their xt parts out: those are taken
from iptables-save. Legacy tables hook into the kernel beside nf_tables.

Order: nf_tables tells in which order its tables were made, and iptables-nft's are among them. Nothing tells when a
legacy table was registered; it is taken to be older than every nf_tables table, so that of chains with equal priority
it runs last (of equals, the kernel runs the youngest first).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.ipset import SavedSets
from calico_debug.decode.iptables import BUILTIN_TABLES, decode_tables
from calico_debug.errors import MissingEvidence
from calico_debug.evidence.contents import IPTABLES_FILES, IPTABLES_LEGACY_FILES
from calico_debug.state.iptables import LEGACY_SUFFIX, IpSets, IptablesRuleset

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.decode.iptables import SavedTables
    from calico_debug.errors import EvidenceError
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.model.nft import Chain, Element, Rule, Ruleset, SetContent
    from calico_debug.state.ruleset import LookupKey

SETS_FILE = "ipset-save.txt"

NFTABLES, IPTABLES_NFT, IPTABLES_LEGACY = "nftables", "iptables-nft", "iptables-legacy"
"""What may hold rules."""


class CombinedRuleset:
    """Several rulesets of one node as one. Where two have a table, the later one's counts."""

    def __init__(self, parts: Sequence[tuple[str, Ruleset]], order: Sequence[tuple[str, str]]) -> None:
        """``parts`` are rulesets with what they are; ``order`` is every table, the oldest first."""
        self._owners: dict[tuple[str, str], Ruleset] = {}
        self._kinds: dict[tuple[str, str], str] = {}
        for kind, ruleset in parts:
            for table in ruleset.tables():
                self._owners[table] = ruleset
                self._kinds[table] = kind
        self._order = tuple(table for table in order if table in self._owners)
        self._rulesets = [ruleset for _, ruleset in parts]

    def kinds(self) -> Mapping[tuple[str, str], str]:
        """What each table belongs to: NFTABLES, IPTABLES_NFT or IPTABLES_LEGACY."""
        return self._kinds

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, table) of every table, the oldest first as far as that is known."""
        return self._order

    def base_chains(self) -> Sequence[Chain]:
        """The chains at a hook, by their tables' order."""
        age = {table: number for number, table in enumerate(self._order)}
        found = [
            chain
            for ruleset in self._rulesets
            for chain in ruleset.base_chains()
            if self._owners.get((chain.family, chain.table)) is ruleset
        ]
        return sorted(found, key=lambda chain: age.get((chain.family, chain.table), len(age)))

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain in order, None when there is no such chain."""
        owner = self._owners.get((family, table))
        return owner.rules(family, table, chain) if owner is not None else None

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        """The content of a named set or map, None when there is none of that name."""
        owner = self._owners.get((family, table))
        return owner.elements(family, table, name) if owner is not None else None

    def find(self, family: str, table: str, name: str, key: LookupKey) -> Element | None:
        """The element that a fully known key meets. Raises `MissingEvidence` when the table has no such set."""
        owner = self._owners.get((family, table))
        if owner is None:
            raise MissingEvidence(f"there is no table {family} {table}; record the rules again")
        return owner.find(family, table, name, key)


def with_iptables(
    native: Ruleset | None, evidence: NodeEvidence, note: Callable[[str], None], missing: EvidenceError | None = None
) -> Ruleset:
    """The node's whole ruleset: ``native`` alone when no iptables rules are there.

    ``native`` is what nf_tables holds, None when that is not in evidence and ``missing`` says why: the iptables files
    then stand for it, and ``note`` is told. Raises `EvidenceError`.
    """
    if evidence.nftables is not None and native is not None:
        files = _live_files(native)
    else:
        files = [*IPTABLES_FILES, *IPTABLES_LEGACY_FILES]
    listings = _read(evidence, files)
    if native is None:
        if not any(listing.has_rules() for listing in listings.values()):
            raise missing or MissingEvidence(f"{evidence.origin} has no rules; record nft-ruleset.json")
        note(f"tables of nftables itself are not known: {missing}")
    if not listings:
        assert native is not None
        return native
    return _combine(native, listings, evidence)


def _combine(native: Ruleset | None, listings: Mapping[str, SavedTables], evidence: NodeEvidence) -> Ruleset:
    sets = IpSets(lambda: SavedSets(evidence.read(SETS_FILE), f"{SETS_FILE} of {evidence.origin}"))
    of_nft = [listing for file, listing in listings.items() if file in IPTABLES_FILES and listing.native]
    legacy = [listing for file, listing in listings.items() if file in IPTABLES_LEGACY_FILES]
    # iptables-save may be the legacy one: then its file has the same tables as the other, if that is there at all.
    known = {listing.family for listing in legacy}
    legacy += [
        listing
        for file, listing in listings.items()
        if file in IPTABLES_FILES and not listing.native and listing.family not in known
    ]
    legacy = [listing for listing in legacy if listing.has_rules()]
    translated = IptablesRuleset(of_nft, sets)
    taken = {*translated.tables(), *(native.tables() if native is not None else ())}
    renamed = {
        (listing.family, table): f"{table}{LEGACY_SUFFIX}"
        for listing in legacy
        for table in listing.tables()
        if (listing.family, table) in taken
    }
    old = IptablesRuleset(legacy, sets, renamed)
    parts: list[tuple[str, Ruleset]] = [(IPTABLES_LEGACY, old)]
    order = list(old.tables())
    if native is not None:
        parts.append((NFTABLES, native))
        order += native.tables()
    parts.append((IPTABLES_NFT, translated))
    order += [table for table in translated.tables() if table not in order]
    return CombinedRuleset(parts, order)


def _read(evidence: NodeEvidence, files: Sequence[str]) -> dict[str, SavedTables]:
    """The listings that are there and hold a table."""
    found: dict[str, SavedTables] = {}
    present = set(evidence.files())
    for file in files:
        if file in present:
            family = {**IPTABLES_FILES, **IPTABLES_LEGACY_FILES}[file]
            listing = decode_tables(evidence.read(file), f"{file} of {evidence.origin}", family)
            if listing.tables():
                found[file] = listing
    return found


def _live_files(native: Ruleset) -> list[str]:
    """What to ask a live node for: iptables-nft's tables only if nf_tables has such; legacy ones cost nothing."""
    made = {
        chain.family
        for chain in native.base_chains()
        if chain.family in IPTABLES_FILES.values() and chain.name in BUILTIN_TABLES.get(chain.table, ())
    }
    return [file for file, family in IPTABLES_FILES.items() if family in made] + list(IPTABLES_LEGACY_FILES)
