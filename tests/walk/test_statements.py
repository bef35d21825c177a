"""Statements over a packet."""

from __future__ import annotations

import pytest

from calico_debug.errors import MissingEvidence
from calico_debug.model.conntrack import STATE_BITS
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
    Nat,
    Notrack,
    Numgen,
    Payload,
    Quota,
    Rule,
    SetContent,
    SetCt,
    SetMeta,
    SetPayload,
    UnknownStatement,
    UpdateSet,
    Verdict,
    VerdictMap,
)
from calico_debug.model.values import unknown
from calico_debug.walk.choices import Chooser, Kind, Unsure
from calico_debug.walk.context import Context, Undecided
from calico_debug.walk.packet import Tracking
from calico_debug.walk.statements import StatementCompiler, describe_limit
from tests.walk.worlds import CLIENT, SERVER, Rules, context

SOURCE, PORT = Payload("network", 96, 32), Payload("transport", 16, 16)
RULE = Rule("ip", "t", "c", 1, ())
ACCEPT, DROP = Verdict("accept"), Verdict("drop")


def _run(statement: object, about: Context | None = None, rules: Rules | None = None, family: str = "ip") -> object:
    return StatementCompiler(rules or Rules(), family, "t").compile(statement, RULE)(about or context())  # type: ignore[arg-type]


def _tracked() -> Context:
    about = context()
    ends = about.packet.ends()
    about.packet.tracking = Tracking(STATE_BITS["new"], ends, type(ends)(SERVER, CLIENT, 80, 20_000))
    return about


def _set(*keys: int, data: object = None) -> SetContent:
    return SetContent((32,), {key: Element(key, data) for key in keys}, is_map=data is not None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("statement", "outcome"),
    [
        (Match(PORT, "==", 80), True),
        (Match(PORT, "!=", 80), False),
        (Match(PORT, "==", Interval(1, 100)), True),
        (Match(Meta("skuid"), "==", 0), False),
        (Lookup(SOURCE, _set(CLIENT)), True),
        (Lookup(SOURCE, _set(SERVER)), False),
        (Lookup(SOURCE, _set(SERVER), negated=True), True),
        (Lookup(Meta("skuid"), _set(0), negated=True), False),
        (VerdictMap(PORT, _set(80, data=DROP)), DROP),
        (VerdictMap(PORT, _set(81, data=DROP)), False),
        (VerdictMap(PORT, _set(80, data=Verdict("continue"))), None),
        (Verdict("continue"), None),
        (Verdict("jump", "x"), Verdict("jump", "x")),
    ],
)
def test_outcomes(statement: object, outcome: object) -> None:
    assert _run(statement) == outcome


def test_a_map_with_a_catch_all_answers_for_every_key() -> None:
    content = SetContent((16,), {}, default=Element(0, DROP), is_map=True)
    assert _run(VerdictMap(PORT, content)) == DROP


@pytest.mark.parametrize(
    ("statement", "kind", "named"),
    [
        (Limit(5, "second"), Kind.RATE, "5 packets/second"),
        (Quota(100), Kind.RATE, "100"),
        (UnknownStatement("xt match string"), Kind.UNKNOWN, "xt match string"),
        (Lookup(Meta("length"), _set(5)), Kind.UNKNOWN, "length"),
    ],
)
def test_doubts_name_what_they_are_about(statement: object, kind: Kind, named: str) -> None:
    outcome = _run(statement)
    assert isinstance(outcome, Unsure)
    assert (outcome.kind, named in outcome.why) == (kind, True)


def test_an_element_with_a_limit_of_its_own_is_a_doubt() -> None:
    content = SetContent((32,), {CLIENT: Element(CLIENT, statements=(Limit(1, "hour"),))})
    assert isinstance(_run(Lookup(SOURCE, content)), Unsure)


def test_a_set_that_is_not_there_is_missing_evidence() -> None:
    about = context()
    about.packet.source = CLIENT
    with pytest.raises(MissingEvidence, match="set s of table ip t"):
        _run(Lookup(Meta("length"), "s"), about)


def test_a_drawn_number_asks_which_entry() -> None:
    content = SetContent((32,), {0: Element(0, 7), 1: Element(1, 8)}, is_map=True)
    chooser = Chooser((1,))
    about = context(chooser=chooser)
    _run(SetMeta("mark", MapValue(Numgen("random", 2), content)), about)
    assert about.packet.mark == 8
    assert [c.why for c in chooser.choices] == ["numgen random mod 2"]


def test_marks_are_set_and_a_missing_entry_ends_the_rule() -> None:
    about = context()
    assert _run(SetMeta("mark", Constant(9)), about) is None
    assert about.packet.mark == 9
    assert _run(SetMeta("mark", MapValue(PORT, _set(81, data=1))), about) is False
    assert about.packet.mark == 9
    assert _run(SetMeta("mark", Ct("mark")), about) is False


def test_connection_marks_are_set() -> None:
    about = _tracked()
    assert _run(SetCt("mark", Constant(3)), about) is None
    assert about.packet.tracking is not None
    assert about.packet.tracking.mark == 3
    assert _run(SetCt("mark", Constant(3)), context()) is None


def test_other_metadata_is_remembered() -> None:
    about = context()
    assert _run(SetMeta("pkttype", Constant(1)), about) is None
    assert _run(Match(Meta("pkttype"), "==", 1), about) is True


def test_header_fields_are_rewritten() -> None:
    about = context()
    field = Payload("network", 8, 6)
    assert _run(SetPayload(field, Constant(8)), about) is None
    assert _run(Match(field, "==", 8), about) is True


def test_notrack_marks_the_packet_untracked_once() -> None:
    about = context()
    assert _run(Notrack(), about) is None
    assert about.packet.tracking is not None
    assert about.packet.tracking.untracked


def test_an_address_added_on_the_way_is_found() -> None:
    rules = Rules(sets={("ip", "t", "s"): _set()})
    about = context()
    assert _run(Lookup(SOURCE, "s"), about, rules) is False
    assert _run(UpdateSet("add", SOURCE, "s"), about, rules) is None
    assert _run(Lookup(SOURCE, "s"), about, rules) is True


def test_translation_to_an_address_and_port() -> None:
    about = _tracked()
    assert _run(Nat("dnat", Constant(0x0A020003), None, Constant(8080)), about) == ACCEPT
    assert about.packet.tracking is not None
    reply = about.packet.tracking.reply
    assert (reply.source, reply.source_port) == (0x0A020003, 8080)


def test_one_lookup_may_give_address_and_port() -> None:
    content = SetContent((16,), {80: Element(80, (0x0A020003, 8080))}, is_map=True)
    about = _tracked()
    assert _run(Nat("dnat", MapValue(PORT, content)), about) == ACCEPT
    assert about.packet.tracking is not None
    assert (about.packet.tracking.reply.source, about.packet.tracking.reply.source_port) == (0x0A020003, 8080)


def test_translation_without_an_entry_or_for_another_family_does_nothing() -> None:
    about = _tracked()
    assert _run(Nat("dnat", MapValue(PORT, _set(81, data=1))), about) is False
    assert _run(Nat("dnat", Constant(1), version=6), about, family="inet") is None
    assert about.packet.tracking is not None
    assert not about.packet.tracking.done


def test_source_translation_leaves_the_port_open() -> None:
    about = _tracked()
    _run(Nat("snat", Constant(0x0A020009)), about)
    assert about.packet.tracking is not None
    assert about.packet.tracking.reply.destination_port == unknown(16, "source translation may pick another port")


def test_a_range_of_addresses_is_undecided() -> None:
    with pytest.raises(Undecided, match="range"):
        _run(Nat("dnat", Constant(1), Constant(9)), _tracked())


def test_limits_in_words() -> None:
    assert (
        describe_limit(Limit(5, "second", over=True)) == "limit rate 5 packets/second (over) depends on other traffic"
    )
