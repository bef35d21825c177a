"""Statements over a packet."""

from __future__ import annotations

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.model.nft import (
    Constant,
    Ct,
    Element,
    Interval,
    Limit,
    Lookup,
    MapValue,
    Match,
    Meta,
    Notrack,
    Numgen,
    Payload,
    Quota,
    SetContent,
    SetCt,
    SetMeta,
    SetPayload,
    UnknownStatement,
    UpdateSet,
    Verdict,
    VerdictMap,
)
from calico_debug.walk.choices import Chooser, Kind, Unsure
from calico_debug.walk.statements import describe_limit
from tests.walk.worlds import CLIENT, SERVER, Rules, context, elements, run, tracked

SOURCE, PORT = Payload("network", 96, 32), Payload("transport", 16, 16)
ACCEPT, DROP = Verdict("accept"), Verdict("drop")


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        (Match(PORT, "==", 80), True),
        (Match(PORT, "!=", 80), False),
        (Match(PORT, "==", Interval(1, 100)), True),
        (Match(Meta("skuid"), "==", 0), False),
        (Lookup(SOURCE, elements(CLIENT)), True),
        (Lookup(SOURCE, elements(SERVER)), False),
        (Lookup(SOURCE, elements(SERVER), negated=True), True),
        (Lookup(Meta("skuid"), elements(0), negated=True), False),
        (VerdictMap(PORT, elements(80, data=DROP)), DROP),
        (VerdictMap(PORT, elements(81, data=DROP)), False),
        (VerdictMap(PORT, elements(80, data=Verdict("continue"))), None),
        (Verdict("continue"), None),
        (Verdict("jump", "x"), Verdict("jump", "x")),
    ],
)
def test_outcomes(statement: object, outcome: object) -> None:
    assert run(statement) == outcome


def test_a_map_with_a_catch_all_answers_for_every_key() -> None:
    content = SetContent((16,), {}, default=Element(0, DROP), is_map=True)
    assert run(VerdictMap(PORT, content)) == DROP


@pytest.mark.parametrize(
    ("statement", "kind", "named"),
    [
        (Limit(5, "second"), Kind.RATE, "5 packets/second"),
        (Quota(100), Kind.RATE, "100"),
        (UnknownStatement("xt match string"), Kind.UNKNOWN, "xt match string"),
        (Lookup(Meta("length"), elements(5)), Kind.UNKNOWN, "length"),
    ],
)
def test_doubts_name_what_they_are_about(statement: object, kind: Kind, named: str) -> None:
    outcome = run(statement)
    assert isinstance(outcome, Unsure)
    assert (outcome.kind, named in outcome.why) == (kind, True)


def test_an_element_with_a_limit_of_its_own_is_a_doubt() -> None:
    content = SetContent((32,), {CLIENT: Element(CLIENT, statements=(Limit(1, "hour"),))})
    assert isinstance(run(Lookup(SOURCE, content)), Unsure)


def test_a_set_that_is_not_there_is_missing_evidence() -> None:
    about = context()
    about.packet.source = CLIENT
    with pytest.raises(MissingEvidence, match="set s of table ip t"):
        run(Lookup(Meta("length"), "s"), about)


def test_a_drawn_number_asks_which_entry() -> None:
    content = SetContent((32,), {0: Element(0, 7), 1: Element(1, 8)}, is_map=True)
    chooser = Chooser((1,))
    about = context(chooser=chooser)
    run(SetMeta("mark", MapValue(Numgen("random", 2), content)), about)
    assert about.packet.mark == 8
    assert [c.why for c in chooser.choices] == ["numgen random mod 2"]


def test_marks_are_set_and_a_missing_entry_ends_the_rule() -> None:
    about = context()
    assert run(SetMeta("mark", Constant(9)), about) is None
    assert about.packet.mark == 9
    assert run(SetMeta("mark", MapValue(PORT, elements(81, data=1))), about) is False
    assert about.packet.mark == 9
    assert run(SetMeta("mark", Ct("mark")), about) is False


def test_connection_marks_areelements() -> None:
    about = tracked()
    assert run(SetCt("mark", Constant(3)), about) is None
    assert about.packet.tracking is not None
    assert about.packet.tracking.mark == 3
    assert run(SetCt("mark", Constant(3)), context()) is None


def test_other_metadata_is_remembered() -> None:
    about = context()
    assert run(SetMeta("pkttype", Constant(1)), about) is None
    assert run(Match(Meta("pkttype"), "==", 1), about) is True


def test_header_fields_are_rewritten() -> None:
    about = context()
    field = Payload("network", 8, 6)
    assert run(SetPayload(field, Constant(8)), about) is None
    assert run(Match(field, "==", 8), about) is True


def test_notrack_marks_the_packet_untracked_once() -> None:
    about = context()
    assert run(Notrack(), about) is None
    assert about.packet.tracking is not None
    assert about.packet.tracking.untracked


def test_an_address_added_on_the_way_is_found() -> None:
    rules = Rules(sets={("ip", "t", "s"): elements()})
    about = context()
    assert run(Lookup(SOURCE, "s"), about, rules) is False
    assert run(UpdateSet("add", SOURCE, "s"), about, rules) is None
    assert run(Lookup(SOURCE, "s"), about, rules) is True


def test_limits_in_words() -> None:
    assert (
        describe_limit(Limit(5, "second", over=True)) == "limit rate 5 packets/second (over) depends on other traffic"
    )
