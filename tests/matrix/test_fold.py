"""Equals are put together, and nothing is lost by that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.matrix.fold import fold
from calico_debug.matrix.model import MIXED, SELF, Asked, Reason, Table

REASONS = [Reason("allowed"), Reason("denied"), Reason("denied", (), "near")]
ASKED = (Asked(6, 80), Asked(17, 53))
PODS = tuple(f"{namespace}/{name}" for namespace in ("a", "b") for name in ("x", "y", "z"))


def table(cells: dict[tuple[str, str, Asked], int], pods: tuple[str, ...] = PODS) -> Table:
    rows = [
        [[None if one == other else cells.get((one, other, asked), 0) for other in pods] for asked in ASKED]
        for one in pods
    ]
    return Table([(one,) for one in pods], [(one,) for one in pods], ASKED, rows, REASONS)


@given(
    cells=st.dictionaries(
        st.tuples(st.sampled_from(PODS), st.sampled_from(PODS), st.sampled_from(ASKED)), st.integers(0, 2)
    )
)
def test_every_pair_keeps_its_reason(cells: dict[tuple[str, str, Asked], int]) -> None:
    sources, destinations, sheets = fold(table(cells), "pods")
    assert sorted(pod for group in sources for pod in group.pods) == sorted(PODS)
    shown = {}
    for sheet in sheets:
        for group, row in zip(sources, sheet.rows, strict=True):
            for other, cell in zip(destinations, row, strict=True):
                pairs = [(a, b) for a in group.pods for b in other.pods if a != b]
                assert sum(count for _, count in cell.counts) == len(pairs)
                assert (cell is SELF) == (not pairs)
                shown |= {(a, b, asked): cell.counts[0][0] for a, b in pairs for asked in sheet.asked}
    assert shown == {(a, b, c): cells.get((a, b, c), 0) for a in PODS for b in PODS for c in ASKED if a != b}


@given(
    cells=st.dictionaries(
        st.tuples(st.sampled_from(PODS), st.sampled_from(PODS), st.sampled_from(ASKED)), st.integers(0, 2)
    )
)
def test_namespaces_count_their_pairs(cells: dict[tuple[str, str, Asked], int]) -> None:
    sources, destinations, sheets = fold(table(cells), "namespaces")
    assert [group.name for group in sources] == [group.name for group in destinations] == ["a", "b"]
    for sheet in sheets:
        for group, row in zip(sources, sheet.rows, strict=True):
            for other, cell in zip(destinations, row, strict=True):
                for asked in sheet.asked:
                    found = [cells.get((a, b, asked), 0) for a in group.pods for b in other.pods if a != b]
                    assert dict(cell.counts) == {reason: found.count(reason) for reason in set(found)}
                    verdicts = {REASONS[reason].verdict for reason in found}
                    assert cell.verdict == (verdicts.pop() if len(verdicts) == 1 else MIXED)


def test_ports_that_make_no_difference_are_one_sheet() -> None:
    sources, destinations, (sheet,) = fold(table({}), "pods")
    assert sheet.asked == ASKED
    assert [group.name for group in (*sources, *destinations)] == ["a/x and 5 more"] * 2
    assert sheet.rows[0][0].counts == ((0, 30),)
    assert len(fold(table({("a/x", "b/x", ASKED[0]): 1}), "pods")[2]) == 2


def test_groups_of_equals_that_are_known_beforehand() -> None:
    made = Table([("a/x", "a/y"), ("b/x",)], [("a/x", "a/y"), ("b/x",)], ASKED[:1], [[[0, 1]], [[2, None]]], REASONS)
    _, _, (sheet,) = fold(made, "pods")
    assert [[cell.counts for cell in row] for row in sheet.rows] == [[((0, 2),), ((1, 2),)], [((2, 2),), ()]]
    _, _, (spaces,) = fold(made, "namespaces")
    assert [[cell.counts for cell in row] for row in spaces.rows] == [[((0, 2),), ((1, 2),)], [((2, 2),), ()]]
