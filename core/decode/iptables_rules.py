"""One line of ``iptables-save`` as a rule of the common model.

The statements stand in the kernel's order: addresses, interfaces and protocol, the matches as written, a counter that
counts what iptables counts (packets that met every match), and the target. Source: Linux net/ipv4/netfilter/
ip_tables.c (ipt_do_table), iptables 1.8.9 iptables/iptables.c (print_rule4).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from calico_debug.decode import iptables_header_matches as headers
from calico_debug.decode.iptables_extensions import Option, Setting
from calico_debug.decode.iptables_matches import MATCHES
from calico_debug.decode.iptables_symbols import MALFORMED, NotUnderstoodError
from calico_debug.decode.iptables_targets import HARMLESS_TARGETS, TARGETS, VERDICTS
from calico_debug.decode.words import split_words
from calico_debug.model.nft import Counter, Harmless, Match, Rule, Statement, UnknownStatement, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from calico_debug.decode.iptables_sets import SetDirectory

SHOWN = 200
"""Characters of a rule that a message quotes."""


def decode_rule(
    text: str, number: int, place: tuple[str, str, str], chains: Container[str], sets: SetDirectory
) -> Rule:
    """The rule of a line, ``[1:2] -A CHAIN …``. Never raises: what is not understood becomes an `UnknownStatement`.

    ``number`` is its position in the chain, from 1. ``place`` is family, table (as shown) and chain, ``chains`` holds
    the table's chains, which targets may name.
    """
    counter, text = _counter(text)
    try:
        words, quoted = split_words(text)
        reader = _RuleReader(place[0], words, quoted, chains, sets)
        reader.read()
    except MALFORMED:
        unknown = UnknownStatement(f"iptables rule {text[:SHOWN]}")
        return Rule(*place, number, (unknown, counter))
    statements = (*reader.base, *reader.matches, counter, *reader.target)
    return Rule(*place, number, statements, "; ".join(reader.comments))


def _counter(text: str) -> tuple[Counter, str]:
    if not text.startswith("["):
        return Counter(None, None), text
    head, _, rest = text.partition("] ")
    packets, _, size = head[1:].partition(":")
    if not packets.isdecimal() or not size.isdecimal():
        return Counter(None, None), rest
    return Counter(int(packets), int(size)), rest


class _RuleReader:
    """Reads the words of one rule, one option after another."""

    def __init__(
        self,
        family: str,
        words: list[str],
        quoted: frozenset[int],
        chains: Container[str],
        sets: SetDirectory,
    ) -> None:
        self.base: list[Statement] = []
        self.matches: list[Statement] = []
        self.target: list[Statement] = []
        self.comments: list[str] = []
        self._family = family
        self._words = words
        self._quoted = quoted
        self._chains = chains
        self._sets = sets
        self._position = 2  # behind -A CHAIN
        self._protocol: int | None = None

    def read(self) -> None:
        while self._position < len(self._words):
            negated = self._take_negation()
            word = self._take()
            if word in _BASE:
                negated = (word != "-f" and self._take_negation()) or negated
                _BASE[word](self, negated)
            elif word in ("-m", "--match") and not negated:
                self._match()
            elif word in ("-j", "--jump") and not negated:
                self._target()
            elif word in ("-g", "--goto") and not negated:
                self.target.append(Verdict("goto", self._take()))
            else:
                raise NotUnderstoodError(word)

    # ------------------------------------------------------------------------------------------------- plain options

    def protocol_option(self, negated: bool) -> None:
        name = self._take()
        found = headers.protocol(name, negated)
        self.base += found
        if found and not negated and isinstance(found[0], Match) and isinstance(found[0].right, int):
            self._protocol = found[0].right

    def source(self, negated: bool) -> None:
        self.base.append(headers.address("src", self._take(), negated, self._family))

    def destination(self, negated: bool) -> None:
        self.base.append(headers.address("dst", self._take(), negated, self._family))

    def incoming(self, negated: bool) -> None:
        self.base += headers.interface("iifname", self._take(), negated)

    def outgoing(self, negated: bool) -> None:
        self.base += headers.interface("oifname", self._take(), negated)

    def fragment(self, negated: bool) -> None:
        if self._family != "ip":
            raise NotUnderstoodError("-f")
        self.base.append(headers.fragment(negated))

    # ---------------------------------------------------------------------------------------------------- extensions

    def _match(self) -> None:
        name = self._take()
        extension = MATCHES.get(name)
        start = self._position
        try:
            if extension is None:
                raise NotUnderstoodError(name)
            options = self._options(extension.arity)
            if name == "comment":
                self.comments += [option.value for option in options]
            self.matches += extension.decode(options, self._setting())
        except MALFORMED:
            self.matches.append(UnknownStatement(f"iptables match {self._unread(name, start)}"))

    def _target(self) -> None:
        name = self._take()
        start = self._position
        extension = TARGETS.get(name)
        if name in VERDICTS and self._position == len(self._words):
            self.target.append(VERDICTS[name])
        elif name in self._chains:
            self.target.append(Verdict("jump", name))
        elif name in HARMLESS_TARGETS:
            self.target.append(Harmless(self._unread(name, start)))
        else:
            try:
                if extension is None:
                    raise NotUnderstoodError(name)
                self.target += extension.decode(self._options(extension.arity), self._setting())
            except MALFORMED:
                # It may do anything to the packet, so the walk must not go on behind it.
                self.target += [UnknownStatement(f"iptables target {self._unread(name, start)}"), Verdict("queue")]

    def _setting(self) -> Setting:
        return Setting(self._family, self._protocol, self._sets)

    def _options(self, arity: Mapping[str, int]) -> list[Option]:
        """The options up to the next extension."""
        options: list[Option] = []
        while self._position < len(self._words) and not self._at_extension():
            negated = self._take_negation()
            name = self._take()
            if name not in arity:
                raise NotUnderstoodError(name)
            negated = (arity[name] > 0 and self._take_negation()) or negated
            options.append(Option(name, tuple(self._take() for _ in range(arity[name])), negated))
        return options

    def _unread(self, name: str, start: int) -> str:
        """Skip what is left of an extension; its words as a text."""
        while self._position < len(self._words) and not self._at_extension():
            self._position += 1
        return " ".join([name, *self._words[start : self._position]])[:SHOWN]

    def _at_extension(self) -> bool:
        return self._words[self._position] in _EXTENSION_STARTS and self._position not in self._quoted

    # --------------------------------------------------------------------------------------------------------- words

    def _take(self) -> str:
        word = self._words[self._position]
        self._position += 1
        return word

    def _take_negation(self) -> bool:
        if self._words[self._position] == "!" and self._position not in self._quoted:
            self._position += 1
            return True
        return False


_EXTENSION_STARTS = frozenset({"-m", "-j", "-g"})

_BASE: Mapping[str, Callable[[_RuleReader, bool], None]] = {
    "-p": _RuleReader.protocol_option,
    "-s": _RuleReader.source,
    "-d": _RuleReader.destination,
    "-i": _RuleReader.incoming,
    "-o": _RuleReader.outgoing,
    "-f": _RuleReader.fragment,
}
