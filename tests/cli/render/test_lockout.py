"""Previews as text."""

from __future__ import annotations

from calico_debug.cli.render.lockout import RENDERERS
from calico_debug.lockout.judge import CUT, STAYS
from calico_debug.lockout.report import Preview, Row

FINE = Row("n1", "BGP", "ingress", 6, 179, STAYS, "", "n2 (10.0.0.2)", 1)
LOST = Row("n1", "kubelet", "ingress", 6, 10250, CUT, "host endpoint h: no policy", "n2 (10.0.0.2)", 3)


def test_the_worst_comes_first() -> None:
    text = RENDERERS["text"](Preview((FINE, LOST), ("n9",), ("a note",)))
    lines = text.splitlines()
    assert lines[1].split() == [
        "n1",
        "kubelet",
        "ingress",
        "tcp",
        "10250",
        "n2",
        "(10.0.0.2)",
        "and",
        "2",
        "more",
        "cut",
    ]
    assert "n1, kubelet ingress: cut: host endpoint h: no policy" in lines
    assert not any(line.startswith("n1, BGP") for line in lines)
    assert "1 node has no host endpoint, so nothing of theirs is policed: n9" in lines
    assert lines[-1] == "2 flows: 1 cut, 0 undetermined, 0 cut already, 0 saved by a failsafe, 1 stays"


def test_nothing_at_all() -> None:
    assert RENDERERS["text"](Preview((), (), ())).startswith("0 flows: ")


def test_names_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J"
    made = Preview((Row(evil, "BGP", "ingress", 6, 179, CUT, evil, evil, 1),), (evil,), (evil,))
    for name in ("text", "yaml"):
        assert "\x1b" not in RENDERERS[name](made)
