"""Which answer to an open question most packets would give, so that what is told first is what happens to them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from calico_debug.model.nft import Lookup, Match
from calico_debug.model.values import Partial
from calico_debug.walk.packet import SOURCE_PORT_OPEN

if TYPE_CHECKING:
    from calico_debug.model.nft import Statement
    from calico_debug.walk.context import Context
    from calico_debug.walk.packet import Port
    from calico_debug.walk.statements import Operation

EPHEMERAL = 49152
"""A source port as clients get them: of RFC 6335, section 6, and of Linux's ip_local_port_range."""


def usually(statement: Statement, operation: Operation, context: Context) -> bool:
    """Whether a match that is open holds for most packets: what depends on a source port that nobody gave is answered
    as for one that a client gets. True where that settles nothing.
    """
    packet = context.packet
    ends = packet.ends()
    assumed = replace(ends, source_port=_given(ends.source_port), destination_port=_given(ends.destination_port))
    if assumed == ends or not isinstance(statement, Match | Lookup):
        return True
    with packet.assuming(assumed):
        return operation(context) is not False


def _given(port: Port) -> Port:
    """The port, or one in place of the source port that is open; a reply has it as its destination's."""
    return EPHEMERAL if isinstance(port, Partial) and port.why == SOURCE_PORT_OPEN else port
