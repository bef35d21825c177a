"""What the command's exit status says; docs/cli.md has the same table, a test compares."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """The exit status. ``meaning`` is the sentence of docs/cli.md."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> ExitCode:
        """A member that is its number and carries its sentence."""
        member = int.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    ANSWERED = 0, "the question was answered; with `--exit-code`: the flow is allowed"
    FAILED = (
        1,
        (
            "no answer: evidence is missing, damaged or not readable, or a line of `--flows` was in error; "
            "of `assert`: something is not met; of `diff` and `switch compare`: a flow differs; of `lockout`: "
            "something is cut"
        ),
    )
    USAGE = 2, "the command line or a name in it cannot be understood"
    DENIED = 3, "only with `--exit-code`: the flow is denied or rejected"
    UNDETERMINED = (
        4,
        (
            "only with `--exit-code`, and of `assert`, `diff`, `switch compare` and `lockout`: evidence does not "
            "settle the verdict"
        ),
    )
    INTERRUPTED = 130, "interrupted from the keyboard"
    BROKEN_PIPE = 141, "the reader of the output went away"


OF_VERDICT = {
    "allowed": ExitCode.ANSWERED,
    "denied": ExitCode.DENIED,
    "rejected": ExitCode.DENIED,
    "undetermined": ExitCode.UNDETERMINED,
}


def worst(verdicts: Iterable[str]) -> ExitCode:
    """What ``--exit-code`` gives for several flows: undetermined over denied or rejected over allowed."""
    return max((OF_VERDICT[verdict] for verdict in verdicts), default=ExitCode.ANSWERED)
