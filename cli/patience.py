"""How long a command works on what nobody asked for in so many words."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST = 60.0
"""Seconds for walking flows that a command chose by itself."""


def patience(seconds: float = LONGEST, clock: Callable[[], float] = time.monotonic) -> Callable[[], bool]:
    """Tells, from now on, whether the seconds are over."""
    end = clock() + seconds
    return lambda: clock() >= end
