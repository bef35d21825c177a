"""Statements that translate addresses and ports, compiled to functions of the walk's context.

Source: Linux net/netfilter/nft_nat.c, nft_masq.c, nft_redir.c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from calico_debug.model.nft import Expression, Masquerade, Nat, Redirect, Verdict
from calico_debug.model.values import unknown
from calico_debug.walk.context import Undecided
from calico_debug.walk.expressions import Evaluator

if TYPE_CHECKING:
    from calico_debug.model.nft import Rule
    from calico_debug.model.values import Value
    from calico_debug.walk.context import Context
    from calico_debug.walk.packet import Port

Translation = Nat | Masquerade | Redirect
CompileValue = Callable[[Expression], Evaluator]

ACCEPT = Verdict("accept")


class _NoElementError(Exception):
    """The map that a translation asks has no element for the packet, which ends the rule."""


def compile_translation(
    statement: Translation, rule: Rule, compile_value: CompileValue
) -> Callable[[Context], Verdict | bool | None]:
    """The function for a translation by ``rule``: "accept", None where it does nothing, False where it ends the rule.

    It changes the connection; the NAT core then rewrites the packet.
    """
    side = (
        "src"
        if isinstance(statement, Masquerade) or (isinstance(statement, Nat) and statement.kind == "snat")
        else "dst"
    )
    port = _port(statement.port, statement.port_max, compile_value)
    address = _address(statement, compile_value)
    version = statement.version if isinstance(statement, Nat) else 0

    def translate(context: Context) -> Verdict | bool | None:
        packet = context.packet
        tracking = packet.tracking
        if version not in (0, packet.family):
            return None  # nft_nat_inet_eval does nothing then, and the next rule is asked
        if tracking is None:
            return ACCEPT
        old_port = packet.sport if side == "src" else packet.dport
        try:
            new_address, new_port = address(context)
            if port is not None:
                new_port = port(context, old_port)
            elif new_port is None or old_port is None:
                new_port = _kept_port(side, packet.sport, old_port)
        except _NoElementError:
            return False
        tracking.translate(side, new_address, new_port)
        tracking.done.add(side)
        context.nat_rule = rule
        return ACCEPT

    return translate


def _address(statement: Translation, compile_value: CompileValue) -> Callable[[Context], tuple[int, Port]]:
    """The new address, and the new port where one lookup gives both."""
    if isinstance(statement, Masquerade):
        return lambda context: (context.surroundings.masquerade_address(context.packet), None)
    if isinstance(statement, Redirect):
        return lambda context: (context.surroundings.redirect_address(context.packet), None)
    if statement.address is None:
        side = statement.kind
        return lambda context: (context.packet.source if side == "snat" else context.packet.destination, None)
    evaluate = compile_value(statement.address)
    ranged = statement.address_max is not None and statement.address_max != statement.address

    def resolve(context: Context) -> tuple[int, Port]:
        value = evaluate(context)
        if value is None:
            raise _NoElementError
        new_port: Value | None = None
        if isinstance(value, tuple):
            value, new_port = value
        if ranged or not isinstance(value, int) or not isinstance(new_port, int | None):
            raise Undecided(f"{statement.kind} to an address that the kernel picks from a range")
        return value, new_port

    return resolve


def _port(
    low: Expression | None, high: Expression | None, compile_value: CompileValue
) -> Callable[[Context, Port], Port] | None:
    if low is None:
        return None
    evaluate = compile_value(low)
    ranged = high is not None and high != low

    def resolve(context: Context, old: Port) -> Port:
        value = evaluate(context)
        if value is None:
            raise _NoElementError
        if ranged or not isinstance(value, int):
            return unknown(16, "the kernel picks the port from a range")
        return value if old is not None else None

    return resolve


def _kept_port(side: str, sport: Port, port: Port) -> Port:
    if side == "dst" or sport is None:
        return port
    return unknown(16, "source translation may pick another port")
