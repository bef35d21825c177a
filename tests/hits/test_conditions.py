"""What rules want, as boxes."""

from __future__ import annotations

from calico_debug.hits.boxes import Field, Values
from calico_debug.hits.conditions import IN_SET, Reader, mark_bit, plain_field
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    Ct,
    Element,
    Interval,
    Limit,
    Lookup,
    Match,
    Meta,
    Payload,
    Recent,
    Rule,
    SetContent,
    Statement,
)
from tests.hits.sets import Sets

SOURCE, PORT = Payload("network", 96, 32), Payload("transport", 16, 16)
MARK = Meta("mark")


def read(*statements: Statement, members: bool = True, sets: Sets | None = None) -> tuple[dict[Field, Values], bool]:
    rule = Rule("ip", "calico", "c", 1, statements)
    found = Reader(sets or Sets({}), members=members).conditions(rule)
    return dict(found.wanted), found.exact


def field(expression: Payload) -> Field:
    found = plain_field(expression)
    assert found is not None
    return found


def test_comparisons() -> None:
    port = field(PORT)
    for operator, right, values in (
        ("==", 80, ((80, 80),)),
        ("!=", 80, ((0, 79), (81, 65535))),
        ("==", Interval(1, 9), ((1, 9),)),
        ("!=", Interval(1, 65535), ((0, 0),)),
        ("<", 3, ((0, 2),)),
        ("<=", 3, ((0, 3),)),
        (">", 65533, ((65534, 65535),)),
        (">=", 65533, ((65533, 65535),)),
        ("<", 0, ()),
    ):
        assert read(Match(PORT, operator, right)) == ({port: values}, True), (operator, right)


def test_networks() -> None:
    masked = Bitwise(SOURCE, 0xFF000000, 0)
    assert read(Match(masked, "==", 0x0A000000)) == ({field(SOURCE): ((0x0A000000, 0x0AFFFFFF),)}, True)
    for odd in (Bitwise(SOURCE, 0xFF00FF00, 0), Bitwise(SOURCE, 0xFF000000, 1)):
        assert read(Match(odd, "==", 0x0A000000)) == ({}, False)


def test_marks_bit_by_bit() -> None:
    wanted = read(Match(Bitwise(MARK, 0x3, 0), "==", 0x2))
    assert wanted == ({mark_bit(0): ((0, 0),), mark_bit(1): ((1, 1),)}, True)
    assert read(Match(Bitwise(MARK, 0x2, 0), "!=", 0)) == ({mark_bit(1): ((1, 1),)}, True)
    assert read(Match(Bitwise(MARK, 0x3, 0), "!=", 0)) == ({}, False)


def test_what_is_not_understood() -> None:
    recent = Recent("list", "check", SOURCE)
    for statement in (Match(Ct("state"), "==", 2), Limit(1, "second"), recent, Match(Meta("iifname"), "==", "eth0")):
        assert read(statement) == ({}, False)


def test_sets_by_their_members_and_by_name() -> None:
    content = SetContent((32,), {5: Element(5)}, (Element(Interval(8, 9)),))
    sets = Sets({"some": content, "none": SetContent((32,), {})})
    source = field(SOURCE)
    assert read(Lookup(SOURCE, "some"), sets=sets) == ({source: ((5, 5), (8, 9))}, True)
    kept, exact = read(Lookup(SOURCE, "some", negated=True), sets=sets)
    assert exact
    assert kept[source][0] == (0, 4)
    assert read(Lookup(SOURCE, "none"), sets=sets) == ({source: ()}, True)
    wanted, exact = read(Lookup(SOURCE, "some"), members=False, sets=sets)
    assert exact
    assert list(wanted.values()) == [IN_SET]
    # What is written in the rule itself does not change
    assert read(Lookup(SOURCE, content), members=False) == ({source: ((5, 5), (8, 9))}, True)


def test_keys_of_several_fields() -> None:
    key = Concat((SOURCE, PORT))
    sets = Sets({"pairs": SetContent((32, 16), {(5, 80): Element((5, 80))}), "none": SetContent((32, 16), {})})
    wanted, exact = read(Lookup(key, "pairs"), sets=sets)
    assert (list(wanted.values()), exact) == ([IN_SET], True)
    wanted, _ = read(Lookup(key, "none"), sets=sets)
    assert list(wanted.values()) == [()]


def test_a_catch_all_element() -> None:
    sets = Sets({"all": SetContent((32,), {}, (), Element("*"))})
    wanted, exact = read(Lookup(SOURCE, "all"), sets=sets)
    assert (list(wanted.values()), exact) == ([IN_SET], True)
