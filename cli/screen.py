"""A full-screen view in a terminal, by curses: keys, size, and leaving the terminal as it was."""

from __future__ import annotations

import curses
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType

from calico_debug.cli.render.top import View, Wish, frame, shown_parts
from calico_debug.errors import UsageError
from calico_debug.hits.rates import ORDERS

PAGE = 10
ENDING = (signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asked the process to end."""


def watch(read: Callable[[], View], seconds: float) -> None:
    """Show what ``read`` gives, anew after so many seconds, until the user quits.

    Raises `UsageError` where the terminal cannot be used, and whatever ``read`` raises; the terminal is put back first.
    """
    with _ended_by_signals():
        try:
            curses.setupterm()
        except curses.error as error:
            raise UsageError(f"this terminal cannot be drawn on ({error}): use --once") from None
        try:
            curses.wrapper(lambda window: _loop(window, read, seconds))
        except Ended:
            return


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Signals that would end the process at once leave through curses first."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise Ended

    before = {number: signal.signal(number, end) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _loop(window: curses.window, read: Callable[[], View], seconds: float) -> None:
    with suppress(curses.error):
        curses.curs_set(0)
    wish, view = Wish(), read()
    due = time.monotonic() + seconds
    while True:
        _draw(window, view, wish)
        window.timeout(max(int((due - time.monotonic()) * 1000), 1))
        key = window.getch()
        if key in (ord("q"), ord("Q")):
            return
        if key == curses.KEY_RESIZE:
            # What was written for the old size may stand anywhere now: all is drawn anew
            window.clear()
        wish = _wished(wish, key, view)
        if time.monotonic() >= due:
            due = time.monotonic() + seconds
            if not wish.paused:
                view = read()


def _wished(wish: Wish, key: int, view: View) -> Wish:
    """What the user wants after a key."""
    parts = shown_parts(view)
    moves = {curses.KEY_UP: -1, curses.KEY_DOWN: 1, curses.KEY_PPAGE: -PAGE, curses.KEY_NPAGE: PAGE}
    if key == ord("p"):
        return replace(wish, paused=not wish.paused)
    if key == ord("s"):
        return replace(wish, order=ORDERS[(ORDERS.index(wish.order) + 1) % len(ORDERS)], top=0)
    if key in (ord("v"), ord("\t")):
        return replace(wish, shown=parts[(parts.index(wish.shown) + 1) % len(parts)], top=0)
    if key in moves:
        return replace(wish, top=max(wish.top + moves[key], 0))
    return wish


def _draw(window: curses.window, view: View, wish: Wish) -> None:
    curses.update_lines_cols()
    lines, columns = window.getmaxyx()
    window.erase()
    for number, line in enumerate(frame(view, wish, columns, lines)):
        # The last cell of the last line cannot be written without scrolling
        room = columns - 1 if number == lines - 1 else columns
        with suppress(curses.error):
            window.addnstr(number, 0, line, room, curses.A_REVERSE if number == 0 else curses.A_NORMAL)
    window.refresh()
