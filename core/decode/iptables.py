"""``iptables-save -c`` and its IPv6 and legacy twins: indexed at once, a chain's rules decoded when asked for.

Source: iptables 1.8.9 iptables/iptables-save.c, nft-shared.c. Both backends write the same form; one with the nf_tables
backend says so in its first line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.iptables_rules import decode_rule
from calico_debug.decode.iptables_symbols import BUILTIN_CHAINS
from calico_debug.errors import EvidenceError
from calico_debug.model.nft import Chain, Hook

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.decode.iptables_sets import SetDirectory
    from calico_debug.model.nft import Rule

NO_POLICY = "-"
"""Stands for the policy of a chain that rules jump to."""

POLICIES = {"ACCEPT": "accept", "DROP": "drop", NO_POLICY: ""}


class SavedTable:
    """One table of a listing."""

    __slots__ = ("lines", "name", "policies")

    def __init__(self, name: str) -> None:
        """An empty table."""
        self.name = name
        self.policies: dict[str, str] = {}
        self.lines: dict[str, list[str]] = {}


class SavedTables:
    """Every table of one listing, of one family and backend."""

    def __init__(self, text: bytes | str, where: str, family: str) -> None:
        """Index the listing; ``where`` names the file, ``family`` is "ip" or "ip6".

        Raises `EvidenceError` when it is not a listing, or when it was cut off or mixed with something else.
        """
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        self.family = family
        self.where = where
        self.native = "(nf_tables)" in text[: text.find("\n")]
        self._tables: dict[str, SavedTable] = {}
        self._read(text)

    def tables(self) -> Sequence[str]:
        """The tables' names, in the order of the listing."""
        return tuple(self._tables)

    def has_rules(self) -> bool:
        """Whether anything in it can matter: a rule, or a policy other than to accept."""
        return any(any(table.lines.values()) or "drop" in table.policies.values() for table in self._tables.values())

    def chains(self, table: str, shown: str) -> Sequence[Chain]:
        """The chains of a table; in them, the table is called ``shown``."""
        builtin = BUILTIN_CHAINS.get(table, {})
        found: list[Chain] = []
        for number, (name, policy) in enumerate(self._tables[table].policies.items(), 1):
            hook = Hook(*builtin[name], policy) if policy and name in builtin else None
            found.append(Chain(self.family, shown, name, number, hook))
        return found

    def rules(self, table: str, chain: str, shown: str, sets: SetDirectory) -> tuple[Rule, ...] | None:
        """The rules of a chain, None when there is no such chain. Handles are positions in the chain, from 1."""
        saved = self._tables.get(table)
        lines = saved.lines.get(chain) if saved is not None else None
        if saved is None or lines is None:
            return None
        place = (self.family, shown, chain)
        return tuple(decode_rule(line, number, place, saved.policies, sets) for number, line in enumerate(lines, 1))

    def lines(self, table: str, chain: str) -> Sequence[str]:
        """The lines of a chain's rules as they were printed, with their counters; () when there is no such chain."""
        saved = self._tables.get(table)
        return tuple(saved.lines.get(chain, ())) if saved is not None else ()

    # ------------------------------------------------------------------------------------------------------ internals

    def _read(self, text: str) -> None:
        last = text[text.rfind("\n") + 1 :]
        if last and last != "COMMIT" and not last.startswith("#"):
            raise EvidenceError(f"{self.where} ends within a line, it was cut off; {self._remedy()}")
        table: SavedTable | None = None
        for position, line in enumerate(text.split("\n"), 1):
            first = line[:1]
            if first in ("[", "-"):
                start = line.find("-A ") if first == "-" else line.find("] -A ") + 2
                end = line.find(" ", start + 3)
                chain = line[start + 3 : end if end >= 0 else len(line)]
                if table is None or start not in (0, line.find("]") + 2) or chain not in table.lines:
                    raise self._malformed(position, self._fault(table, chain))
                table.lines[chain].append(line)
            elif first == ":" and table is not None:
                self._declare(table, line, position)
            elif first == "*" and table is None:
                table = self._open(line[1:].strip(), position)
            elif line.strip() == "COMMIT" and table is not None:
                table = None
            elif first not in ("", "#"):
                raise self._malformed(position, f"{line[:60]!r} is out of place")
        if table is not None:
            raise EvidenceError(f"{self.where}: table {table.name} does not end, it was cut off; {self._remedy()}")

    def _open(self, name: str, position: int) -> SavedTable:
        if name not in BUILTIN_CHAINS:
            raise self._malformed(position, f"table {name} is not known")
        if name in self._tables:
            raise self._malformed(position, f"table {name} is there twice: keep backends and families apart")
        table = self._tables[name] = SavedTable(name)
        return table

    def _declare(self, table: SavedTable, line: str, position: int) -> None:
        words = line[1:].split()
        if len(words) < 2 or words[1] not in POLICIES or words[0] in table.policies:
            raise self._malformed(position, f"{line[:60]!r} does not declare a chain")
        if words[1] != NO_POLICY and words[0] not in BUILTIN_CHAINS[table.name]:
            raise self._malformed(position, f"{words[0]} is no chain that the kernel calls")
        table.policies[words[0]] = POLICIES[words[1]]
        table.lines[words[0]] = []

    @staticmethod
    def _fault(table: SavedTable | None, chain: str) -> str:
        return "a rule outside of a table" if table is None else f"a rule of a chain {chain!r} that is not declared"

    def _malformed(self, position: int, what: str) -> EvidenceError:
        return EvidenceError(f"{self.where}, line {position}: {what}; {self._remedy()}")

    def _remedy(self) -> str:
        return f"record it again with: {'ip6tables' if self.family == 'ip6' else 'iptables'}-save -c"


def decode_tables(text: bytes | str, where: str, family: str) -> SavedTables:
    """Read a listing; ``family`` is "ip" or "ip6". Raises `EvidenceError`, see `SavedTables`."""
    return SavedTables(text, where, family)


BUILTIN_TABLES: Mapping[str, Sequence[str]] = {table: tuple(chains) for table, chains in BUILTIN_CHAINS.items()}
"""Tables that iptables knows, with the chains that the kernel calls."""
