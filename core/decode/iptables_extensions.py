"""What reading any extension of iptables needs: options, their values, and what a rule tells its extensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from calico_debug.decode import iptables_symbols as symbols
from calico_debug.decode.iptables_symbols import number
from calico_debug.model.nft import Interval, Match, NamePrefix, Payload, Statement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.decode.iptables_sets import SetDirectory
    from calico_debug.model.nft import Expression

TRAFFIC_CLASS = {"ip": Payload("network", 8, 8), "ip6": Payload("network", 4, 8)}
"""DSCP and ECN."""
DSCP = {"ip": Payload("network", 8, 6), "ip6": Payload("network", 4, 6)}
HOP_LIMIT = {"ip": Payload("network", 64, 8), "ip6": Payload("network", 56, 8)}


class Option(NamedTuple):
    """``! --name value …``"""

    name: str
    values: tuple[str, ...]
    negated: bool

    @property
    def value(self) -> str:
        """The only value."""
        return self.values[0]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a match needs to know of its rule: nft's family, the protocol of a plain ``-p``, and the node's sets."""

    family: str
    protocol: int | None
    sets: SetDirectory


class Extension(NamedTuple):
    """How to read a match: the number of values of each option, and what the options amount to."""

    arity: Mapping[str, int]
    decode: Callable[[Sequence[Option], Setting], list[Statement]]


def equal(left: Expression, right: int | str | NamePrefix | Interval, negated: bool) -> Match:
    """``left == right``, or its opposite."""
    return Match(left, "!=" if negated else "==", right)


def span(text: str, largest: int = symbols.LARGEST_PORT, separator: str = ":") -> tuple[int, int]:
    """ "80", "80:90", "80:" or ":90"."""
    low, colon, high = text.partition(separator)
    if not colon:
        return number(low, largest), number(low, largest)
    return number(low or "0", largest), number(high, largest) if high else largest


def mark_and_mask(text: str) -> tuple[int, int]:
    """ "0x1/0xff" or "0x1", which has every bit in its mask."""
    value, slash, mask = text.partition("/")
    return number(value), number(mask) if slash else symbols.WHOLE_MARK
