"""Lists of recent addresses: what a packet puts there itself is known, the rest is open."""

from __future__ import annotations

import pytest

from calico_debug.model.nft import Payload, Recent, Rule
from calico_debug.walk.choices import Kind, Unsure
from calico_debug.walk.recent import compile_recent
from tests.walk.worlds import CLIENT, SERVER, context

SOURCE, DESTINATION = Payload("network", 96, 32), Payload("network", 128, 32)
RULE = Rule("ip", "nat", "KUBE-SVC-X", 3, ())


def run(*statements: Recent, source: int = CLIENT) -> list[object]:
    """What each gives for one packet."""
    about = context()
    looked_for = {SOURCE: source, DESTINATION: SERVER}
    return [compile_recent(one, lambda _, one=one: looked_for[one.address], RULE)(about) for one in statements]  # type: ignore[misc,index]


def test_putting_an_address_there_always_matches() -> None:
    assert run(Recent("l", "set", SOURCE), Recent("l", "set", SOURCE, negated=True)) == [True, False]


def test_what_others_put_there_is_open_and_said() -> None:
    (answer,) = run(Recent("l", "check", SOURCE, seconds=10800))
    assert isinstance(answer, Unsure)
    assert answer.kind is Kind.MEMORY
    assert answer.why == (
        "whether chain KUBE-SVC-X of table ip nat remembers 10.1.0.2 from earlier packets (iptables match recent) is "
        "not in the evidence; files in /proc/net/xt_recent on the node tell"
    )


@pytest.mark.parametrize(
    ("asked", "known"),
    [
        (Recent("l", "check", SOURCE), True),
        (Recent("l", "update", SOURCE, negated=True, seconds=1), False),
        (Recent("l", "remove", SOURCE, hits=1), True),
        (Recent("l", "check", SOURCE, hits=2), None),
        (Recent("l", "check", SOURCE, same_ttl=True), None),
        (Recent("other", "check", SOURCE), None),
        (Recent("l", "check", DESTINATION), None),
    ],
)
def test_what_the_packet_put_there_itself(asked: Recent, known: bool | None) -> None:
    answer = run(Recent("l", "set", SOURCE), asked)[1]
    assert isinstance(answer, Unsure) if known is None else answer is known


def test_what_was_taken_away_is_open_again() -> None:
    put, take, ask = (Recent("l", operation, SOURCE) for operation in ("set", "remove", "check"))
    assert [isinstance(answer, Unsure) for answer in run(put, take, ask)] == [False, False, True]
