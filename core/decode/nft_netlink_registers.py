"""The registers of the nf_tables machine: loading them from the packet and elsewhere, and calculating in them.

Each of the sixteen 32-bit registers holds what was loaded there, as an expression. Source: Linux net/netfilter/nft_*.c
for what each expression does, nf_tables.h for its attributes (their numbers stand with each use, as ``NAME=number``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from calico_debug.decode import nft_fields
from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode.netlink_attributes import Attributes, number, parse
from calico_debug.decode.nft_fields import DATA_TYPES, DataType
from calico_debug.decode.nft_netlink_normal import MatchContext, narrow
from calico_debug.decode.nft_netlink_sets import KeyField, decode_verdict
from calico_debug.model.nft import (
    Bitwise,
    Constant,
    Ct,
    Fib,
    Harmless,
    Meta,
    Numgen,
    Payload,
    SetCt,
    SetMeta,
    Shift,
    UnknownExpression,
    UnknownStatement,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calico_debug.model.nft import Expression, Statement

INTEGER = DATA_TYPES["integer"]


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


class RegisterMachine:
    """Executes the expressions that load registers, or write from one; ``statements`` collects what a rule does."""

    def __init__(self, family: str) -> None:
        """For a rule of a table of this family."""
        self.statements: list[Statement] = []
        self.family = family
        self.registers: dict[int, Register] = {}
        self.context = MatchContext(family)
        self.is_last = False

    # ----------------------------------------------------------------------------------------------- registers

    def _load(self, register: bytes, value: Register) -> None:
        self.registers[slot(number(register))] = value

    def read(self, register: bytes) -> Register:
        """What a register holds; an `UnknownExpression` when nothing was loaded to it."""
        found = self.registers.get(slot(number(register)))
        if found is None:
            return Register(UnknownExpression("a register that nothing was loaded to"), INTEGER, 4, "big")
        return found

    def key(self, register: bytes, size: int) -> list[Register]:
        """The registers that make a key of ``size`` bytes."""
        position, parts = slot(number(register)), []
        end = position + -(-size // 4)
        while position < end:
            part = self.registers.get(position)
            if part is None:
                raise ValueError("a key from registers that nothing was loaded to")
            parts.append(part)
            position += -(-part.size // 4)
        return parts

    def _load_unknown(self, attributes: Attributes, register: int, name: str, size: int = 4) -> None:
        self._load(attributes[register], Register(UnknownExpression(name), INTEGER, size, sys.byteorder))

    def value(self, register: bytes, kind: DataType) -> Expression:
        """What a statement writes, constants in the byte order of what they are written to."""
        source = self.read(register)
        if source.raw and isinstance(source.expression, Constant):
            return Constant(int.from_bytes(source.raw, sys.byteorder if kind.host_order else "big"))
        return source.expression

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
            value = self.read(attributes[5])
            self.statements.append(self.context.set_payload(payload, value.expression))
        else:
            self._load(attributes[1], Register(payload, DataType("integer", size * 8), size, "big"))

    def _meta(self, attributes: Attributes) -> None:  # DREG=1 KEY=2 SREG=3
        key = nft.META_KEYS[number(attributes[2])]
        kind = DATA_TYPES[nft_fields.META_TYPES[key]]
        if 3 in attributes:
            value = self.value(attributes[3], kind)
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
            self.statements.append(SetCt(key, self.value(attributes[4], kind)))
            return
        direction = nft.CT_DIRECTIONS[number(attributes[3])] if 3 in attributes else None
        if key in ("saddr", "daddr"):
            key = f"{'ip6' if self.family == 'ip6' else 'ip'} {key}"
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
            self.statements.append(Harmless(name) if self.is_last else UnknownStatement(name))
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
        source, operation = self.read(attributes[1]), number(attributes.get(6, b""))
        if operation == 0:
            mask = int.from_bytes(parse(attributes[4])[1], byte_order(source))
            xor = int.from_bytes(parse(attributes[5])[1], byte_order(source))
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
        source = self.read(attributes[1])
        order = "little" if source.order == "big" else "big"
        self._load(attributes[2], replace(source, order=order) if sys.byteorder == "little" else source)

    LOADS: ClassVar[Mapping[str, Callable[[RegisterMachine, Attributes], None]]] = {
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
    }


def _size(data: bytes) -> int:
    size = number(data)
    if not 0 < size <= nft.VALUE_BYTES:
        raise ValueError(f"a value of {size} bytes")
    return size


def _typed(expression: Expression, kind: DataType) -> Register:
    size = nft.NAME_BYTES if not kind.width else (kind.width + 7) // 8
    return Register(expression, kind, size, sys.byteorder if kind.host_order else "big")


def byte_order(register: Register) -> Literal["little", "big"]:
    """The byte order of what a register holds, as ``int.from_bytes`` takes it."""
    return "little" if register.order == "little" else "big"


def _shifted(operand: Expression, by: int) -> Expression:
    if isinstance(operand, Bitwise):
        field, _ = narrow(operand, 0)
        if isinstance(field, Payload) and by == -(-(field.offset + field.width) % 8):
            return field
    return Shift(operand, by)
