"""Policy as text: what is not known is said, and nothing of a name reaches the terminal raw."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.cli.render.policy import SHOWN, render
from calico_debug.explain.listing.policy_view import EndpointView, PolicyView, RuleView, SetUse, TierView
from calico_debug.model.explanation import Finding, PolicyRef

EMPTY = EndpointView("n1", "ebpf", "cali1", "pod", "egress", 4, "program 7", "apples", pod=("shop", "a"))


def lines(view: EndpointView, *, wide: bool = False) -> list[str]:
    return [line.strip() for line in render([view], wide)]


def rule(**fields: object) -> EndpointView:
    policy = PolicyView(PolicyRef("NetworkPolicy", "web", "shop"), (RuleView("Allow", **fields),))  # type: ignore[arg-type]
    return replace(EMPTY, tiers=(TierView("default", (policy,)),))


def test_a_problem_stands_instead_of_policy() -> None:
    assert lines(replace(EMPTY, problem="no program")) == [
        "shop/a, interface cali1 of n1 (ebpf)",
        "egress, IPv4",
        "no program",
    ]
    assert lines(EMPTY)[2:] == ["no policy: everything passes", "", "hits: apples"]


def test_findings_stand_with_the_policy() -> None:
    assert "warning: m" in lines(replace(EMPTY, findings=(Finding("c", "warning", "m"),)))


def test_words_of_the_object_else_what_is_programmed() -> None:
    assert "5      rule 0  Allow TCP" in lines(rule(index=0, text="Allow TCP", programmed="x", hits=5))
    assert "a rule  Allow protocol tcp" in lines(rule(programmed="protocol tcp"))
    assert "a rule  Allow x (not in the program: nothing gets to it)" in lines(
        rule(programmed="x", absent="nothing gets to it")
    )


def test_unnamed_policies_and_policies_without_rules() -> None:
    unnamed = PolicyView(PolicyRef("", "cali-pi-_x"))
    shown = lines(replace(EMPTY, tiers=(TierView("default", (unnamed,)),)))
    assert "policy of chain cali-pi-_x, which no object or comment names" in shown
    assert "no rules" in shown


def test_wide_tells_sets_ids_and_handles() -> None:
    many = SetUse("source", "s", tuple(map(str, range(SHOWN + 3))))
    sets = (many, SetUse("destination", "e", ()), SetUse("destination", "u"))
    shown = lines(rule(text="Allow", programmed="p", rule_id="ff", handles=(1, 2), ip_sets=sets), wide=True)
    assert shown[2] == "program 7"
    assert {"programmed: p", "rule id ff", "handle 1, 2"} <= set(shown)
    assert any(line.endswith("11 and 3 more") for line in shown)
    assert "destination in e: empty" in shown
    assert "destination in u: its members are not known" in shown


def test_names_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in "".join(render([replace(EMPTY, pod=("shop", "\x1b[31m"))], wide=True))
