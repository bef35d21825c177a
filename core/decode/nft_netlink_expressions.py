"""Rules as the kernel holds them: a list of expressions over registers, executed here with symbols for values.

Each of the sixteen 32-bit registers holds what was loaded there; a comparison or a lookup then reads as the statement
that it is. Source: Linux net/netfilter/nft_*.c for what each expression does, nf_tables.h for its attributes (their
numbers are given with each use, as ``NAME=number``).

The result is brought to one form by `calico_debug.decode.nft_netlink_normal`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from calico_debug.decode import nft_fields
from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode.netlink_attributes import Attributes, number, parse, parse_list, text
from calico_debug.decode.nft_fields import DATA_TYPES, DataType
from calico_debug.decode.nft_json_rules import decode_xt
from calico_debug.decode.nft_netlink_normal import MatchContext, narrow, narrow_set
from calico_debug.decode.nft_netlink_sets import KeyField, SetDescription, decode_verdict
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    ConnectionLimit,
    Constant,
    Counter,
    Ct,
    Fib,
    Harmless,
    Interval,
    Limit,
    Log,
    Lookup,
    MapValue,
    Masquerade,
    Match,
    Meta,
    NamePrefix,
    Nat,
    Notrack,
    Numgen,
    Payload,
    Quota,
    Redirect,
    Reject,
    SetCt,
    SetMeta,
    Shift,
    UnknownExpression,
    UnknownStatement,
    UpdateSet,
    VerdictMap,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from calico_debug.model.nft import Expression, SetContent, SetSource, Statement

MALFORMED = (KeyError, ValueError, IndexError, TypeError, OverflowError)
"""What foreign bytes can raise here; each becomes a statement that says so."""

INTEGER = DATA_TYPES["integer"]


class SetAccess(Protocol):
    """How a rule reaches the sets it names: their descriptions, and the elements of anonymous ones."""

    def describe(self, name: str) -> SetDescription:
        """The set of that name. Raises KeyError when there is none."""

    def content(self, description: SetDescription, fields: Sequence[KeyField]) -> SetContent:
        """The elements, with keys of these fields."""


@dataclass(frozen=True, slots=True)
class Register:
    """What a register and those behind it hold: an expression of ``size`` bytes in ``order``.

    ``raw`` are the bytes of an immediate value; ``part`` counts the fields of a map's data.
    """

    expression: Expression
    type: DataType
    size: int
    order: str
    raw: bytes = b""
    part: int = 0

    @property
    def field(self) -> KeyField:
        """The layout of a value of this expression."""
        return KeyField(self.type, self.size, self.order)

    @property
    def width(self) -> int:
        """Width in bits."""
        return self.size * 8


def slot(register: int) -> int:
    """The first 32-bit slot of a register number: 1 to 4 are the old 128-bit ones, 8 to 23 the slots themselves."""
    if 1 <= register <= 4:
        return (register - 1) * 4
    if 8 <= register <= 23:
        return register - 8
    raise ValueError(f"register {register}")


class RuleMachine:
    """Executes the expressions of one rule; ``statements`` is what the rule does."""

    def __init__(self, family: str, sets: SetAccess) -> None:
        """For a rule of a table of this family."""
        self.statements: list[Statement] = []
        self._family = family
        self._sets = sets
        self._registers: dict[int, Register] = {}
        self._context = MatchContext(family)
        self._last = False

    def run(self, expressions: Sequence[bytes]) -> None:
        """Execute NFTA_RULE_EXPRESSIONS. Never raises: what is not understood becomes an `UnknownStatement`."""
        for position, expression in enumerate(expressions):
            self._last = position == len(expressions) - 1
            name = ""
            before = len(self.statements)
            try:
                outer = parse(expression)
                name = text(outer[1])
                attributes = parse(outer.get(2, b""))
                handler = self._HANDLERS.get(name)
                if handler is None:
                    self._registers.clear()
                    self.statements.append(UnknownStatement(name))
                else:
                    handler(self, attributes)
            except MALFORMED:
                del self.statements[before:]
                self._registers.clear()
                self.statements.append(UnknownStatement(f"{name or 'an expression'} that could not be read"))

    # ----------------------------------------------------------------------------------------------- registers

    def _load(self, register: bytes, value: Register) -> None:
        self._registers[slot(number(register))] = value

    def _read(self, register: bytes) -> Register:
        found = self._registers.get(slot(number(register)))
        if found is None:
            return Register(UnknownExpression("a register that nothing was loaded to"), INTEGER, 4, "big")
        return found

    def _key(self, register: bytes, size: int) -> list[Register]:
        """The registers that make a key of ``size`` bytes."""
        position, parts = slot(number(register)), []
        end = position + -(-size // 4)
        while position < end:
            part = self._registers.get(position)
            if part is None:
                raise ValueError("a key from registers that nothing was loaded to")
            parts.append(part)
            position += -(-part.size // 4)
        return parts

    def _load_unknown(self, attributes: Attributes, register: int, name: str, size: int = 4) -> None:
        self._load(attributes[register], Register(UnknownExpression(name), INTEGER, size, sys.byteorder))

    # ------------------------------------------------------------------------------------------------ loading

    def _immediate(self, attributes: Attributes) -> None:  # DREG=1 DATA=2
        data = parse(attributes[2])
        if 2 in data:
            self.statements.append(decode_verdict(data[2]))
            return
        value = data[1]
        if not 0 < len(value) <= nft.VALUE_BYTES:
            raise ValueError("an immediate value without a size")
        constant = Constant(int.from_bytes(value))
        self._load(attributes[1], Register(constant, DataType("integer", len(value) * 8), len(value), "big", value))

    def _payload(self, attributes: Attributes) -> None:  # DREG=1 BASE=2 OFFSET=3 LEN=4 SREG=5
        size = _size(attributes[4])
        payload = Payload(nft.BASES[number(attributes[2])], number(attributes[3]) * 8, size * 8)
        if 5 in attributes:
            value = self._read(attributes[5])
            self.statements.append(self._context.set_payload(payload, value.expression))
        else:
            self._load(attributes[1], Register(payload, DataType("integer", size * 8), size, "big"))

    def _meta(self, attributes: Attributes) -> None:  # DREG=1 KEY=2 SREG=3
        key = nft.META_KEYS[number(attributes[2])]
        kind = DATA_TYPES[nft_fields.META_TYPES[key]]
        if 3 in attributes:
            value = self._value(attributes[3], kind)
            if key == "nftrace":
                shown = value.value if isinstance(value, Constant) else "…"
                self.statements.append(Harmless(f"meta nftrace set {shown}"))
            else:
                self.statements.append(SetMeta(key, value))
            return
        self._load(attributes[1], _typed(Meta(key), kind))

    def _ct(self, attributes: Attributes) -> None:  # DREG=1 KEY=2 DIRECTION=3 SREG=4
        key = nft.CT_KEYS[number(attributes[2])]
        kind = DATA_TYPES[nft_fields.CT_TYPES[key]]
        if 4 in attributes:
            self.statements.append(SetCt(key, self._value(attributes[4], kind)))
            return
        direction = nft.CT_DIRECTIONS[number(attributes[3])] if 3 in attributes else None
        if key in ("saddr", "daddr"):
            key = f"{'ip6' if self._family == 'ip6' else 'ip'} {key}"
            kind = DATA_TYPES[nft_fields.CT_TYPES[key]]
        self._load(attributes[1], _typed(Ct(key, direction), kind))

    def _fib(self, attributes: Attributes) -> None:  # DREG=1 RESULT=2 FLAGS=3
        result, flags = nft.FIB_RESULTS[number(attributes[2])], number(attributes[3])
        if flags & ~(sum(nft.FIB_FLAGS) | nft.FIB_PRESENT):
            raise ValueError(f"fib flags {flags}")
        selectors = frozenset(name for bit, name in nft.FIB_FLAGS.items() if flags & bit)
        kind = DATA_TYPES[nft_fields.FIB_TYPES[result]]
        present = bool(flags & nft.FIB_PRESENT)
        self._load(attributes[1], _typed(Fib(result, selectors, present), kind))

    def _numgen(self, attributes: Attributes) -> None:  # DREG=1 MODULUS=2 TYPE=3 OFFSET=4
        mode = nft.NUMGEN_MODES[number(attributes[3])]
        numgen = Numgen(mode, number(attributes[2]), number(attributes.get(4, b"")))
        self._load(attributes[1], _typed(numgen, DATA_TYPES["host_integer32"]))

    def _hash(self, attributes: Attributes) -> None:  # DREG=2 TYPE=7
        self._load_unknown(attributes, 2, "symhash" if number(attributes.get(7, b"")) else "jhash")

    def _exthdr(self, attributes: Attributes) -> None:  # DREG=1 TYPE=2 LEN=4 OP=6 SREG=7
        option = number(attributes.get(2, b""))
        if 7 in attributes:
            name = f"tcp option {nft.TCP_OPTIONS.get(option, option)} set"
            # A packet without the option ends the rule, which matters only when something follows.
            self.statements.append(Harmless(name) if self._last else UnknownStatement(name))
        else:
            unknown = UnknownExpression(f"extension header or option {option}")
            self._load(attributes[1], Register(unknown, INTEGER, _size(attributes[4]), "big"))

    def _socket(self, attributes: Attributes) -> None:  # KEY=1 DREG=2
        self._load_unknown(attributes, 2, "socket", 8 if number(attributes[1]) == 3 else 4)

    def _route(self, attributes: Attributes) -> None:  # DREG=1 KEY=2
        self._load_unknown(attributes, 1, "rt", 16 if number(attributes[2]) == 2 else 4)

    def _osf(self, attributes: Attributes) -> None:  # DREG=1
        self._load_unknown(attributes, 1, "osf", 16)

    def _tunnel(self, attributes: Attributes) -> None:  # KEY=1 DREG=2
        self._load_unknown(attributes, 2, "tunnel")

    def _xfrm(self, attributes: Attributes) -> None:  # DREG=1 KEY=2
        self._load_unknown(attributes, 1, "ipsec", 16 if number(attributes[2]) in (2, 4) else 4)

    # -------------------------------------------------------------------------------------------- calculating

    def _bitwise(self, attributes: Attributes) -> None:  # SREG=1 DREG=2 LEN=3 MASK=4 XOR=5 OP=6 DATA=7
        source, operation = self._read(attributes[1]), number(attributes.get(6, b""))
        if operation == 0:
            mask = int.from_bytes(parse(attributes[4])[1], _order(source))
            xor = int.from_bytes(parse(attributes[5])[1], _order(source))
            full = (1 << source.width) - 1
            expression, before_mask, before_xor = source.expression, full, 0
            if isinstance(expression, Bitwise):
                before_mask, before_xor, expression = expression.mask, expression.xor, expression.operand
            mask, xor = before_mask & mask, (before_xor & mask) ^ xor
            if mask != full or xor:
                expression = Bitwise(expression, mask, xor)
        elif operation in (1, 2) and (source.order == sys.byteorder or source.size == 1):
            by = int.from_bytes(parse(attributes[7])[1], sys.byteorder)
            expression = _shifted(source.expression, by if operation == 1 else -by)
            if isinstance(expression, Payload):
                source = replace(source, type=DataType("integer", expression.width))
        else:
            expression = UnknownExpression(f"bitwise operation {operation}")
        self._load(attributes[2], replace(source, expression=expression, raw=b""))

    def _byteorder(self, attributes: Attributes) -> None:  # SREG=1 DREG=2
        source = self._read(attributes[1])
        order = "little" if source.order == "big" else "big"
        self._load(attributes[2], replace(source, order=order) if sys.byteorder == "little" else source)

    # ---------------------------------------------------------------------------------------------- comparing

    def _compare(self, attributes: Attributes) -> None:  # SREG=1 OP=2 DATA=3
        source, operator = self._read(attributes[1]), nft.COMPARISONS[number(attributes[2])]
        data = parse(attributes[3])[1]
        if source.field.is_name:
            wildcard = len(data) < nft.NAME_BYTES and b"\0" not in data
            name = text(data)
            self.statements.append(Match(source.expression, operator, NamePrefix(name) if wildcard else name))
            return
        value, expression = int.from_bytes(data, _order(source)), source.expression
        if isinstance(expression, UnknownExpression):
            self.statements.append(Match(UnknownExpression(f"{expression.text} {operator} {value}"), "==", 1))
            return
        missing = (source.size - len(data)) * 8
        if missing:
            # Only the first bytes are compared, which nft uses for prefixes.
            if missing < 0 or source.order != "big" or operator not in ("==", "!="):
                raise ValueError("a comparison of another size than the value's")
            value <<= missing
            expression = Bitwise(expression, (1 << source.width) - (1 << missing), 0)
        self._context.compare(self.statements, expression, operator, value)

    def _range(self, attributes: Attributes) -> None:  # SREG=1 OP=2 FROM=3 TO=4
        source, operator = self._read(attributes[1]), nft.COMPARISONS[number(attributes[2])]
        order = _order(source)
        low, high = (int.from_bytes(parse(attributes[end])[1], order) for end in (3, 4))
        expression, by = narrow(source.expression, Interval(low, high))
        self.statements.append(Match(expression, operator, by))

    def _lookup(self, attributes: Attributes) -> None:  # SET=1 SREG=2 DREG=3 FLAGS=5
        description = self._sets.describe(text(attributes[1]))
        parts = self._key(attributes[2], description.key_size)
        key, source = self._source(description, parts)
        if 3 not in attributes:
            self.statements.append(Lookup(key, source, bool(number(attributes.get(5, b"")) & 1)))
        elif number(attributes[3]) == 0:
            self.statements.append(VerdictMap(key, source))
        else:
            self._load_map(attributes[3], MapValue(key, source), description)

    def _load_map(self, register: bytes, value: MapValue, description: SetDescription) -> None:
        position = slot(number(register))
        for part, field in enumerate(description.data or (KeyField(INTEGER, 4, "big"),)):
            self._registers[position] = Register(value, field.type, field.size, field.order, part=part)
            position += -(-field.size // 4)

    def _source(self, description: SetDescription, parts: Sequence[Register]) -> tuple[Expression, SetSource]:
        source: SetSource = description.name
        expressions = [part.expression for part in parts]
        if description.anonymous:
            content = self._sets.content(description, [part.field for part in parts])
            expressions, source = narrow_set(expressions, content)
        return expressions[0] if len(expressions) == 1 else Concat(tuple(expressions)), source

    # ------------------------------------------------------------------------------------------------- acting

    def _value(self, register: bytes, kind: DataType) -> Expression:
        """What a statement writes, constants in the byte order of what they are written to."""
        source = self._read(register)
        if source.raw and isinstance(source.expression, Constant):
            return Constant(int.from_bytes(source.raw, sys.byteorder if kind.host_order else "big"))
        return source.expression

    def _counter(self, attributes: Attributes) -> None:  # BYTES=1 PACKETS=2
        self.statements.append(Counter(number(attributes.get(2, b"")), number(attributes.get(1, b""))))

    def _limit(self, attributes: Attributes) -> None:  # RATE=1 UNIT=2 BURST=3 TYPE=4 FLAGS=5
        seconds = number(attributes[2])
        per = nft_fields.LIMIT_PERIODS.get(seconds, f"{seconds} seconds")
        unit = "bytes" if number(attributes.get(4, b"")) else "packets"
        over = bool(number(attributes.get(5, b"")) & 1)
        self.statements.append(Limit(number(attributes[1]), per, unit, over, number(attributes.get(3, b""))))

    def _quota(self, attributes: Attributes) -> None:  # BYTES=1 FLAGS=2
        self.statements.append(Quota(number(attributes[1]), bool(number(attributes.get(2, b"")) & 1)))

    def _connection_limit(self, attributes: Attributes) -> None:  # COUNT=1 FLAGS=2
        self.statements.append(ConnectionLimit(number(attributes[1]), bool(number(attributes.get(2, b"")) & 1)))

    def _log(self, attributes: Attributes) -> None:  # GROUP=1 PREFIX=2
        prefix = text(attributes[2]) if 2 in attributes else ""
        self.statements.append(Log(prefix, number(attributes[1]) if 1 in attributes else None))

    def _object(self, attributes: Attributes) -> None:  # TYPE=1 NAME=2 SET_SREG=3 SET_NAME=4
        if 4 in attributes:
            description = self._sets.describe(text(attributes[4]))
            if description.object_type != nft.OBJECT_COUNTER:
                self.statements.append(UnknownStatement("an object chosen by a map"))
                return
            key, source = self._source(description, self._key(attributes[3], description.key_size))
            # A key without an element ends the rule (nft_objref.c); which object counts changes nothing.
            self.statements.append(Lookup(key, source))
            self.statements.append(Harmless("counter chosen by a map"))
            return
        name = text(attributes[2])
        make = _OBJECTS.get(number(attributes[1]))
        self.statements.append(make(name) if make else UnknownStatement(f"object {name}"))

    def _ends(self, attributes: Attributes, low: int, high: int) -> tuple[Register | None, Register | None]:
        # The kernel reports a missing upper end as the lower one's register.
        if low not in attributes:
            return None, None
        if attributes.get(high, attributes[low]) == attributes[low]:
            return self._read(attributes[low]), None
        return self._read(attributes[low]), self._read(attributes[high])

    def _nat(self, attributes: Attributes) -> None:  # TYPE=1 ADDR_MIN=3 ADDR_MAX=4 PROTO_MIN=5 PROTO_MAX=6 FLAGS=7
        kind = nft.NAT_KINDS[number(attributes[1])]
        address, address_max = self._ends(attributes, 3, 4)
        port, port_max = self._ends(attributes, 5, 6)
        netmap = number(attributes.get(7, b"")) & nft.NAT_NETMAP
        if netmap or (address_max and isinstance(address_max.expression, MapValue)):
            self.statements.append(UnknownStatement(f"{kind} to ranges of a map"))
            return
        if address and port and isinstance(port.expression, MapValue) and port.part:
            # One lookup gives address and port together.
            port = None
        ends = (_expression(end) for end in (address, address_max, port, port_max))
        self.statements.append(Nat(kind, *ends))

    def _masquerade(self, attributes: Attributes) -> None:  # PROTO_MIN=2 PROTO_MAX=3
        self.statements.append(Masquerade(*(_expression(end) for end in self._ends(attributes, 2, 3))))

    def _redirect(self, attributes: Attributes) -> None:  # PROTO_MIN=1 PROTO_MAX=2
        self.statements.append(Redirect(*(_expression(end) for end in self._ends(attributes, 1, 2))))

    def _reject(self, attributes: Attributes) -> None:  # TYPE=1 CODE=2
        kind, code = number(attributes[1]), number(attributes.get(2, b""))
        if kind == nft.REJECT_RESET:
            self.statements.append(Reject("tcp reset"))
            return
        network = self._context.network
        name = "icmpx" if kind == nft.REJECT_ICMPX else {"ip": "icmp", "ip6": "icmpv6"}[network]
        self.statements.append(Reject(name, nft_fields.REJECT_CODES[name].get(code, str(code))))

    def _notrack(self, _: Attributes) -> None:
        self.statements.append(Notrack())

    def _update_set(self, attributes: Attributes) -> None:  # SET=1 OP=3 KEY=4 EXPR=7 EXPRESSIONS=10
        description = self._sets.describe(text(attributes[1]))
        parts = [part.expression for part in self._key(attributes[4], description.key_size)]
        key = parts[0] if len(parts) == 1 else Concat(tuple(parts))
        bodies = [attributes[7]] if 7 in attributes else [body for _, body in parse_list(attributes.get(10, b""))]
        operation = nft.DYNSET_OPERATIONS[number(attributes[3])]
        self.statements.append(UpdateSet(operation, key, description.name, tuple(map(decode_stateful, bodies))))

    def _flow_offload(self, attributes: Attributes) -> None:  # TABLE_NAME=1
        self.statements.append(Harmless(f"flow @{text(attributes[1])}"))

    def _harmless(self, name: str) -> None:
        self.statements.append(Harmless(name))

    def _duplicate(self, _: Attributes) -> None:
        self._harmless("dup")

    def _last_use(self, _: Attributes) -> None:
        self._harmless("last")

    def _xt_match(self, attributes: Attributes) -> None:  # NAME=1
        self.statements.append(decode_xt("match", text(attributes[1])))

    def _xt_target(self, attributes: Attributes) -> None:  # NAME=1
        self.statements.append(decode_xt("target", text(attributes[1])))

    _HANDLERS: ClassVar[Mapping[str, Callable[[RuleMachine, Attributes], None]]] = {
        "immediate": _immediate,
        "payload": _payload,
        "meta": _meta,
        "ct": _ct,
        "fib": _fib,
        "numgen": _numgen,
        "hash": _hash,
        "exthdr": _exthdr,
        "socket": _socket,
        "rt": _route,
        "osf": _osf,
        "tunnel": _tunnel,
        "xfrm": _xfrm,
        "bitwise": _bitwise,
        "byteorder": _byteorder,
        "cmp": _compare,
        "range": _range,
        "lookup": _lookup,
        "counter": _counter,
        "limit": _limit,
        "quota": _quota,
        "connlimit": _connection_limit,
        "log": _log,
        "objref": _object,
        "nat": _nat,
        "masq": _masquerade,
        "redir": _redirect,
        "reject": _reject,
        "notrack": _notrack,
        "dynset": _update_set,
        "flow_offload": _flow_offload,
        "dup": _duplicate,
        "last": _last_use,
        "match": _xt_match,
        "target": _xt_target,
    }


_OBJECTS: Mapping[int, Callable[[str], Statement]] = {
    nft.OBJECT_COUNTER: lambda name: Counter(name=name),
    nft.OBJECT_QUOTA: lambda name: Quota(0, name=name),
    nft.OBJECT_LIMIT: lambda name: Limit(0, "", name=name),
    nft.OBJECT_CT_HELPER: lambda name: Harmless(f"ct helper {name}"),
    nft.OBJECT_CT_TIMEOUT: lambda name: Harmless(f"ct timeout {name}"),
    nft.OBJECT_CT_EXPECTATION: lambda name: Harmless(f"ct expectation {name}"),
}


class _NoSets:
    """Stateful expressions name no sets."""

    def describe(self, name: str) -> SetDescription:
        raise KeyError(name)

    def content(self, description: SetDescription, fields: Sequence[KeyField]) -> SetContent:
        raise KeyError(description.name, len(fields))


def decode_stateful(expression: bytes) -> Statement:
    """An expression that an element of a set carries, or that a rule runs for one it adds."""
    machine = RuleMachine("inet", _NoSets())
    machine.run([expression])
    return machine.statements[0] if len(machine.statements) == 1 else UnknownStatement("an expression of an element")


def _size(data: bytes) -> int:
    size = number(data)
    if not 0 < size <= nft.VALUE_BYTES:
        raise ValueError(f"a value of {size} bytes")
    return size


def _typed(expression: Expression, kind: DataType) -> Register:
    size = nft.NAME_BYTES if not kind.width else (kind.width + 7) // 8
    return Register(expression, kind, size, sys.byteorder if kind.host_order else "big")


def _expression(register: Register | None) -> Expression | None:
    return register.expression if register else None


def _order(register: Register) -> Literal["little", "big"]:
    return "little" if register.order == "little" else "big"


def _shifted(operand: Expression, by: int) -> Expression:
    if isinstance(operand, Bitwise):
        field, _ = narrow(operand, 0)
        if isinstance(field, Payload) and by == -(-(field.offset + field.width) % 8):
            return field
    return Shift(operand, by)
