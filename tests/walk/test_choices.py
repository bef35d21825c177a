"""Open questions and every answer to them."""

from __future__ import annotations

from calico_debug.walk.choices import Choice, Chooser, Kind, explore, in_words


def _two_questions(chooser: Chooser) -> tuple[int, int]:
    first = chooser.choose(Kind.BACKEND, "which", 3)
    return first, chooser.choose(Kind.RATE, "whether", 2) if first == 1 else 0


def test_every_combination_of_answers_is_taken_once() -> None:
    found = [alternative.result for alternative in explore(_two_questions, 100)]
    assert sorted(found) == [(0, 0), (1, 0), (1, 1), (2, 0)]


def test_alternatives_tell_the_choices_that_led_there() -> None:
    last = next(a for a in explore(_two_questions, 100) if a.result == (1, 1))
    assert [(c.kind, c.why, c.options, c.taken) for c in last.choices] == [
        (Kind.BACKEND, "which", 3, 1),
        (Kind.RATE, "whether", 2, 1),
    ]


def test_a_question_of_several_rules_is_one() -> None:
    chain = "table ip t, chain c"
    asked = [Choice(Kind.UNKNOWN, "why", 2, 0, (chain, handle)) for handle in (4, 7, 4, 9)]
    asked.append(Choice(Kind.UNKNOWN, "why", 2, 0, ("table ip t, chain d", 4)))
    assert in_words([*asked, Choice(Kind.RATE, "else", 2, 0)]) == (
        f"why ({chain}, rule handles 4, 7 and 9)",
        "why (table ip t, chain d, rule handle 4)",
        "else",
    )


def test_exploration_is_bounded() -> None:
    def endless(chooser: Chooser) -> int:
        return sum(chooser.choose(Kind.BACKEND, "n", 2) for _ in range(30))

    assert len(list(explore(endless, 17))) == 17


def test_a_script_is_replayed_and_the_first_option_taken_beyond_it() -> None:
    chooser = Chooser((2,))
    assert [chooser.choose(Kind.BACKEND, "a", 3), chooser.choose(Kind.BACKEND, "b", 3)] == [2, 0]
