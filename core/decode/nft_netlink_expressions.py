"""Rules as the kernel holds them: a list of expressions over registers, executed here with symbols for values.

Each of the sixteen 32-bit registers holds what was loaded there; a comparison or a lookup then reads as the statement
that it is. Source: Linux net/netfilter/nft_*.c for what each expression does, nf_tables.h for its attributes (their
numbers are given with each use, as ``NAME=number``).

The result is brought to one form by `calico_debug.decode.nft_netlink_normal`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode import nft_symbols
from calico_debug.decode.netlink_attributes import Attributes, number, parse, parse_list, text
from calico_debug.decode.nft_json_rules import decode_xt
from calico_debug.decode.nft_netlink_normal import narrow, narrow_key, narrow_set
from calico_debug.decode.nft_netlink_registers import INTEGER, Register, RegisterMachine, byte_order, slot
from calico_debug.decode.nft_netlink_sets import KeyField, SetDescription
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    ConnectionLimit,
    Counter,
    Harmless,
    Interval,
    Limit,
    Log,
    Lookup,
    MapValue,
    Masquerade,
    Match,
    NamePrefix,
    Nat,
    Notrack,
    Quota,
    Redirect,
    Reject,
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


class SetAccess(Protocol):
    """How a rule reaches the sets it names: their descriptions, and the elements of anonymous ones."""

    def describe(self, name: str) -> SetDescription:
        """The set of that name. Raises KeyError when there is none."""

    def content(self, description: SetDescription, fields: Sequence[KeyField]) -> SetContent:
        """The elements, with keys of these fields."""


class RuleMachine(RegisterMachine):
    """Executes the expressions of one rule; ``statements`` is what the rule does."""

    def __init__(self, family: str, sets: SetAccess) -> None:
        """For a rule of a table of this family."""
        super().__init__(family)
        self._sets = sets

    def run(self, expressions: Sequence[bytes]) -> None:
        """Execute NFTA_RULE_EXPRESSIONS. Never raises: what is not understood becomes an `UnknownStatement`."""
        for position, expression in enumerate(expressions):
            self.is_last = position == len(expressions) - 1
            name = ""
            before = len(self.statements)
            try:
                outer = parse(expression)
                name = text(outer[1])
                attributes = parse(outer.get(2, b""))
                handler = self._HANDLERS.get(name) or self.LOADS.get(name)
                if handler is None:
                    self.registers.clear()
                    self.statements.append(UnknownStatement(name))
                else:
                    handler(self, attributes)
            except MALFORMED:
                del self.statements[before:]
                self.registers.clear()
                self.statements.append(UnknownStatement(f"{name or 'an expression'} that could not be read"))

    # ---------------------------------------------------------------------------------------------- comparing

    def _compare(self, attributes: Attributes) -> None:  # SREG=1 OP=2 DATA=3
        source, operator = self.read(attributes[1]), nft.COMPARISONS[number(attributes[2])]
        data = parse(attributes[3])[1]
        if source.field.is_name:
            wildcard = len(data) < nft.NAME_BYTES and b"\0" not in data
            name = text(data)
            self.statements.append(Match(source.expression, operator, NamePrefix(name) if wildcard else name))
            return
        value, expression = int.from_bytes(data, byte_order(source)), source.expression
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
        self.context.compare(self.statements, expression, operator, value)

    def _range(self, attributes: Attributes) -> None:  # SREG=1 OP=2 FROM=3 TO=4
        source, operator = self.read(attributes[1]), nft.COMPARISONS[number(attributes[2])]
        order = byte_order(source)
        low, high = (int.from_bytes(parse(attributes[end])[1], order) for end in (3, 4))
        expression, by = narrow(source.expression, Interval(low, high))
        self.statements.append(Match(expression, operator, by))

    def _lookup(self, attributes: Attributes) -> None:  # SET=1 SREG=2 DREG=3 FLAGS=5
        description = self._sets.describe(text(attributes[1]))
        parts = self.key(attributes[2], description.key_size)
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
            self.registers[position] = Register(value, field.type, field.size, field.order, part=part)
            position += -(-field.size // 4)

    def _source(self, description: SetDescription, parts: Sequence[Register]) -> tuple[Expression, SetSource]:
        source: SetSource = description.name
        expressions = [part.expression for part in parts]
        if description.anonymous:
            content = self._sets.content(description, [part.field for part in parts])
            expressions, source = narrow_set(expressions, content)
        else:
            expressions = [narrow_key(expression) for expression in expressions]
        return expressions[0] if len(expressions) == 1 else Concat(tuple(expressions)), source

    # ------------------------------------------------------------------------------------------------- acting

    def _counter(self, attributes: Attributes) -> None:  # BYTES=1 PACKETS=2
        self.statements.append(Counter(number(attributes.get(2, b"")), number(attributes.get(1, b""))))

    def _limit(self, attributes: Attributes) -> None:  # RATE=1 UNIT=2 BURST=3 TYPE=4 FLAGS=5
        seconds = number(attributes[2])
        per = nft_symbols.LIMIT_PERIODS.get(seconds, f"{seconds} seconds")
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
            key, source = self._source(description, self.key(attributes[3], description.key_size))
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
            return self.read(attributes[low]), None
        return self.read(attributes[low]), self.read(attributes[high])

    def _nat(self, attributes: Attributes) -> None:
        # TYPE=1 FAMILY=2 ADDR_MIN=3 ADDR_MAX=4 PROTO_MIN=5 PROTO_MAX=6 FLAGS=7
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
        version = {2: 4, 10: 6}.get(number(attributes[2]), 0) if 2 in attributes else 0  # NFPROTO_IPV4, _IPV6
        low, high = _expression(address), _expression(address_max)
        self.statements.append(Nat(kind, low, high, _expression(port), _expression(port_max), version))

    def _masquerade(self, attributes: Attributes) -> None:  # PROTO_MIN=2 PROTO_MAX=3
        self.statements.append(Masquerade(*(_expression(end) for end in self._ends(attributes, 2, 3))))

    def _redirect(self, attributes: Attributes) -> None:  # PROTO_MIN=1 PROTO_MAX=2
        self.statements.append(Redirect(*(_expression(end) for end in self._ends(attributes, 1, 2))))

    def _reject(self, attributes: Attributes) -> None:  # TYPE=1 CODE=2
        kind, code = number(attributes[1]), number(attributes.get(2, b""))
        if kind == nft.REJECT_RESET:
            self.statements.append(Reject("tcp reset"))
            return
        network = self.context.network
        name = "icmpx" if kind == nft.REJECT_ICMPX else {"ip": "icmp", "ip6": "icmpv6"}[network]
        self.statements.append(Reject(name, nft_symbols.REJECT_CODES[name].get(code, str(code))))

    def _notrack(self, _: Attributes) -> None:
        self.statements.append(Notrack())

    def _update_set(self, attributes: Attributes) -> None:  # SET=1 OP=3 KEY=4 EXPR=7 EXPRESSIONS=10
        description = self._sets.describe(text(attributes[1]))
        parts = [narrow_key(part.expression) for part in self.key(attributes[4], description.key_size)]
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


def _expression(register: Register | None) -> Expression | None:
    return register.expression if register else None
