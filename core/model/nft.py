"""nf_tables rules as the kernel evaluates them, independent of where they were read.

Two decoders produce these types, one from ``nft -j list ruleset`` and one from nf_tables netlink messages, and a test
compares them rule by rule on a real kernel. What nft leaves out of a listing because it is implied (the ``meta
l4proto tcp`` before ``tcp dport 80``) is present here, as it is in the kernel.

Conventions for values (see `calico_debug.model.values`):

* packet fields, addresses, ports, protocols: the unsigned integer of the field's bits in network order;
* meta and ct fields of host byte order (mark, ct state, …): the integer itself;
* interface names: ``str``; a trailing wildcard is `NamePrefix`, never a ``*`` in the string;
* a concatenation: a tuple with one value per field.

Source for semantics: Linux net/netfilter/nft_*.c; for names: nft(8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

# --------------------------------------------------------------------------------------------------- expressions


@dataclass(frozen=True, slots=True)
class Payload:
    """``width`` bits of the packet, ``offset`` bits after ``base`` ("link", "network", "transport", "inner").

    Base "ipset" is what ipset takes for ports (ip_set_getport.c): source and destination, 16 bits each; of ICMP, type
    and code at both places; 0 of protocols that have neither.
    """

    base: str
    offset: int
    width: int


@dataclass(frozen=True, slots=True)
class Meta:
    """Metadata of the packet: mark, l4proto, nfproto, iifname, oifname, iif, oif, iiftype, pkttype, skuid, …"""

    key: str


@dataclass(frozen=True, slots=True)
class Ct:
    """Conntrack data: state and status (bit masks of the kernel), mark, direction, "original saddr", …

    "state and translation" is iptables' alone: the state with the status bits snat and dnat shifted by 8 (xt_conntrack
    takes both for states), and a value for every packet, as state has.
    """

    key: str
    direction: str | None = None


@dataclass(frozen=True, slots=True)
class Fib:
    """A routing lookup: ``result`` is "oif" (index, 0 when there is none), "oifname" or "type".

    ``selectors`` name the inputs: saddr or daddr, with mark, iif, oif. ``present`` asks only whether a route exists.
    """

    result: str
    selectors: frozenset[str]
    present: bool = False


@dataclass(frozen=True, slots=True)
class Numgen:
    """A number the kernel picks, ``offset`` ≤ n < ``offset + modulus``; ``mode`` is "random" or "inc"."""

    mode: str
    modulus: int
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Bitwise:
    """``(operand & mask) ^ xor``: what nf_tables makes of every combination of &, | and ^ with constants."""

    operand: Expression
    mask: int
    xor: int


@dataclass(frozen=True, slots=True)
class Shift:
    """``operand`` shifted ``by`` bits; a positive number shifts left, a negative one right."""

    operand: Expression
    by: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A value written in the rule."""

    value: int | str


@dataclass(frozen=True, slots=True)
class Concat:
    """Several expressions as one key."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class MapValue:
    """The data that a map has for a key; a key without an element ends the rule."""

    key: Expression
    source: SetSource


@dataclass(frozen=True, slots=True)
class UnknownExpression:
    """An expression this version cannot evaluate; ``text`` shows it to the user. Its value is open."""

    text: str


Expression = Payload | Meta | Ct | Fib | Numgen | Bitwise | Shift | Constant | Concat | MapValue | UnknownExpression

# ---------------------------------------------------------------------------------------------------------- sets


@dataclass(frozen=True, slots=True)
class NamePrefix:
    """Interface names that begin with ``prefix`` (``iifname "cali*"``)."""

    prefix: str


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends belong to the interval."""

    low: int
    high: int


Scalar = int | str | NamePrefix | Interval
"""One field of an element: exact, or a range of values."""

Key = Scalar | tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its key, the data of a map (a `Verdict` or a value), and stateful expressions it carries."""

    key: Key
    data: Verdict | int | str | tuple[int | str, ...] | None = None
    comment: str = ""
    statements: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class SetContent:
    """The elements of a set, a map or an anonymous set, exact keys apart from those with a range in them.

    ``exact`` maps a fully exact key to its element; ``ranged`` holds the others, in no order; ``default`` is the
    catch-all element (``*``). ``widths`` gives each field's size in bits (0 for names).
    """

    widths: tuple[int, ...]
    exact: Mapping[int | str | tuple[int | str, ...], Element]
    ranged: tuple[Element, ...] = ()
    default: Element | None = None
    is_map: bool = False


SetSource = str | SetContent
"""A set's name, read on demand from its table, or the content written in the rule itself."""

# ---------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Verdict:
    """One of "accept", "drop", "continue", "return", "queue", or "jump" and "goto" with a chain."""

    kind: str
    chain: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """The rule goes on when ``left operator right``; operators are ==, !=, <, >, <=, >=.

    With an `Interval` only == (inside) and != (outside) occur.
    """

    left: Expression
    operator: str
    right: int | str | NamePrefix | Interval


@dataclass(frozen=True, slots=True)
class Lookup:
    """The rule goes on when ``key`` is in the set, or when it is not and ``negated``."""

    key: Expression
    source: SetSource
    negated: bool = False


@dataclass(frozen=True, slots=True)
class VerdictMap:
    """The verdict that the map has for ``key``; none ends the rule."""

    key: Expression
    source: SetSource


@dataclass(frozen=True, slots=True)
class Counter:
    """Packets and bytes that came this far in the rule, None where the listing was made without them.

    ``name`` is set for a counter object of the table.
    """

    packets: int | None = field(default=0, compare=False)
    bytes: int | None = field(default=0, compare=False)
    name: str = ""


@dataclass(frozen=True, slots=True)
class Log:
    """Log the packet; ``group`` is an NFLOG group, None for the kernel's log."""

    prefix: str = ""
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A token bucket: the rule goes on while below ``rate`` per ``per`` ("second", …), or above it when ``over``.

    ``unit`` is "packets" or "bytes" ("kbytes" … are decoded to bytes). ``name`` is set for a limit object.
    """

    rate: int
    per: str
    unit: str = "packets"
    over: bool = False
    burst: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Quota:
    """The rule goes on until ``bytes`` were used, or from then on when ``over``."""

    bytes: int
    over: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class ConnectionLimit:
    """The rule goes on while there are at most ``count`` connections, or from more on when ``over``."""

    count: int
    over: bool = False


@dataclass(frozen=True, slots=True)
class Recent:
    """The rule goes on if the list ``name`` has the address, or if not when ``negated`` (xt_recent of iptables).

    ``operation`` is "set", which puts it there and always goes on, "check", "update" or "remove". The address was seen
    in the last ``seconds`` (0 for ever), ``hits`` times at least, with the packet's own time to live if ``same_ttl``.
    """

    name: str
    operation: str
    address: Expression
    negated: bool = False
    seconds: int = 0
    hits: int = 0
    same_ttl: bool = False


@dataclass(frozen=True, slots=True)
class SetMeta:
    """Write a meta field, in practice the mark."""

    key: str
    value: Expression


@dataclass(frozen=True, slots=True)
class SetCt:
    """Write a conntrack field, in practice the connection's mark."""

    key: str
    value: Expression


@dataclass(frozen=True, slots=True)
class SetPayload:
    """Rewrite bits of the packet (DSCP, for one)."""

    target: Payload
    value: Expression


@dataclass(frozen=True, slots=True)
class Nat:
    """Set up address translation of the connection: ``kind`` is "dnat" or "snat".

    ``address`` and ``port`` are None when they stay; the ``_max`` fields are set when the rule gives a range. An
    ``address`` that is looked up in a map may hold the port as well, as a pair. ``version`` is that of the addresses, 4
    or 6, 0 when the rule gives none: in family inet, packets of the other version pass such a rule untouched.
    """

    kind: str
    address: Expression | None = None
    address_max: Expression | None = None
    port: Expression | None = None
    port_max: Expression | None = None
    version: int = 0


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Source translation to the address of the outgoing interface."""

    port: Expression | None = None
    port_max: Expression | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Destination translation to the host itself."""

    port: Expression | None = None
    port_max: Expression | None = None


@dataclass(frozen=True, slots=True)
class Reject:
    """Drop, and answer: ``kind`` is "icmp", "icmpv6", "icmpx" or "tcp reset"; ``code`` is nft's name for it."""

    kind: str
    code: str = ""


@dataclass(frozen=True, slots=True)
class Notrack:
    """Keep conntrack from seeing the packet."""


@dataclass(frozen=True, slots=True)
class UpdateSet:
    """Add to, update or delete from a set (``add @s { ip saddr }``); ``statements`` run for the element."""

    operation: str
    key: Expression
    set_name: str
    statements: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class Harmless:
    """A statement that cannot change what happens to this packet (meta nftrace set, dup, flow offload …)."""

    text: str


@dataclass(frozen=True, slots=True)
class UnknownStatement:
    """A statement this version cannot evaluate, such as an xt match of iptables-nft; ``text`` shows it."""

    text: str


Statement = (
    Verdict
    | Match
    | Lookup
    | VerdictMap
    | Counter
    | Log
    | Limit
    | Quota
    | ConnectionLimit
    | Recent
    | SetMeta
    | SetCt
    | SetPayload
    | Nat
    | Masquerade
    | Redirect
    | Reject
    | Notrack
    | UpdateSet
    | Harmless
    | UnknownStatement
)

# ------------------------------------------------------------------------------------------------ rules and chains


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule. Two rules with the same statements are still two rules, so rules compare by identity."""

    family: str
    table: str
    chain: str
    handle: int
    statements: tuple[Statement, ...]
    comment: str = ""

    @property
    def counter(self) -> Counter | None:
        """The rule's own counter, if it has one."""
        return next((s for s in self.statements if isinstance(s, Counter)), None)


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a base chain is attached. ``type`` is "filter", "nat" or "route"; a lower ``priority`` runs earlier.

    ``devices`` restricts ingress and egress hooks of family netdev.
    """

    type: str
    hook: str
    priority: int
    policy: str = "accept"
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """A chain without its rules; ``hook`` is None for a chain that is only jumped to."""

    family: str
    table: str
    name: str
    handle: int
    hook: Hook | None = None


class Ruleset(Protocol):
    """Everything nf_tables holds in one network namespace, read as it is asked for.

    Every method may raise `calico_debug.errors.EvidenceError`. Families are nft's names: ip, ip6, inet, arp, bridge,
    netdev.
    """

    def tables(self) -> Sequence[tuple[str, str]]:
        """(family, table) of every table, in the order they were created."""

    def base_chains(self) -> Sequence[Chain]:
        """The chains that are attached to a hook, in the order they were created as far as that is known."""

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        """The rules of a chain in order, None when there is no such chain."""

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        """The content of a named set or map, None when there is none of that name."""

    def find(self, family: str, table: str, name: str, key: int | str | tuple[int | str, ...]) -> Element | None:
        """The element that a fully known key meets, the catch-all included; None when there is none.

        Raises `MissingEvidence` when the table has no such set.
        """
