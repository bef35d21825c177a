"""Statements compiled to functions of the walk's context.

A compiled statement returns None or True to go on with the rule, False to end it, `Unsure` when both are possible, or
a verdict. Source: Linux net/netfilter/nft_*.c, nf_tables_core.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from calico_debug.errors import MissingEvidence
from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.nft import (
    ConnectionLimit,
    Counter,
    Element,
    Expression,
    Harmless,
    Limit,
    Log,
    Lookup,
    MapValue,
    Masquerade,
    Match,
    Nat,
    Notrack,
    Quota,
    Recent,
    Redirect,
    Reject,
    Rule,
    Ruleset,
    SetContent,
    SetCt,
    SetMeta,
    SetPayload,
    SetSource,
    Statement,
    UnknownStatement,
    UpdateSet,
    Verdict,
    VerdictMap,
)
from calico_debug.model.values import Drawn, Partial, Value, unknown
from calico_debug.state.ruleset import ElementIndex, LookupKey
from calico_debug.walk.choices import Kind, Unsure
from calico_debug.walk.compare import Answer, candidates, compare
from calico_debug.walk.expressions import Evaluator, compile_expression
from calico_debug.walk.packet import Tracking
from calico_debug.walk.recent import compile_recent
from calico_debug.walk.translations import compile_translation

if TYPE_CHECKING:
    from calico_debug.walk.context import Context

Outcome = None | bool | Unsure | Verdict | Reject
Operation = Callable[["Context"], Outcome]

UNTRACKED = STATE_BITS["untracked"]


class StatementCompiler:
    """Compiles the statements of one table's rules."""

    def __init__(self, ruleset: Ruleset, family: str, table: str) -> None:
        """Sets are looked up in ``ruleset``, in this table, when a packet asks for them."""
        self._ruleset = ruleset
        self._family = family
        self._table = table
        self._inline: dict[int, ElementIndex] = {}

    def compile(self, statement: Statement, rule: Rule) -> Operation:
        """The function for one statement of ``rule``."""
        match statement:
            case Verdict("continue"):
                return lambda _context: None
            case Verdict():
                return lambda _context: statement
            case Match():
                return self._match(statement)
            case Lookup(key, source, negated):
                return self._lookup(key, source, negated)
            case VerdictMap(key, source):
                return self._verdict_map(key, source)
            case Counter():
                return lambda context: context.trace.counted.append(rule)
            case Log() | Harmless():
                return lambda _context: None
            case Limit() | Quota() | ConnectionLimit():
                doubt = Unsure(Kind.RATE, describe_limit(statement))
                return lambda _context: doubt
            case Recent(address=address):
                return compile_recent(statement, self._expression(address), rule)
            case SetMeta(key, value):
                return self._set_meta(key, value)
            case SetCt(key, value):
                return self._set_ct(key, value)
            case SetPayload(target, value):
                evaluate = self._expression(value)
                return lambda context: _overwrite(context, target.base, target.offset, target.width, evaluate(context))
            case Nat() | Masquerade() | Redirect():
                return compile_translation(statement, rule, self._expression)
            case Reject():
                return lambda _context: statement
            case Notrack():
                return _notrack
            case UpdateSet(operation, key, name, statements):
                return self._update(operation, key, name, tuple(self.compile(inner, rule) for inner in statements))
            case UnknownStatement(text):
                open_end = Unsure(Kind.UNKNOWN, f"{text} is not understood")
                return lambda _context: open_end

    def _expression(self, expression: Expression) -> Evaluator:
        return compile_expression(expression, self._map_value)

    # ---------------------------------------------------------------------------------------------------- matches

    def _match(self, statement: Match) -> Operation:
        evaluate, sign, right = self._expression(statement.left), statement.operator, statement.right
        if isinstance(right, int) and sign in ("==", "!="):
            wanted = sign == "=="

            def equal(context: Context) -> Outcome:
                value = evaluate(context)
                if value.__class__ is int:
                    return (value == right) is wanted
                return _compare(value, sign, right)

            return equal
        return lambda context: _compare(evaluate(context), sign, right)

    def _lookup(self, key: Expression, source: SetSource, negated: bool) -> Operation:
        evaluate = self._expression(key)

        def member(context: Context) -> Outcome:
            value = evaluate(context)
            if value is None:
                return False
            answer = self._contains(context, source, value)
            return answer if isinstance(answer, Unsure) else answer is not negated

        return member

    def _contains(self, context: Context, source: SetSource, value: Value | tuple[Value, ...]) -> Answer:
        if isinstance(source, str) and (self._family, self._table, source, value) in context.added:
            return True
        if _settled(value):
            element = self._find(source, value)
            return element is not None and _runs(element)
        found, doubt = candidates(self._content(source), value if isinstance(value, tuple) else (value,))
        if doubt is None:
            return bool(found) and _runs(found[0])
        return doubt if found else False

    def _verdict_map(self, key: Expression, source: SetSource) -> Operation:
        evaluate = self._expression(key)

        def pick(context: Context) -> Outcome:
            value = evaluate(context)
            if value is None:
                return False
            data = self._data(context, source, value)
            if data is None:
                return False
            if not isinstance(data, Verdict):
                return Unsure(Kind.UNKNOWN, f"the verdict map holds {data!r}, which is not a verdict")
            # NFT_CONTINUE goes on with the rule's next statement, not with the next rule.
            return None if data.kind == "continue" else data

        return pick

    def _map_value(self, expression: MapValue) -> Evaluator:
        evaluate = self._expression(expression.key)

        def pick(context: Context) -> Value | tuple[Value, ...] | None:
            value = evaluate(context)
            if value is None:
                return None
            data = self._data(context, expression.source, value)
            if isinstance(data, Verdict):
                return None
            return data

        return pick

    def _data(
        self, context: Context, source: SetSource, value: Value | tuple[Value, ...]
    ) -> Verdict | int | str | tuple[int | str, ...] | None:
        """What a map holds for ``value``; asks the chooser when more than one answer is possible."""
        if _settled(value):
            element = self._find(source, value)
            return element.data if element else None
        content = self._content(source)
        values = value if isinstance(value, tuple) else (value,)
        found, doubt = candidates(content, values)
        options = list(dict.fromkeys(element.data for element in found))
        if doubt is None:
            return options[0] if options else None
        drawn = value if isinstance(value, Drawn) else None
        exhaustive = content.default is not None or (drawn is not None and _covers(content, drawn))
        if not exhaustive:
            options.append(None)
        if len(options) == 1:
            return options[0]
        return options[context.chooser.choose(doubt.kind, doubt.why, len(options))]

    # ------------------------------------------------------------------------------------------------------- sets

    def _find(self, source: SetSource, value: object) -> Element | None:
        key: LookupKey = value  # type: ignore[assignment]  # settled values only
        if isinstance(source, str):
            return self._ruleset.find(self._family, self._table, source, key)
        index = self._inline.get(id(source))
        if index is None:
            index = self._inline[id(source)] = ElementIndex(source)
        return index.find(key)

    def _content(self, source: SetSource) -> SetContent:
        if not isinstance(source, str):
            return source
        content = self._ruleset.elements(self._family, self._table, source)
        if content is None:
            raise MissingEvidence(
                f"set {source} of table {self._family} {self._table} is named by a rule but is not in the evidence; "
                "take the ruleset again"
            )
        return content

    def _update(self, operation: str, key: Expression, name: str, inner: tuple[Operation, ...]) -> Operation:
        evaluate = self._expression(key)

        def update(context: Context) -> Outcome:
            value = evaluate(context)
            if value is None:
                return False
            if operation in ("add", "update"):
                context.added.add((self._family, self._table, name, value))
            for operation_of_element in inner:
                outcome = operation_of_element(context)
                if outcome is not None and outcome is not True:
                    return outcome
            return None

        return update

    # ----------------------------------------------------------------------------------------------------- marks

    def _set_meta(self, key: str, value: Expression) -> Operation:
        evaluate = self._expression(value)
        if key != "mark":

            def set_other(context: Context) -> Outcome:
                context.packet.written[key] = written = evaluate(context)
                return False if written is None else None

            return set_other

        def set_mark(context: Context) -> Outcome:
            mark = evaluate(context)
            if mark is None:
                return False  # a map without an element, or no connection to take it from
            open_mark = unknown(32, "the mark is set from something open")
            context.packet.mark = mark if isinstance(mark, int | Partial) else open_mark
            return None

        return set_mark

    def _set_ct(self, key: str, value: Expression) -> Operation:
        evaluate = self._expression(value)

        def set_ct(context: Context) -> Outcome:
            mark = evaluate(context)
            if mark is None:
                return False
            tracking = context.packet.tracking
            if tracking is not None and key == "mark":
                tracking.mark = mark if isinstance(mark, int | Partial) else unknown(32, "the mark is set from outside")
            return None

        return set_ct


def describe_limit(statement: Limit | Quota | ConnectionLimit) -> str:
    """A limit in words, as questions and findings show it."""
    match statement:
        case Limit(rate, per, unit, over, _burst, name):
            size = f"limit {name}" if name else f"limit rate {rate} {unit}/{per}"
            return f"{size}{' (over)' if over else ''} depends on other traffic"
        case Quota(size, over, name):
            return f"quota {name or size}{' (over)' if over else ''} depends on other traffic"
        case ConnectionLimit(count, over):
            return f"ct count {'over ' if over else ''}{count} depends on other connections"


def _settled(value: Value | tuple[Value, ...]) -> bool:
    if isinstance(value, tuple):
        return not any(isinstance(field, Partial | Drawn) for field in value)
    return not isinstance(value, Partial | Drawn)


def _covers(content: SetContent, drawn: Drawn) -> bool:
    """Whether the map has an element for every number that can be drawn (bounded by the map's own size)."""
    size = drawn.highest - drawn.lowest + 1
    if size <= len(content.exact):
        return all(number in content.exact for number in range(drawn.lowest, drawn.highest + 1))
    covered = sum(1 for key in content.exact if isinstance(key, int) and drawn.may_equal(key))
    for element in content.ranged:
        low, high = getattr(element.key, "low", 1), getattr(element.key, "high", 0)
        covered += max(0, min(high, drawn.highest) - max(low, drawn.lowest) + 1)
    return covered >= size


def _runs(element: Element) -> Answer:
    """An element may carry a limit of its own: then meeting it is not yet a match."""
    for statement in element.statements:
        if isinstance(statement, Limit | Quota | ConnectionLimit):
            return Unsure(Kind.RATE, describe_limit(statement))
        if isinstance(statement, UnknownStatement):
            return Unsure(Kind.UNKNOWN, f"{statement.text} is not understood")
    return True


def _compare(value: object, sign: str, right: object) -> Outcome:
    if value is None or isinstance(value, tuple):
        return False
    return compare(value, sign, right)  # type: ignore[arg-type]


def _notrack(context: Context) -> Outcome:
    packet = context.packet
    if packet.tracking is None:
        packet.tracking = Tracking(UNTRACKED, packet.ends(), packet.ends())
    return None


def _overwrite(context: Context, base: str, offset: int, width: int, value: object) -> Outcome:
    if value is None:
        return False
    if isinstance(value, int | Partial):
        context.packet.overwrite(base, offset, width, value)
        return None
    return Unsure(Kind.UNKNOWN, "a header field is rewritten from something open")
