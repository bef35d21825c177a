"""Errors that end a command. Each says what was wrong, where, and what to do next, in one line."""


class CalicoDebugError(Exception):
    """Base of every error meant for the user: the command line prints it as one line, never as a traceback."""


class UsageError(CalicoDebugError):
    """The question cannot be understood: a malformed endpoint, an unknown protocol, contradicting options."""


class EvidenceError(CalicoDebugError):
    """Evidence is there but cannot be used: truncated, foreign, oversized or unsafe."""


class MissingEvidence(EvidenceError):  # noqa: N818 - it says what is missing
    """Evidence that was asked for is not there. The walk turns it into "undetermined", never into a guess."""
