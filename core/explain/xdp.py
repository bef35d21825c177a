"""XDP programs that are not walked: they see what comes in through an interface before any rule does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.errors import EvidenceError
from calico_debug.model.explanation import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from calico_debug.walk.node import NodeWalker

PREFILTER = "prefilter"
"""Felix's program outside of the eBPF dataplane (felix/bpf-apache/filter.c, XDPEnabled)."""


def unread_programs(walker: NodeWalker, interface: str) -> Iterator[Finding]:
    """What to know of a packet that came to a node through ``interface``, "" for one of its own."""
    try:
        link = walker.state.interfaces.get(interface)
    except EvidenceError:
        return
    if link is None or not link.xdp:
        return
    if walker.datapath is not None and walker.datapath.hooks.xdp(interface) is not None:
        return
    felix = " (Felix has one of that name, which drops what untracked policy denies)" if link.xdp == PREFILTER else ""
    which = f"an XDP program at {interface} of {walker.name} is not read: {link.xdp}{felix}"
    yield Finding("xdp-program", "info", f"{which}; what it drops comes to no rule")


def dropped_before(interfaces: Sequence[str]) -> str:
    """What to add where nothing of a flow was seen on a node whose ``interfaces`` have XDP programs; "" without."""
    return f" (an XDP program at {' or '.join(interfaces)} may have dropped it before)" if interfaces else ""
