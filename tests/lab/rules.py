"""nft rules as data, in the vocabulary Felix uses, and Felix's mark bits. Text is made at the very end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.lab import names

if TYPE_CHECKING:
    from tests.lab.model import Felix

LAYERS = ("filter", "nat", "mangle", "raw")


@dataclass(frozen=True, slots=True)
class NftRule:
    """One rule: match clauses, an action ("" for a dispatch rule or placeholder, which have no counter), comments."""

    match: str = ""
    action: str = ""
    comments: tuple[str, ...] = ()

    def text(self, layer: str) -> str:
        """Without comment; targets of jumps get their layer's prefix."""
        action = self.action
        for verb in ("jump ", "goto "):
            if action.startswith(verb):
                action = f"{verb}{layer}-{action[len(verb) :]}"
        if not self.action:
            return self.match or "continue"
        return " ".join(part for part in (self.match, "counter", action) if part)

    @property
    def target(self) -> str | None:
        """The chain that a jump or goto goes to."""
        verb, _, target = self.action.partition(" ")
        return target if verb in {"jump", "goto"} else None


@dataclass(frozen=True, slots=True)
class Marks:
    """Felix's bits, taken from the mask lowest first (felix/rules/rule_defs.go, felix/dataplane/driver.go)."""

    accept: int
    passed: int
    drop: int
    scratch0: int
    scratch1: int

    @classmethod
    def of(cls, felix: Felix) -> Marks:
        bits = [1 << n for n in range(32) if felix.mark_mask >> n & 1]
        if felix.release == "v3.29":  # no drop mark
            return cls(bits[0], bits[1], 0, bits[2], bits[3])
        return cls(*bits[:5])

    @property
    def all(self) -> int:
        """The bits Felix clears at a hook's start. The drop mark is not among them: a drop follows it at once."""
        return self.accept | self.passed | self.scratch0 | self.scratch1


def is_set(bit: int) -> str:
    return f"meta mark & {bit:#x} == {bit:#x}"


def is_clear(bits: int) -> str:
    return f"meta mark & {bits:#x} == 0"


def any_set(bits: int) -> str:
    return f"meta mark & {bits:#x} != 0"


def set_mark(bit: int) -> str:
    return f"meta mark set mark or {bit:#x}"


def clear_mark(bits: int) -> str:
    return f"meta mark set mark & {bits ^ 0xFFFFFFFF:#x}"


def set_masked(value: int, mask: int) -> str:
    return f"meta mark set mark & {mask ^ 0xFFFFFFFF:#x} ^ {value:#x}"


def nflog(direction: str, prefix: str) -> str:
    """Group 1 is ingress, 2 egress."""
    return f'log prefix "{prefix}" snaplen 80 group {1 if direction == "ingress" else 2}'


def both(first: str, second: str) -> str:
    return " ".join(part for part in (first, second) if part)


@dataclass(slots=True)
class Chains:
    """Chains by layer and name (without the layer). Only what base chains and maps reach is programmed."""

    by_layer: dict[str, dict[str, list[NftRule]]] = field(default_factory=lambda: {layer: {} for layer in LAYERS})

    def add(self, layer: str, name: str, rules: list[NftRule]) -> None:
        self.by_layer[layer][name] = rules

    def add_everywhere(self, name: str, rules: list[NftRule]) -> None:
        for layer in ("filter", "mangle", "raw"):
            self.add(layer, name, rules)

    def reached(self, layer: str, roots: list[str]) -> list[str]:
        """The names reachable from ``roots``, which are included."""
        found: dict[str, None] = {}
        waiting = list(roots)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found[name] = None
            waiting += [rule.target for rule in self.by_layer[layer][name] if rule.target]
        return list(found)


def chain_text(name: str, layer: str, rules: list[NftRule], header: str = "") -> str:
    """One chain's declaration. ``name`` is the full one."""
    rendered = [rule.text(layer) for rule in rules]
    hashes = names.rule_hashes(name, rendered)
    lines = [f"  chain {name} {{"]
    if header:
        lines.append(f"    {header}")
    for text, rule, rule_hash in zip(rendered, rules, hashes, strict=True):
        lines.append(f'    {text} comment "{names.comment(rule_hash, rule.comments)}"')
    return "\n".join([*lines, "  }"])


def with_comments(rule: NftRule, *texts: str) -> NftRule:
    return replace(rule, comments=(*rule.comments, *texts))
