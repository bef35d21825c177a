"""Open questions met on the way, and the exploration of every answer.

The walk is ordinary deterministic code. Where the kernel would roll a die (``numgen random``), depend on load
(``limit``) or read something nobody told us (an ephemeral port), it asks a `Chooser`. The explorer runs the walk
again for each answer that was not taken yet, so no part of the walk has to know about branches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Kind(Enum):
    """Why a question is open."""

    BACKEND = "backend"
    """The kernel picks: every answer happens to some connection."""
    RATE = "rate"
    """Depends on other traffic: a limit, a quota, a number of connections."""
    MEMORY = "memory"
    """Depends on what the node remembers of earlier packets, which is no part of the evidence."""
    PROCESS = "process"
    """Depends on what a process at the flow's end does, which is no part of the evidence."""
    UNKNOWN = "unknown"
    """Depends on something that was not given or that this version cannot evaluate."""


@dataclass(frozen=True, slots=True)
class Unsure:
    """The third answer of a match: it depends on something open, named in ``why``."""

    kind: Kind
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer that was taken: number ``taken`` of ``options``; ``why`` is the question in words.

    ``rule`` is the one that asks: its chain in words, and its handle.
    """

    kind: Kind
    why: str
    options: int
    taken: int
    rule: tuple[str, int] | None = None


class Chooser:
    """Answers questions from a script, and with the first option beyond its end."""

    __slots__ = ("_script", "choices")

    def __init__(self, script: tuple[int, ...] = ()) -> None:
        """``script`` holds the answers to the first questions, in order."""
        self._script = script
        self.choices: list[Choice] = []

    def choose(self, kind: Kind, why: str, options: int, rule: tuple[str, int] | None = None) -> int:
        """The answer to a question with ``options`` answers, 0 ≤ answer < ``options``; the first is the usual one."""
        position = len(self.choices)
        taken = self._script[position] if position < len(self._script) else 0
        self.choices.append(Choice(kind, why, options, taken, rule))
        return taken


@dataclass(frozen=True, slots=True)
class Alternative(Generic[Result]):
    """What one run gave, and the choices that led there."""

    result: Result
    choices: tuple[Choice, ...]


def in_words(choices: Iterable[Choice]) -> tuple[str, ...]:
    """What the choices were about, each question once, with the rules that ask it."""
    asked: dict[tuple[str, str], dict[str, None]] = {}
    for choice in choices:
        chain, handle = choice.rule or ("", 0)
        asked.setdefault((choice.why, chain), {})[str(handle)] = None
    return tuple(f"{why} ({chain}, {_rules(list(rules))})" if chain else why for (why, chain), rules in asked.items())


def _rules(handles: Sequence[str]) -> str:
    if len(handles) == 1:
        return f"rule handle {handles[0]}"
    return f"rule handles {', '.join(handles[:-1])} and {handles[-1]}"


def explore(run: Callable[[Chooser], Result], limit: int) -> Iterator[Alternative[Result]]:
    """Yield the results of ``run`` under every combination of answers, ``limit`` runs at the most.

    The caller learns that the limit was hit by counting: exactly ``limit`` results may mean that more exist, which is
    why callers ask for one more than they use.
    """
    pending: list[tuple[int, ...]] = [()]
    runs = 0
    while pending and runs < limit:
        script = pending.pop()
        chooser = Chooser(script)
        result = run(chooser)
        runs += 1
        taken = tuple(choice.taken for choice in chooser.choices)
        for position in range(len(chooser.choices) - 1, len(script) - 1, -1):
            pending.extend(
                (*taken[:position], answer) for answer in range(chooser.choices[position].options - 1, 0, -1)
            )
        yield Alternative(result, tuple(chooser.choices))
