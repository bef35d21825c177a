"""What is read out of answers of a Prometheus, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.errors import EvidenceError, UsageError
from calico_debug.hits.history import LONGEST, read_history, window_seconds
from calico_debug.hits.model import RuleKey

KEY = RuleKey("nftables", "ingress", "default", "NetworkPolicy", "red", "web", "0", "Allow")
LABELS = KEY._asdict()


def vector(*samples: tuple[dict[str, Any], object]) -> dict[str, Any]:
    result = [{"metric": labels, "value": [1700000000, value]} for labels, value in samples]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def server(answers: dict[str, Any]) -> Any:
    """Answers each query with that of the first word that is in it."""

    def ask(query: str) -> Any:
        return next((answer for word, answer in answers.items() if word in query), vector())

    return ask


def test_growth_resets_and_the_oldest_sample() -> None:
    history = read_history(
        server(
            {
                "increase(calico_debug_policy_rule_packets": vector((LABELS, "2.6")),
                "max_over_time(calico_debug_policy_rule_packets": vector((LABELS, "40")),
                "resets(calico_debug_policy_rule_packets": vector((LABELS, "1")),
                "count(count": vector(({}, "3")),
                "min(min_over_time": vector(({}, "1700000000")),
            }
        ),
        3600,
    )
    past = history.rules[KEY]
    assert (past.growth, past.resets, past.last) == (2.6, 1, 40)
    assert history.since == "2023-11-14 22:13:20Z (3600 s were asked for; 3 agents)"
    assert history.notes == ()


def test_nothing_scraped_is_said() -> None:
    history = read_history(server({}), 60)
    assert history.since.startswith("unknown")
    assert "scrapes the agents" in history.notes[0]


def test_series_that_agents_left_out_are_said() -> None:
    history = read_history(server({"series_dropped": vector(({}, "7"))}), 60)
    assert any("7 series" in note for note in history.notes)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {"status": "error", "error": "bad query"},
        {"status": "success"},
        {"status": "success", "data": {"resultType": "matrix", "result": []}},
        {"status": "success", "data": {"resultType": "vector", "result": [7]}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1]}]}},
        vector((LABELS, "NaN")),
        vector((LABELS, "-1")),
        vector((LABELS, "many")),
        vector((LABELS, None)),
        vector(({"policy": 7}, "1")),
        vector(({"policy": "x" * (LONGEST + 1)}, "1")),
    ],
)
def test_what_is_no_answer(answer: Any) -> None:
    with pytest.raises(EvidenceError, match="Prometheus"):
        read_history(lambda _: answer, 60)


def test_windows() -> None:
    assert [window_seconds(text) for text in ("90s", "5m", "12h", "7d", "4w")] == [90, 300, 43200, 604800, 2419200]
    for text in ("", "7", "d", "0d", "-1d", "7 d", "1y", "7d]) or vector(1"):
        with pytest.raises(UsageError):
            window_seconds(text)
