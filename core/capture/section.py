"""One pcapng file of a capture: its blocks in the order in which they have to stand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from calico_debug.capture import pcapng
from calico_debug.model.packet_event import DROPPED, SENT
from calico_debug.model.printable import safe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.explain.packet_story import Places
    from calico_debug.model.packet_event import Losses, PacketEvent

MOST_INTERFACES = 4096
"""Of a file; packets of more are said to be of the last one, whose name says so."""
OTHERS = "other interfaces"


class Section:
    """Makes blocks, each whole; whoever has them writes them."""

    def __init__(self, application: str, comment: str, snap: int) -> None:
        """``comment`` says what is captured; ``snap`` is the longest packet kept, in bytes."""
        self._application, self._comment, self._snap = application, safe(comment), snap
        self._interfaces: dict[tuple[int, int, str], int] = {}
        self._packets: Counter[int] = Counter()
        self._named: set[tuple[str, str]] = set()
        self._last = 0

    @property
    def interfaces(self) -> int:
        """Interfaces so far."""
        return len(self._interfaces)

    @property
    def packets(self) -> int:
        """Packets so far, each counted wherever it was seen."""
        return self._packets.total()

    def begin(self) -> bytes:
        """What the file begins with."""
        return pcapng.section(self._application, self._comment)

    def names(self, known: Mapping[str, Sequence[str]]) -> bytes:
        """A block with the names that no block before had; nothing if there is none."""
        new = {
            address: fresh
            for address, each in known.items()
            if (fresh := [name for name in dict.fromkeys(each) if (address, name) not in self._named])
        }
        self._named |= {(address, name) for address, each in new.items() for name in each}
        return pcapng.names({address: [safe(name) for name in each] for address, each in new.items()}) if new else b""

    def packet(self, event: PacketEvent, number: int, places: Places, comment: str) -> bytes:
        """A packet, behind the block of its interface when that is new."""
        key = (event.namespace, event.interface_index, event.interface)
        blocks = b""
        if key not in self._interfaces and len(self._interfaces) >= MOST_INTERFACES:
            key = (0, 0, OTHERS)
        if key not in self._interfaces:
            where = safe(OTHERS if key[2] == OTHERS else places.of(event))
            self._interfaces[key] = len(self._interfaces)
            blocks = pcapng.interface(where, f"{where} of {safe(places.node)}", self._snap)
        interface = self._interfaces[key]
        self._packets[interface] += 1
        self._last = max(self._last, event.time)
        sent = None if event.kind == DROPPED else event.kind == SENT
        length = pcapng.ip_length(event.data, event.length)
        return blocks + pcapng.packet(
            interface, event.time, event.data, length, comment=comment, sent=sent, number=number
        )

    def end(self, losses: Losses) -> bytes:
        """What the file ends with: for each interface what it has, and what was lost, of all of them together."""
        text = f"lost on all interfaces until here: {losses_words(losses)}"
        return b"".join(
            pcapng.statistics(
                interface, self._last, received=self._packets[interface], comment="" if interface else text
            )
            for interface in self._interfaces.values()
        )


def losses_words(losses: Losses) -> str:
    """What was not told, in words; 0 is said, too."""
    text = f"{losses.lost} events ({losses.ring_full} for want of room, {losses.limited} over the limit of the rate)"
    if losses.missed:
        text += f"; up to {losses.missed} packets passed over"
    if losses.unreadable:
        text += f"; {losses.unreadable} drops of what is no IP packet not shown"
    return text
