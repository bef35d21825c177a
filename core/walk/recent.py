"""Lists of addresses that rules of iptables fill and ask. Source: Linux net/netfilter/xt_recent.c (recent_mt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.model.routing import address_from_int
from calico_debug.walk.choices import Kind, Unsure

if TYPE_CHECKING:
    from collections.abc import Callable

    from calico_debug.model.nft import Recent, Rule
    from calico_debug.walk.context import Context
    from calico_debug.walk.expressions import Evaluator

LIST = "xt_recent"
"""Stands for the table of an nft set where the context notes what a packet added."""


def compile_recent(statement: Recent, address: Evaluator, rule: Rule) -> Callable[[Context], bool | Unsure]:
    """The function for a match of ``rule``; ``address`` gives what is looked for.

    Putting an address into a list always matches. Whether it is there already is in no evidence, unless the packet
    itself was what put it there.
    """
    place = f"chain {rule.chain} of table {rule.family} {rule.table}"

    def run(context: Context) -> bool | Unsure:
        looked_for = address(context)
        entry = (rule.family, LIST, statement.name, looked_for)
        if statement.operation == "set":
            context.added.add(entry)
            return not statement.negated
        if entry in context.added and statement.hits <= 1 and not statement.same_ttl:
            if statement.operation == "remove":
                context.added.discard(entry)
            return not statement.negated
        family = context.packet.family
        who = str(address_from_int(family, looked_for)) if isinstance(looked_for, int) else "the packet's address"
        return Unsure(
            Kind.MEMORY,
            f"whether {place} remembers {who} from earlier packets (iptables match recent) is not in the evidence; "
            "files in /proc/net/xt_recent on the node tell",
        )

    return run
