"""Patience ends."""

from __future__ import annotations

from calico_debug.cli.patience import patience


def test_it_ends_and_stays_ended() -> None:
    times = iter([100.0, 101.0, 109.9, 110.0, 200.0])
    over = patience(10.0, lambda: next(times))
    assert [over() for _ in range(4)] == [False, False, True, True]
