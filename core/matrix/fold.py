"""Puts equals together: pods with the same rows or columns, or all of a namespace, and ports that are the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from calico_debug.matrix.model import MIXED, SELF, Asked, By, Cell, Group, Sheet, Table

_Line = tuple[int | None, ...]
_Sheets = dict[tuple[tuple[Cell, ...], ...], list[Asked]]
_Parts = list[list[int]]
"""Groups, each of indices of the table's sources or destinations."""


def fold(table: Table, by: By) -> tuple[tuple[Group, ...], tuple[Group, ...], tuple[Sheet, ...]]:
    """Sources, destinations and sheets as they are shown."""
    if by == "namespaces":
        return _by_namespace(table)
    width = len(table.destinations)
    rows = list(_parts([tuple(reason for line in lines for reason in line) for lines in table.rows]))
    # Of rows that were put together, or two pods that differ only in what each says of the other would become one.
    columns = [
        tuple(line[port * width + column] for line, _ in rows for port in range(len(table.asked)))
        for column in range(width)
    ]
    sources, destinations = [members for _, members in rows], [members for _, members in _parts(columns)]
    made_sources = _groups(table.sources, sources)
    made_destinations = _groups(table.destinations, destinations)
    cells = _Cells(table)
    sheets: _Sheets = {}
    for number, asked in enumerate(table.asked):
        drawn = tuple(
            tuple(
                cells.of(_known(table, number, sources[i], destinations[j]), _pairs(one, other))
                for j, other in enumerate(made_destinations)
            )
            for i, one in enumerate(made_sources)
        )
        sheets.setdefault(drawn, []).append(asked)
    return made_sources, made_destinations, _sheets(sheets)


def _sheets(sheets: _Sheets) -> tuple[Sheet, ...]:
    return tuple(Sheet(tuple(asked), rows) for rows, asked in sheets.items())


def _parts(lines: Sequence[_Line]) -> Iterator[tuple[_Line, list[int]]]:
    """Equal lines as one, with their indices. None, which says nothing, equals anything: members fill what is open."""
    exact: dict[_Line, list[int]] = {}
    for index, line in enumerate(lines):
        exact.setdefault(line, []).append(index)
    merged: list[tuple[list[int | None], list[int]]] = []
    for line, members in exact.items():
        fitting = next((one for one in merged if _compatible(one[0], line)), None) if _has_gap(line, merged) else None
        if fitting is None:
            merged.append((list(line), list(members)))
        else:
            fitting[0][:] = [a if a is not None else b for a, b in zip(fitting[0], line, strict=True)]
            fitting[1].extend(members)
    for known, members in merged:
        yield tuple(known), sorted(members)


def _has_gap(line: _Line, merged: Sequence[tuple[list[int | None], list[int]]]) -> bool:
    return None in line or any(None in known for known, _ in merged)


def _compatible(known: Sequence[int | None], line: _Line) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(known, line, strict=True))


def _groups(pods: Sequence[tuple[str, ...]], parts: _Parts) -> tuple[Group, ...]:
    return tuple(_group(tuple(pod for index in part for pod in pods[index])) for part in parts)


def _group(pods: tuple[str, ...]) -> Group:
    namespaces = tuple(dict.fromkeys(pod.partition("/")[0] for pod in pods))
    name = pods[0] if len(pods) == 1 else f"{pods[0]} and {len(pods) - 1} more"
    return Group(name, pods, namespaces)


def _known(table: Table, asked: int, rows: Sequence[int], columns: Sequence[int]) -> int | None:
    """The reason that all members of two groups share."""
    found = (table.rows[row][asked][column] for row in rows for column in columns)
    return next((reason for reason in found if reason is not None), None)


def _pairs(one: Group, other: Group) -> int:
    return len(one.pods) * len(other.pods) - len(set(one.pods) & set(other.pods))


class _Cells:
    """Makes cells, equal ones once."""

    def __init__(self, table: Table) -> None:
        self._verdicts = [reason.verdict for reason in table.reasons]
        self._made: dict[tuple[tuple[int, int], ...], Cell] = {(): SELF}

    def of(self, reason: int | None, pairs: int) -> Cell:
        return self.counted({reason: pairs} if reason is not None and pairs else {})

    def counted(self, counts: dict[int, int]) -> Cell:
        key = tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
        if key not in self._made:
            verdicts = {self._verdicts[reason] for reason, _ in key}
            self._made[key] = Cell(verdicts.pop() if len(verdicts) == 1 else MIXED, key)
        return self._made[key]


def _by_namespace(table: Table) -> tuple[tuple[Group, ...], tuple[Group, ...], tuple[Sheet, ...]]:
    sources, destinations = _namespaces(table.sources), _namespaces(table.destinations)
    cells = _Cells(table)
    sheets: _Sheets = {}
    for number, asked in enumerate(table.asked):
        counts = _counts(table, number)
        rows = tuple(
            tuple(cells.counted(counts.get((one.name, other.name), {})) for other in destinations) for one in sources
        )
        sheets.setdefault(rows, []).append(asked)
    return sources, destinations, _sheets(sheets)


def _namespaces(groups: Iterable[tuple[str, ...]]) -> tuple[Group, ...]:
    pods: dict[str, list[str]] = {}
    for pod in (one for group in groups for one in group):
        pods.setdefault(pod.partition("/")[0], []).append(pod)
    return tuple(Group(name, tuple(pods[name]), (name,)) for name in sorted(pods))


def _counts(table: Table, asked: int) -> dict[tuple[str, str], Counter[int]]:
    """Pairs of different pods by namespaces and reason."""
    found: dict[tuple[str, str], Counter[int]] = {}
    homes = [Counter(pod.partition("/")[0] for pod in group) for group in table.destinations]
    for source, lines in zip(table.sources, table.rows, strict=True):
        senders = Counter(pod.partition("/")[0] for pod in source)
        own = set(source)
        for column, reason in enumerate(lines[asked]):
            if reason is None:
                continue
            same = Counter(pod.partition("/")[0] for pod in table.destinations[column] if pod in own)
            for sender, many in senders.items():
                for receiver, others in homes[column].items():
                    pairs = many * others - (same[sender] if sender == receiver else 0)
                    if pairs:
                        found.setdefault((sender, receiver), Counter())[reason] += pairs
    return found
