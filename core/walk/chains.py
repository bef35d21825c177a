"""Running chains: jumps, gotos, returns, verdicts, as nft_do_chain does (Linux net/netfilter/nf_tables_core.c)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.errors import MissingEvidence
from calico_debug.model.nft import (
    Chain,
    ConnectionLimit,
    Harmless,
    Limit,
    Log,
    Lookup,
    Match,
    Quota,
    Reject,
    Rule,
    Ruleset,
    SetMeta,
    Statement,
    Verdict,
)
from calico_debug.walk.choices import Kind, Unsure
from calico_debug.walk.context import Context, Denial, Matched, Onward, Undecided
from calico_debug.walk.likely import usually
from calico_debug.walk.statements import Operation, StatementCompiler

if TYPE_CHECKING:
    from calico_debug.model.values import Partial

MAX_DEPTH = 16
"""NFT_JUMP_STACK_SIZE of the kernel; deeper rulesets cannot be loaded."""
MAX_RULES = 200_000
"""A bound on the rules one packet meets at one hook, far above any real ruleset."""

TRACE_BIT = "nftrace"
"""What ``meta nftrace set 1`` writes: the kernel tells of the packet from then on, and does nothing else."""
_WHOLE = (Kind.BACKEND, Kind.MEMORY)
"""Questions that need not say which rule asks: a rule's part in balancing, and a chain's memory, which it names."""
_ONLY_LOOKING = (Match, Lookup, Log, Limit, Quota, ConnectionLimit, Harmless)

Continue = Callable[[Rule | None, Sequence[str]], Onward | None]
"""Asked at a drop: the rule and the chains on the stack. An `Onward` lets the walk go on hypothetically."""


@dataclass(slots=True, eq=False)
class CompiledRule:
    """A rule and its statements as functions. ``inert``: whether it holds makes no difference."""

    rule: Rule
    operations: tuple[Operation, ...]
    inert: bool


class Program:
    """The rules of one node, compiled on demand and kept."""

    def __init__(self, ruleset: Ruleset) -> None:
        """Nothing is read before a packet needs it."""
        self.ruleset = ruleset
        self._chains: dict[tuple[str, str, str], Sequence[CompiledRule]] = {}
        self._compilers: dict[tuple[str, str], StatementCompiler] = {}

    def chain(self, family: str, table: str, name: str) -> Sequence[CompiledRule]:
        """The compiled rules of a chain. Raises `MissingEvidence` when a rule jumps to a chain that is not there."""
        key = (family, table, name)
        compiled = self._chains.get(key)
        if compiled is None:
            rules = self.ruleset.rules(family, table, name)
            if rules is None:
                raise MissingEvidence(
                    f"chain {name} of table {family} {table} is named by a rule but is not in the evidence; "
                    "take the ruleset again"
                )
            compiled = [self._compile(rule) for rule in rules]
            self._chains[key] = compiled
        return compiled

    def compiled(self, rule: Rule) -> CompiledRule:
        """One rule by itself; its operations are in the order of its statements."""
        return next(c for c in self.chain(rule.family, rule.table, rule.chain) if c.rule is rule)

    def _compile(self, rule: Rule) -> CompiledRule:
        key = (rule.family, rule.table)
        compiler = self._compilers.get(key)
        if compiler is None:
            compiler = self._compilers[key] = StatementCompiler(self.ruleset, rule.family, rule.table)
        operations = tuple(compiler.compile(statement, rule) for statement in rule.statements)
        return CompiledRule(rule, operations, all(map(_leaves_alone, rule.statements)))


@dataclass(slots=True)
class _Frame:
    """Where to go on after a return: a chain's name, its rules, and the next one's position.

    ``mark`` is the packet's at the jump that led there.
    """

    name: str
    rules: Sequence[CompiledRule]
    mark: int | Partial
    position: int = 0


def run_base_chain(program: Program, chain: Chain, context: Context, go_on: Continue | None) -> bool:
    """Run a base chain over the packet; True when it survives, False when the trace's denial says why not."""
    assert chain.hook is not None
    frames = [_Frame(chain.name, program.chain(chain.family, chain.table, chain.name), context.packet.mark)]
    budget = MAX_RULES
    while frames:
        frame = frames[-1]
        if frame.position >= len(frame.rules):
            frames.pop()
            continue
        budget -= 1
        if budget < 0:
            raise Undecided(
                f"more than {MAX_RULES} rules were met at hook {chain.hook.hook}: the ruleset may be circular"
            )
        compiled = frame.rules[frame.position]
        frame.position += 1
        verdict = _run_rule(compiled, context)
        if verdict is None:
            continue
        if isinstance(verdict, Reject) or verdict.kind == "drop":
            if not _deny(compiled.rule, verdict, chain, frames, context, go_on):
                return False
        elif verdict.kind == "accept":
            return True
        elif verdict.kind == "return":
            frames.pop()
        elif verdict.kind in ("jump", "goto"):
            mark = context.packet.mark if verdict.kind == "jump" else frames.pop().mark
            if len(frames) >= MAX_DEPTH:
                raise Undecided(f"jumps nest deeper than {MAX_DEPTH} at chain {verdict.chain}")
            frames.append(_Frame(verdict.chain, program.chain(chain.family, chain.table, verdict.chain), mark))
        elif verdict.kind != "continue":
            raise Undecided(
                f"rule {compiled.rule.handle} of chain {compiled.rule.chain} hands the packet over ({verdict.kind})"
            )
    if chain.hook.policy == "drop":
        return _deny(None, Verdict("drop"), chain, [], context, go_on)
    return True


def _leaves_alone(statement: Statement) -> bool:
    """Whether a statement makes no difference to a packet, to what later packets meet, and to any counter."""
    if isinstance(statement, SetMeta):
        return statement.key == TRACE_BIT
    return isinstance(statement, _ONLY_LOOKING)


def _run_rule(compiled: CompiledRule, context: Context) -> Verdict | Reject | None:
    """The rule's verdict; None when it did not match or has none."""
    packet = context.packet
    mark: int | Partial = packet.mark
    outcome: object = None
    for number, operation in enumerate(compiled.operations):
        outcome = operation(context)
        if outcome is None or outcome is True:
            continue
        if outcome is False:
            return None
        if isinstance(outcome, Unsure):
            if compiled.inert:
                continue
            usual = usually(compiled.rule.statements[number], operation, context)
            asking = _chain_in_words(compiled.rule) if outcome.kind not in _WHOLE else None
            if (context.chooser.choose(outcome.kind, outcome.why, 2, asking) == 0) is not usual:
                return None
            continue
        break
    verdict = outcome if isinstance(outcome, Verdict | Reject) else None
    trace = context.trace
    trace.events.append(Matched(compiled.rule, verdict, mark, packet.mark, context.hook, trace.hypothetical))
    return verdict


def _chain_in_words(rule: Rule) -> tuple[str, int]:
    return f"table {rule.family} {rule.table}, chain {rule.chain}", rule.handle


def _deny(
    rule: Rule | None,
    verdict: Verdict | Reject,
    chain: Chain,
    frames: list[_Frame],
    context: Context,
    go_on: Continue | None,
) -> bool:
    """Record a denial. True when the walk goes on as if the packet had been let through."""
    trace = context.trace
    stack = tuple(frame.name for frame in frames) or (chain.name,)
    reject = verdict if isinstance(verdict, Reject) else None
    ends = context.packet.ends()
    trace.denials.append(
        Denial(
            rule, chain, context.hook, stack, reject, len(trace.events), len(trace.counted), ends, trace.hypothetical
        )
    )
    onward = go_on(rule, stack) if go_on and not trace.hypothetical else None
    if onward is None:
        return False
    mark = context.packet.mark
    while frames and (left := frames.pop()).name != onward.chain:
        # What the chain that denies has set, such as Felix's bit for a denial, is not there where it had accepted.
        mark = left.mark
    context.packet.mark = mark | onward.mark if isinstance(mark, int) else mark
    trace.hypothetical = True
    return True
