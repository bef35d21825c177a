"""Saying what is done, and hearing it."""

from __future__ import annotations

from threading import Thread

import pytest

from calico_debug.activity import counted, heard_by, say


def test_nobody_has_to_listen() -> None:
    say("nothing")
    assert list(counted("ab", 2)) == ["a", "b"]


def test_the_listener_of_the_moment_hears() -> None:
    outer: list[str] = []
    inner: list[str] = []
    with heard_by(outer.append):
        say("one")
        with heard_by(inner.append):
            say("two")
        with pytest.raises(ValueError, match="a defect"), heard_by(inner.append):
            raise ValueError("a defect")
        say("three")
    say("four")
    assert (outer, inner) == (["one", "three"], ["two"])


def test_other_threads_are_not_heard() -> None:
    heard: list[str] = []
    with heard_by(heard.append):
        thread = Thread(target=say, args=("elsewhere",))
        thread.start()
        thread.join()
    assert heard == []


def test_items_are_counted_when_they_are_taken() -> None:
    heard: list[str] = []
    with heard_by(heard.append):
        items = counted(range(4000), 4000)
        assert heard == []
        assert next(items) == 0
        assert heard == ["flow 1 of 4,000"]
        assert list(counted("a", 1, "port")) == ["a"]
    assert heard[1:] == ["port 1 of 1"]
