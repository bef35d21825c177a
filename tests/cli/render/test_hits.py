"""Hits as text."""

from __future__ import annotations

import json

from calico_debug.cli.render.hits import RENDERERS
from calico_debug.hits.model import ALWAYS, AS_SETS_ARE, EMPTY, UNREACHABLE, HitReport, Proof, RuleHits, RuleKey

KEY = RuleKey("nftables", "ingress", "default", "NetworkPolicy", "red", "web", "0", "Allow")


def report(*rules: RuleHits, **more: tuple[str, ...]) -> HitReport:
    return HitReport("yesterday", rules, **more)


def test_columns_of_the_past_only_where_it_is_known() -> None:
    now = RENDERERS["text"](report(RuleHits(KEY, "packets", 3)))
    assert now.splitlines()[0].split() == ["TIER", "POLICY", "DIRECTION", "RULE", "ACTION", "COUNT", "UNIT", "STANDING"]
    past = RENDERERS["text"](report(RuleHits(KEY, "packets", 3, past=0.4, resets=2)))
    assert past.splitlines()[1].split()[-4:] == ["packets", "1", "2", "met"]
    assert RENDERERS["text"](report()) == "no rule\n\ncounts since yesterday\n"


def test_why() -> None:
    many = Proof(UNREACHABLE, AS_SETS_ARE, ("a", "b", "c", "d", "e"))
    text = RENDERERS["text"](report(RuleHits(KEY, "packets", 0, proof=many)))
    assert f"{UNREACHABLE}: shadowed by a; b; c and 2 more ({AS_SETS_ARE})" in text
    empty = RENDERERS["text"](report(RuleHits(KEY, "packets", 0, text="from nobody", proof=Proof(EMPTY, ALWAYS))))
    assert f"{EMPTY}: from nobody" in empty


def test_names_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J"
    key = KEY._replace(policy=evil, tier=evil)
    made = report(RuleHits(key, "packets", 1, proof=Proof(UNREACHABLE, ALWAYS, (evil,))), notes=(evil,))
    assert "\x1b" not in RENDERERS["text"](made)
    assert json.loads(RENDERERS["json"](made))["rules"][0]["policy"]["name"] == evil
    assert "\x1b" not in RENDERERS["yaml"](made)
