"""Which of many networks have an address: one look-up a prefix length, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from calico_debug.model.cluster import Address
from calico_debug.model.routing import Network

Item = TypeVar("Item")


class NetIndex(Generic[Item]):
    """Items by the networks that they have."""

    def __init__(self, entries: Iterable[tuple[Network, Item]]) -> None:
        """``entries`` are networks, each with an item; an item may come with several."""
        self._ranges: dict[tuple[int, int], dict[int, list[Item]]] = {}
        for net, item in entries:
            at = self._ranges.setdefault((net.version, net.max_prefixlen - net.prefixlen), {})
            at.setdefault(int(net.network_address), []).append(item)

    def covering(self, address: Address) -> tuple[Item, ...]:
        """The items with a network that has the address, each once."""
        number, version = int(address), address.version
        found: dict[Item, None] = {}
        for (family, rest), ranges in self._ranges.items():
            if family == version:
                found.update(dict.fromkeys(ranges.get(number >> rest << rest, ())))
        return tuple(found)
