"""What an explanation says of nodes that are read through agents."""

from __future__ import annotations

from calico_debug import __version__
from calico_debug.model.explanation import Finding

LONGEST = 40
"""Characters of a version that somebody else tells."""


def node_not_read(node: str, why: str) -> Finding:
    """A node of the flow of which nothing could be read; ``why`` says what to do, too."""
    return Finding("node-not-read", "warning", f"{node}: {why}")


def version_finding(node: str, version: str) -> Finding | None:
    """What to say of the agent of a node that is of ``version``; None when it is this one's."""
    if version == __version__:
        return None
    return Finding(
        "agent-version",
        "warning",
        f"the agent on {node} is of version {version[:LONGEST] or 'unknown'}, this command of {__version__}: what they "
        "understand may differ; use the same image on every node",
    )


def observed_for_less(node: str, seconds: float, asked: float) -> Finding:
    """An agent observed for a shorter time than was asked for."""
    return Finding(
        "observation-incomplete",
        "warning",
        f"{node} was observed for the first {seconds:g} s of {asked:g} s, as long as an agent observes for others: "
        "observe for less time, or run there",
    )
