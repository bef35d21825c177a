"""Counters of Calico's rules on this node, again and again: what a rule means is found out once, its counter each time.

nf_tables is read over netlink, for nftables mode and for iptables-nft. What the rules of iptables-nft do is not in
nf_tables in a form of its own: their text is asked for when a chain has changed. Legacy tables have to be listed.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode.iptables import decode_tables
from calico_debug.decode.netlink_attributes import string_attribute
from calico_debug.decode.nft_counters import CountedChain, counted_chains, decode_rules
from calico_debug.decode.nft_netlink import Table, decode_table
from calico_debug.errors import EvidenceError
from calico_debug.evidence.contents import IPTABLES_FILES, IPTABLES_LEGACY_FILES, IPTABLES_TABLES
from calico_debug.policy.chains import chain_role
from calico_debug.state.dataplane import CALICO_TABLES, IPTABLES, NFTABLES

if TYPE_CHECKING:
    from calico_debug.decode.ipset import SetDescription
    from calico_debug.decode.iptables import SavedTables
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.metrics.rules import Place
    from calico_debug.model.nft import Rule

NFTA_RULE_TABLE = 1

_COUNTED = re.compile(r"\[(\d+):(\d+)\] (.*)", re.DOTALL)


@dataclass(slots=True)
class Counted:
    """Every chain of Calico in one dataplane: its rules, and of each the counter's identity, packets and bytes."""

    rules: dict[Place, Sequence[Rule]] = field(default_factory=dict)
    counters: dict[Place, list[tuple[Hashable, int, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a chain's rules were made from, and the rules."""

    content: object
    rules: Sequence[Rule]


class RuleCounters:
    """Reads one node's counters. Rules of chains that did not change stay the same objects."""

    def __init__(self, node: NodeEvidence) -> None:
        """``node`` is live."""
        self._node = node
        self._kept: dict[tuple[str, Place], _Kept] = {}

    def read(self) -> Mapping[str, Counted]:
        """Counters by dataplane, as they are now. Raises `EvidenceError`."""
        found = {NFTABLES: Counted(), IPTABLES: Counted()}
        before, self._kept = self._kept, {}
        try:
            self._read_nf_tables(found, before)
            for file, family in IPTABLES_LEGACY_FILES.items():
                self._read_legacy(file, family, found[IPTABLES], before)
        except BaseException:
            self._kept = before
            raise
        return found

    # ----------------------------------------------------------------------------------------------------- internals

    def _read_nf_tables(self, found: dict[str, Counted], before: dict[tuple[str, Place], _Kept]) -> None:
        dump = self._node.nftables
        if dump is None:
            return
        saved: dict[str, SavedTables] = {}
        tables = [decode_table(answer) for answer in dump(nft.NFT_MSG_GETTABLE, nft.NLM_F_DUMP, 0, b"")]
        for table in tables:
            native = (table.family, table.name) in CALICO_TABLES
            if not native and (table.family not in IPTABLES_FILES.values() or table.name not in IPTABLES_TABLES):
                continue
            request = string_attribute(NFTA_RULE_TABLE, table.name)
            answers = dump(nft.NFT_MSG_GETRULE, nft.NLM_F_DUMP, nft.FAMILY_NUMBERS[table.family], request)
            into = found[NFTABLES if native else IPTABLES]
            for chain in counted_chains(answers, _is_calico):
                place = (chain.family, chain.table, chain.name)
                content = (table.handle, chain.handles)
                kept = before.get(("nft", place))
                if kept is None or kept.content != content:
                    rules = decode_rules(chain) if native else self._saved_rules(chain, saved)
                    kept = _Kept(content, rules)
                self._kept["nft", place] = kept
                _add(into, place, kept.rules, _nft_counters(table, chain))

    def _saved_rules(self, chain: CountedChain, saved: dict[str, SavedTables]) -> Sequence[Rule]:
        """The rules of a chain of iptables-nft, from iptables-save, which is run once a reading at the most."""
        if chain.family not in saved:
            file = next(file for file, family in IPTABLES_FILES.items() if family == chain.family)
            saved[chain.family] = decode_tables(self._node.read(file), file, chain.family)
        rules = saved[chain.family].rules(chain.table, chain.name, chain.table, _NO_SETS) or ()
        if len(rules) != len(chain.rules):
            raise EvidenceError(f"chain {chain.name} changed while it was read; the next reading has it")
        return rules

    def _read_legacy(self, file: str, family: str, into: Counted, before: dict[tuple[str, Place], _Kept]) -> None:
        data = self._node.read(file) if file in self._node.files() else b""
        if not data:
            return
        listing = decode_tables(data, file, family)
        for table in listing.tables():
            for chain in listing.chains(table, table):
                if not _is_calico(chain.name):
                    continue
                place = (family, f"{table} (legacy)", chain.name)
                numbers, texts = _legacy_lines(listing.lines(table, chain.name))
                kept = before.get(("legacy", place))
                if kept is None or kept.content != texts:
                    kept = _Kept(texts, listing.rules(table, chain.name, table, _NO_SETS) or ())
                self._kept["legacy", place] = kept
                _add(into, place, kept.rules, _legacy_counters(place, texts, numbers))


def _add(into: Counted, place: Place, rules: Sequence[Rule], counters: Iterable[tuple[Hashable, int, int]]) -> None:
    into.rules[place] = rules
    into.counters[place] = list(counters)


def _nft_counters(table: Table, chain: CountedChain) -> Iterable[tuple[Hashable, int, int]]:
    """A handle is never used again in its table, nor a table's in its network namespace."""
    of_table = (table.family, table.handle)
    for rule in chain.rules:
        packets, octets = rule.counters or (0, 0)
        yield (of_table, rule.handle), packets, octets


def _legacy_counters(
    place: Place, texts: Sequence[str], numbers: Sequence[tuple[int, int]]
) -> Iterable[tuple[Hashable, int, int]]:
    """A rule has no number of its own: its text has to do, in which Felix writes a hash of it and of those before."""
    met: dict[str, int] = {}
    for text, (packets, octets) in zip(texts, numbers, strict=True):
        met[text] = met.get(text, 0) + 1
        yield (place, text, met[text]), packets, octets


def _legacy_lines(lines: Sequence[str]) -> tuple[list[tuple[int, int]], tuple[str, ...]]:
    numbers, texts = [], []
    for line in lines:
        match = _COUNTED.match(line)
        numbers.append((int(match[1]), int(match[2])) if match else (0, 0))
        texts.append(match[3] if match else line)
    return numbers, tuple(texts)


def _is_calico(chain: str) -> bool:
    return chain_role(chain) is not None


class _NoSets:
    """Sets are of no interest to what a rule counts for."""

    def describe(self, name: str) -> SetDescription | None:  # noqa: ARG002
        return None

    def members(self, name: str) -> Sequence[str]:  # noqa: ARG002
        return ()


_NO_SETS = _NoSets()
