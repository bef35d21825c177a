"""Lines of ``iptables-save`` and ``ipset save`` split into words.

Source: iptables 1.8.9 libxtables/xtables.c (xtables_save_string) and xshared.c (add_param_to_argv); ipset writes
comments in quotes and has no escapes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"(?=\s|$)|(\S+)')
_ESCAPE = re.compile(r"\\(.)")


class Words(NamedTuple):
    """The words of a line, and the positions of those that stood in quotes."""

    words: list[str]
    quoted: frozenset[int]


def split_words(line: str) -> Words:
    """Split at white space outside of quotes. Raises `ValueError` when a quote does not end."""
    if '"' not in line:
        return Words(line.split(), frozenset())
    words: list[str] = []
    quoted: set[int] = set()
    for match in _WORD.finditer(line):
        inside, outside = match.groups()
        if inside is not None:
            quoted.add(len(words))
            words.append(_ESCAPE.sub(r"\1", inside))
        elif outside.startswith('"'):
            raise ValueError("a quote that does not end")
        else:
            words.append(outside)
    return Words(words, frozenset(quoted))
