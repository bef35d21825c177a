"""A node's nf_tables rules behind one interface, `calico_debug.model.nft.Ruleset`, whatever they were read from."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, TypeVar

from calico_debug.decode.nft_json import decode_ruleset
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.model.nft import Interval, NamePrefix, SetContent

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from calico_debug.decode.nft_json import RecordedTables
    from calico_debug.decode.nft_netlink import Table
    from calico_debug.decode.nft_netlink_sets import KeyField, SetDescription
    from calico_debug.evidence.source import NetlinkDump
    from calico_debug.model.nft import Chain, Element, Key, Rule, Scalar

LookupKey = int | str | tuple[int | str, ...]
Place = tuple[str, str, str]
"""Family, table and the name of a chain or set in it."""

Decoded = TypeVar("Decoded")

MALFORMED = (KeyError, ValueError, IndexError, TypeError, OverflowError)


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


def ordered_base_chains(
    chains: Iterable[Chain], order: Mapping[tuple[str, str], int], dormant: Container[tuple[str, str]]
) -> Sequence[Chain]:
    """Attached chains in the order of creation: by their tables' order, and within a table by handle.

    Dormant tables have no chain attached (``flags dormant``).
    """
    attached = [c for c in chains if c.hook is not None and (c.family, c.table) not in dormant]
    return sorted(attached, key=lambda chain: (order.get((chain.family, chain.table), len(order)), chain.handle))


class RecordedRuleset:
    """The rules of a recorded ``nft -j list ruleset``."""

    def __init__(self, tables: RecordedTables) -> None:
        """Wrap decoded tables; see `read`."""
        self._recorded = tables
        self._indexes: dict[Place, ElementIndex] = {}

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
        dormant = self._recorded.dormant_tables()
        return ordered_base_chains(self._recorded.chains(), order, dormant)

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


class KernelRuleset:
    """The rules in this machine's kernel. A chain or a set is read when it is first asked for, and kept."""

    def __init__(self, dump: NetlinkDump) -> None:
        """Ask through ``dump``; nothing is read yet."""
        # Imported here because a recorded ruleset, read at every start from a bundle, does without.
        from calico_debug.decode import nft_netlink, nft_netlink_constants, nft_netlink_sets

        self._dump = dump
        self._messages = nft_netlink
        self._numbers = nft_netlink_constants
        self._decoders = nft_netlink_sets
        self._tables: Sequence[Table] | None = None
        self._chains: dict[Place, Chain] | None = None
        self._rules: dict[Place, Sequence[Rule]] = {}
        self._descriptions: dict[Place, SetDescription | None] = {}
        self._contents: dict[Place, SetContent] = {}
        self._found: dict[tuple[Place, LookupKey], Element | None] = {}
        self._indexes: dict[Place, ElementIndex] = {}

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, table) of every table, in the order they were created."""
        return [(table.family, table.name) for table in self._all_tables()]

    def base_chains(self) -> Sequence[Chain]:
        """The chains at a hook: tables in order, and in a table by handle, so in the order of creation."""
        order = {table: number for number, table in enumerate(self.tables())}
        dormant = {(table.family, table.name) for table in self._all_tables() if table.dormant}
        return ordered_base_chains(self._all_chains().values(), order, dormant)

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain in order, None when there is no such chain."""
        place = (family, table, chain)
        rules = self._rules.get(place)
        if rules is None:
            request = self._messages.rules_request(table, chain)
            answers = self._ask(self._numbers.NFT_MSG_GETRULE, self._numbers.NLM_F_DUMP, family, request)
            sets = _TableSets(self, family, table)
            rules = self._decoded(lambda answer: self._messages.decode_rule(answer, sets), answers)
            if not rules and place not in self._all_chains():
                return None
            self._rules[place] = rules
        return rules

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        """The content of a named set or map, None when there is none of that name."""
        place = (family, table, name)
        content = self._contents.get(place)
        if content is None:
            description = self.describe(place)
            if description is None:
                return None
            content = self._contents[place] = self.content(place, description, self._fields(place, description))
        return content

    def find(self, family: str, table: str, name: str, key: LookupKey) -> Element | None:
        """The element that a fully known key meets, read alone where the kernel can look it up.

        Raises `MissingEvidence` when the table has no such set.
        """
        place = (family, table, name)
        description = self.describe(place)
        if description is None:
            raise MissingEvidence(
                f"table {family} {table} has no set {name}; list it with: nft list table {family} {table}"
            )
        # The kernel's lookup by key answers for whole keys; in interval sets it compares the ends of intervals.
        if description.flags & self._numbers.SET_INTERVAL or place in self._contents:
            index = self._indexes.get(place)
            if index is None:
                content = self.elements(family, table, name)
                index = self._indexes[place] = ElementIndex(content or SetContent((), {}))
            return index.find(key)
        if (place, key) not in self._found:
            self._found[place, key] = self._find_element(place, description, key)
        return self._found[place, key]

    def describe(self, place: Place) -> SetDescription | None:
        """A set without its elements, None when there is none of that name."""
        if place not in self._descriptions:
            family, table, name = place
            request = self._messages.set_request(table, name)
            answers = self._ask(self._numbers.NFT_MSG_GETSET, self._numbers.NLM_F_ACK, family, request)
            found = self._decoded(self._decoders.decode_set, answers)
            self._descriptions[place] = found[0] if found else None
        return self._descriptions[place]

    def content(self, place: Place, description: SetDescription, fields: Sequence[KeyField]) -> SetContent:
        """All elements of a set, with keys of these fields."""
        family, table, name = place
        request = self._messages.elements_request(table, name)
        answers = self._ask(self._numbers.NFT_MSG_GETSETELEM, self._numbers.NLM_F_DUMP, family, request)
        return self._decode_elements(place, description, fields, answers)

    def _decode_elements(
        self, place: Place, description: SetDescription, fields: Sequence[KeyField], answers: Sequence[bytes]
    ) -> SetContent:
        from calico_debug.decode.nft_netlink_expressions import decode_stateful

        try:
            return self._decoders.decode_content(description, fields, answers, decode_stateful)
        except MALFORMED as error:
            raise EvidenceError(
                f"set {place[2]} of table {place[0]} {place[1]} has an element that is not understood ({error}); "
                f"see: nft list set {place[0]} {place[1]} {place[2]}"
            ) from None

    def _fields(self, place: Place, description: SetDescription) -> Sequence[KeyField]:
        if description.fields is None:
            raise EvidenceError(
                f"set {place[2]} of table {place[0]} {place[1]} has keys of a type that is not understood; "
                f"see: nft list set {place[0]} {place[1]} {place[2]}"
            )
        return description.fields

    def _find_element(self, place: Place, description: SetDescription, key: LookupKey) -> Element | None:
        fields = self._fields(place, description)
        try:
            wanted: Sequence[bytes | None] = (self._decoders.encode_key(fields, key), None)
        except (ValueError, OverflowError):
            # No element has such a key, but the catch-all stands for it.
            wanted = (None,)
        for data in wanted:
            request = self._messages.element_request(place[1], place[2], data)
            answers = self._ask(self._numbers.NFT_MSG_GETSETELEM, self._numbers.NLM_F_ACK, place[0], request)
            content = self._decode_elements(place, description, fields, answers)
            element = next(iter(content.exact.values()), content.default)
            if element is not None:
                return element
        return None

    def _all_tables(self) -> Sequence[Table]:
        if self._tables is None:
            answers = self._ask(self._numbers.NFT_MSG_GETTABLE, self._numbers.NLM_F_DUMP, "", b"")
            self._tables = self._decoded(self._messages.decode_table, answers)
        return self._tables

    def _all_chains(self) -> Mapping[Place, Chain]:
        if self._chains is None:
            answers = self._ask(self._numbers.NFT_MSG_GETCHAIN, self._numbers.NLM_F_DUMP, "", b"")
            chains = self._decoded(self._messages.decode_chain, answers)
            self._chains = {(chain.family, chain.table, chain.name): chain for chain in chains}
        return self._chains

    def _ask(self, message_type: int, flags: int, family: str, attributes: bytes) -> Sequence[bytes]:
        number = self._numbers.FAMILY_NUMBERS[family] if family else 0
        return list(self._dump(message_type, flags, number, attributes))

    @staticmethod
    def _decoded(decode: Callable[[bytes], Decoded], answers: Iterable[bytes]) -> list[Decoded]:
        try:
            return [decode(answer) for answer in answers]
        except MALFORMED as error:
            raise EvidenceError(
                f"the kernel's nf_tables answered in a form not understood ({error}); report it"
            ) from None


class _TableSets:
    """The sets of one table, as its rules reach them."""

    def __init__(self, ruleset: KernelRuleset, family: str, table: str) -> None:
        self._ruleset = ruleset
        self._family = family
        self._table = table

    def describe(self, name: str) -> SetDescription:
        description = self._ruleset.describe((self._family, self._table, name))
        if description is None:
            raise KeyError(name)
        return description

    def content(self, description: SetDescription, fields: Sequence[KeyField]) -> SetContent:
        return self._ruleset.content((self._family, self._table, description.name), description, fields)
