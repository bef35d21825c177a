"""Frames: they fit, whatever the size and the names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from calico_debug.cli.render.top import DENIED, FLOWS, DroppedFlow, View, Wish, fit, frame, shown_parts, text
from calico_debug.hits.rates import ORDERS, Rate

RULES = [Rate("NetworkPolicy red/web, rule 0 (Allow) ingress", False, 10.0, 4.0, 2.0), Rate("end of tier", True, 99.0)]
VIEW = View("node1", "now", RULES, [Rate("rpf", True, 1.0)], [("warning", "notrack", "a rule")], ())
EVIL = "\x1b[2J\x9b31m\u202e名\u0301"


@given(st.integers(1, 200), st.integers(1, 60), st.sampled_from(ORDERS), st.integers(0, 50))
def test_it_fits(columns: int, lines: int, order: str, top: int) -> None:
    for part in shown_parts(VIEW):
        found = frame(VIEW, Wish(part, order, top=top), columns, lines)
        assert len(found) <= lines
        assert all(len(line) <= columns for line in found)


@given(st.text())
def test_names_cannot_steer_the_terminal(name: str) -> None:
    for nasty in (name, EVIL):
        flows = [DroppedFlow(nasty, nasty, 1)]
        view = View(nasty, nasty, [Rate(nasty, True, 1.0)], (), [(nasty, nasty, nasty)], flows, (nasty,))
        for part in shown_parts(view):
            assert all(line.isprintable() for line in frame(view, Wish(part), 80, 24))
        assert all(line.isprintable() for line in text(view).split("\n"))


def test_denials_are_marked_without_colour() -> None:
    found = frame(VIEW, Wish(order="total"), 80, 24)
    assert next(line for line in found if "end of tier" in line).startswith(DENIED)
    assert not next(line for line in found if "red/web" in line).startswith(DENIED)
    assert "\x1b" not in "".join(found)


def test_wide_characters_are_counted() -> None:
    assert fit("名x", 80) == "\\u540dx"
    assert fit("abcdef", 4) == "abc…"


def test_flows_only_where_they_are_watched() -> None:
    assert FLOWS in shown_parts(VIEW)
    assert FLOWS not in shown_parts(View("node1", "now"))
