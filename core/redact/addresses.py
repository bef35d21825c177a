"""Addresses mapped to other addresses, prefix by prefix: two of them share as many leading bits afterwards as before.

The construction is that of Crypto-PAn (Xu, Fan, Ammar, Moon, 2002) over a keyed hash: a bit is flipped or not, which
depends on the bits before it. Addresses that mean the same everywhere keep their value, and no other becomes one.
"""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

SPECIAL: tuple[str, ...] = (
    "0.0.0.0/8",  # this network (RFC 1122)
    "127.0.0.0/8",  # loopback
    "169.254.0.0/16",  # link-local: 169.254.1.1 is every pod's gateway
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, the broadcast address, and masks that look like addresses
    "::/96",  # unspecified and loopback
    "::ffff:0:0/96",  # IPv4 addresses in IPv6 form, which are mapped as what they are
    "64:ff9b::/96",
    "ff00::/8",  # multicast, and masks that look like addresses
    "fe80::ecee:eeff:feee:eeee/128",  # what Calico's host ends of pods' interfaces have (MAC ee:ee:ee:ee:ee:ee)
)
"""Networks whose addresses stay as they are."""

SCRAMBLED: tuple[str, ...] = ("fe80::/10", "ff02::1:ff00:0/104")
"""Networks that stay, and in which addresses do not: interface identifiers are made of MAC addresses."""

EMBEDDING: tuple[str, ...] = ("::ffff:0:0/96", "64:ff9b::/96", "::/96")
"""Networks whose last 32 bits are an IPv4 address (RFC 4291, RFC 6052)."""

KEPT_MACS = frozenset({"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "ee:ee:ee:ee:ee:ee"})

_NOT_EMBEDDED = 1 << 16
"""Below it, ``::/96`` holds :: and ::1, not IPv4 addresses."""


class AddressMap:
    """One mapping of all addresses, fixed by its key."""

    def __init__(self, key: bytes) -> None:
        """``key`` is 16 to 64 secret bytes."""
        self._key = key
        self._flips: dict[tuple[int, int, int], int] = {}
        self._known: dict[tuple[int, int, int], int] = {}
        self._special = [ip_network(text) for text in SPECIAL]
        self._scrambled = [ip_network(text) for text in SCRAMBLED]
        self._embedding = [ip_network(text) for text in EMBEDDING]

    def address(self, address: Address) -> Address:
        """What stands for an address."""
        return ip_address(self._mapped(int(address), address.max_prefixlen).to_bytes(address.max_prefixlen // 8))

    def network(self, network: Network) -> Network:
        """What stands for a network: the one of the same length that holds what stands for its addresses."""
        bits = network.max_prefixlen
        value = self._mapped(int(network.network_address), bits, network.prefixlen)
        return ip_network((value.to_bytes(bits // 8), network.prefixlen))

    def text(self, text: str) -> str | None:
        """An address, or one with a prefix length, as text; None when it is neither."""
        try:
            if "/" not in text:
                return str(self.address(ip_address(text)))
            before, _, length = text.partition("/")
            address = ip_address(before)
            network = ip_network(text, strict=False)
        except ValueError:
            return None
        if address == network.network_address:
            return str(self.network(network))
        return f"{self.address(address)}/{length}"

    def mac(self, text: str) -> str:
        """A MAC address: what the kernel reads of it, group or single, global or local, stays."""
        lower = text.lower()
        first = int(lower[:2], 16)
        if lower in KEPT_MACS or first & 1:
            return text
        digest = hashlib.blake2b(lower.encode(), key=self._key, person=b"mac", digest_size=6).digest()
        return bytes([digest[0] & 0xFC | first & 0x03, *digest[1:]]).hex(":")

    def _mapped(self, value: int, bits: int, length: int | None = None) -> int:
        wanted = bits if length is None else length
        if bits == 128 and wanted == 128 and self._embeds(value):
            return value & ~0xFFFFFFFF | self._mapped(value & 0xFFFFFFFF, 32)
        key = (bits, wanted, value)
        if key not in self._known:
            result = value
            for position in range(wanted):
                if self._flip(bits, position, value >> (bits - position)):
                    result ^= 1 << (bits - position - 1)
            self._known[key] = result
        return self._known[key]

    def _embeds(self, value: int) -> bool:
        """Whether the last 32 bits of an IPv6 address are an IPv4 address."""
        start = value & ~0xFFFFFFFF
        return value >= _NOT_EMBEDDED and any(start == int(network.network_address) for network in self._embedding)

    def _flip(self, bits: int, position: int, prefix: int) -> int:
        """Whether the bit behind ``position`` bits of value ``prefix`` changes."""
        key = (bits, position, prefix)
        if key not in self._flips:
            fixed = self._is_fixed(bits, position, prefix)
            data = bits.to_bytes(1) + position.to_bytes(1) + prefix.to_bytes(16)
            digest = b"\0" if fixed else hashlib.blake2b(data, key=self._key, person=b"bit", digest_size=1).digest()
            self._flips[key] = digest[0] & 1
        return self._flips[key]

    def _is_fixed(self, bits: int, position: int, prefix: int) -> bool:
        within = any(_holds(network, bits, position, prefix) for network in self._scrambled)
        for network in self._special:
            if _leads_to(network, bits, position, prefix) or (not within and _holds(network, bits, position, prefix)):
                return True
        return any(_leads_to(network, bits, position, prefix) for network in self._scrambled)


def _leads_to(network: Network, bits: int, position: int, prefix: int) -> bool:
    """Whether a bit behind these decides about belonging to the network."""
    if network.max_prefixlen != bits or position >= network.prefixlen:
        return False
    return int(network.network_address) >> (bits - position) == prefix


def _holds(network: Network, bits: int, position: int, prefix: int) -> bool:
    if network.max_prefixlen != bits or position < network.prefixlen:
        return False
    return prefix >> (position - network.prefixlen) == int(network.network_address) >> (bits - network.prefixlen)
