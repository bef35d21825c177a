"""Words of saved rules and sets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.decode.words import split_words


@pytest.mark.parametrize(
    ("line", "words", "quoted"),
    [
        ("-A c  -j  DROP", ["-A", "c", "-j", "DROP"], set()),
        ('--comment "a b" -j', ["--comment", "a b", "-j"], {1}),
        ('--comment "a \\"b\\" \\\\ c"', ["--comment", 'a "b" \\ c'], {1}),
        ('--comment ""', ["--comment", ""], {1}),
        ('a"b c', ['a"b', "c"], set()),
        ("", [], set()),
    ],
)
def test_words(line: str, words: list[str], quoted: set[int]) -> None:
    assert split_words(line) == (words, quoted)


@pytest.mark.parametrize("line", ['--comment "no end', '"', 'a "b\\"'])
def test_a_quote_that_does_not_end(line: str) -> None:
    with pytest.raises(ValueError, match="a quote that does not end"):
        split_words(line)


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=0)))
def test_what_is_quoted_comes_back(words: list[str]) -> None:
    def quote(word: str) -> str:
        escaped = word.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'

    assert split_words(" ".join(quote(word) for word in words)) == (words, set(range(len(words))))
