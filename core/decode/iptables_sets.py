"""``-m set --match-set NAME src,dst,…``: which fields of the packet are looked up in the set.

Source: Linux net/netfilter/xt_set.c, net/netfilter/ipset/ip_set_core.c (ip_set_test), the kadt functions of each type.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from calico_debug.decode import ipset
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import Bitwise, Concat, Constant, Lookup, Meta, Payload, SetContent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.decode.ipset import SetDescription
    from calico_debug.model.nft import Expression

ADDRESSES = {
    ("ip", "src"): Payload("network", 96, 32),
    ("ip", "dst"): Payload("network", 128, 32),
    ("ip6", "src"): Payload("network", 64, 128),
    ("ip6", "dst"): Payload("network", 192, 128),
}
PORTS = {"src": Payload("ipset", 0, 16), "dst": Payload("ipset", 16, 16)}
INTERFACES = {"src": Meta("iifname"), "dst": Meta("oifname")}
HARDWARE_ADDRESSES = {"src": Payload("link", 48, 48), "dst": Payload("link", 0, 48)}

NEVER = SetContent((), {})
"""What a set amounts to that the kernel does not even ask: of the other family, or of more dimensions than given."""


class SetDirectory(Protocol):
    """What rules need to know of the node's sets."""

    def describe(self, name: str) -> SetDescription | None:
        """The set called ``name``, None when none is known."""

    def members(self, name: str) -> Sequence[str]:
        """The sets in a list:set that is known, in order."""


def decode_set(name: str, directions: str, negated: bool, family: str, sets: SetDirectory) -> Lookup:
    """The lookup in the named set. A set that is not in evidence is looked up all the same: the walk then says so."""
    sides = directions.split(",")
    if any(side not in PORTS for side in sides):
        raise NotUnderstoodError(f"directions {directions}")
    description = sets.describe(name)
    if description is None:
        return Lookup(ADDRESSES[family, sides[0]], name, negated)
    if description.type == ipset.LIST:
        return _lookup_in_list(sets, description, sides, negated, family)
    key = _key(description, sides, family)
    return Lookup(Constant(0), NEVER, negated) if key is None else Lookup(key, name, negated)


def _lookup_in_list(
    sets: SetDirectory, description: SetDescription, sides: Sequence[str], negated: bool, family: str
) -> Lookup:
    """A list:set is asked member by member; as one lookup it needs members that ask for the same fields."""
    keys: list[Expression] = []
    for member in sets.members(description.name):
        inner = sets.describe(member)
        if inner is None:
            return Lookup(ADDRESSES[family, sides[0]], member, negated)
        key = _key(inner, sides, family)
        if key is None or inner.type == ipset.LIST:
            raise NotUnderstoodError(f"list {description.name} with member {member} of type {inner.type}")
        keys.append(key)
    if not keys:
        return Lookup(Constant(0), NEVER, negated)
    if any(key != keys[0] for key in keys):
        raise NotUnderstoodError(f"list {description.name} of sets of several types")
    return Lookup(keys[0], description.name, negated)


def _key(description: SetDescription, sides: Sequence[str], family: str) -> Expression | None:
    """What is looked up in one set; None when the kernel never finds anything (ip_set_test)."""
    if not description.dimensions:
        raise NotUnderstoodError(f"set {description.name} of type {description.type}")
    if len(sides) < len(description.dimensions) or description.family not in ("", family):
        return None
    parts: list[Expression] = []
    for kind, side in zip(description.dimensions, sides, strict=False):
        if kind in (ipset.ADDRESS, ipset.NET):
            parts.append(ADDRESSES[family, side])
        elif kind in (ipset.PORT, ipset.PORT_NUMBER):
            parts += [Meta("l4proto"), PORTS[side]]
        elif kind == ipset.INTERFACE:
            parts.append(INTERFACES[side])
        elif kind == ipset.MAC:
            parts.append(HARDWARE_ADDRESSES[side])
        else:
            mask = description.options.get("markmask")
            parts.append(Bitwise(Meta("mark"), number(mask), 0) if mask else Meta("mark"))
    return parts[0] if len(parts) == 1 else Concat(tuple(parts))
