"""Boxes of recorded rules against the walk, whose comparisons the kernel has confirmed, over many packets."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from calico_debug.explain.listing.endpoints import endpoint_chains, targets
from calico_debug.hits.boxes import ABSENT, Field, Values
from calico_debug.hits.conditions import Reader
from calico_debug.model.nft import Interval, Lookup, Match, Payload, SetContent
from calico_debug.state.node import NodeState
from calico_debug.walk.choices import Chooser, Unsure
from calico_debug.walk.context import Context, Trace
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import ICMP, TCP, UDP, Packet
from tests.recordings import Recording, recordings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.nft import Rule

PACKETS = 40
ADDRESSES = (0x0AF4011E, 0x0AF40220, 0xAC1E000B, 0xAC1E0001, 0x0A60000A, 0xC0A80001)
PORTS = (22, 53, 80, 179, 443, 6379, 9001)


def policy_rules(walker: NodeWalker) -> Iterator[Rule]:
    """Every rule of IPv4 that an endpoint's chain, or what it jumps to, has."""
    ruleset = walker.program.ruleset
    seen: set[tuple[str, str]] = set()
    for chain in endpoint_chains(ruleset):
        waiting = [chain.name] if chain.family == "ip" else []
        while waiting:
            name = waiting.pop()
            if (chain.table, name) not in seen:
                seen.add((chain.table, name))
                found = ruleset.rules(chain.family, chain.table, name) or ()
                yield from found
                waiting += targets(ruleset, found)


def met(walker: NodeWalker, rule: Rule, packet: Packet) -> bool | None:
    """Whether the packet matches; None where that hangs on something else."""
    context = Context(packet, Chooser(), Trace(), walker.surroundings)
    for statement, operation in zip(rule.statements, walker.program.compiled(rule).operations, strict=True):
        if isinstance(statement, Match | Lookup):
            outcome = operation(context)
            if isinstance(outcome, Unsure):
                return None
            if outcome is False:
                return False
    return True


def value(walker: NodeWalker, rule: Rule, field: Field, packet: Packet) -> int:
    """The packet's value of a field, asked of the walk by comparing halves."""
    what = field.what
    if isinstance(what, tuple) and what[0] == "mark":
        assert isinstance(packet.mark, int)
        return packet.mark >> what[1] & 1
    if isinstance(what, tuple):
        return int(_holds(walker, rule, Lookup(what[1], what[2]), packet))  # type: ignore[arg-type]
    low, high = 0, (1 << field.width) - 1
    assert isinstance(what, Payload) or field.width == 8
    if not _holds(walker, rule, Match(what, "==", Interval(low, high)), packet):  # type: ignore[arg-type]
        return ABSENT
    while low < high:
        middle = (low + high) // 2
        below = _holds(walker, rule, Match(what, "<=", middle), packet)  # type: ignore[arg-type]
        low, high = (low, middle) if below else (middle + 1, high)
    return low


def _holds(walker: NodeWalker, rule: Rule, statement: Match | Lookup, packet: Packet) -> bool:
    from calico_debug.walk.statements import StatementCompiler

    compiled = StatementCompiler(walker.program.ruleset, rule.family, rule.table).compile(statement, rule)
    return compiled(Context(packet, Chooser(), Trace(), walker.surroundings)) is True


def inside(number: int, values: Values) -> bool:
    return any(low <= number <= high for low, high in values)


def packets(rng: random.Random, extra: list[int]) -> Iterator[Packet]:
    for _ in range(PACKETS):
        source, destination = (rng.choice((*ADDRESSES, *extra)) for _ in range(2))
        made = Packet(4, rng.choice((TCP, TCP, UDP, ICMP)), source, destination, rng.choice(PORTS), rng.choice(PORTS))
        made.mark = rng.getrandbits(32)
        yield made


@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize(
    "recording", [*recordings("2.1-nft")[:1], *recordings("-iptables")[:1]], ids=lambda one: one.name
)
def test_boxes_hold_what_the_walk_says(recording: Recording, members: bool) -> None:
    rng = random.Random(7)
    walker = NodeWalker(NodeState(recording.source.node("node2")))
    reader = Reader(walker.program.ruleset, members=members)
    counts = {True: 0, False: 0}
    for rule in policy_rules(walker):
        conditions = reader.conditions(rule)
        named = [one.source for one in rule.statements if isinstance(one, Lookup) and isinstance(one.source, str)]
        for packet in packets(rng, _members(walker, rule, named)):
            answer = met(walker, rule, packet)
            if answer is None:
                continue
            fits = all(inside(value(walker, rule, field, packet), found) for field, found in conditions.wanted)
            assert fits or not answer, (rule, packet)
            assert answer or not fits or not conditions.exact, (rule, packet)
            counts[answer] += 1
    assert min(counts.values()) > 200


def _members(walker: NodeWalker, rule: Rule, names: list[str]) -> list[int]:
    """Addresses that the rule's sets hold."""
    found: list[int] = []
    for name in names:
        content = walker.program.ruleset.elements(rule.family, rule.table, name)
        assert isinstance(content, SetContent)
        for key in content.exact:
            first = key[0] if isinstance(key, tuple) else key
            found += [first] if isinstance(first, int) else []
    return found
