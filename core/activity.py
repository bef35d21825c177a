"""What is being done at this moment, for somebody who waits: said by who does it, heard by whom it is shown to.

Whoever shows it is set for a thread (`heard_by`), so what reads evidence or walks flows needs to know of nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("activity", default=None)


def say(what: str) -> None:
    """Say what is done now, in some words: names in them are as evidence has them, not safe for a terminal."""
    listener = _LISTENER.get()
    if listener is not None:
        listener(what)


def counted(items: Iterable[Item], total: int, noun: str = "flow") -> Iterator[Item]:
    """The items, each said as "flow 3 of 4,000" when it is taken."""
    for number, item in enumerate(items, 1):
        say(f"{noun} {number:,} of {total:,}")
        yield item


@contextmanager
def heard_by(listener: Callable[[str], None]) -> Iterator[None]:
    """What this thread says goes to ``listener``, which must be quick."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)
