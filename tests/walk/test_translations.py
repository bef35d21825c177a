"""Translations of addresses and ports, as rules say them."""

from __future__ import annotations

import pytest

from calico_debug.model.nft import Constant, Element, MapValue, Nat, Payload, SetContent, Verdict
from calico_debug.model.values import unknown
from calico_debug.walk.context import Undecided
from tests.walk.worlds import elements, run, tracked

PORT = Payload("transport", 16, 16)
ACCEPT = Verdict("accept")


def test_translation_to_an_address_and_port() -> None:
    about = tracked()
    assert run(Nat("dnat", Constant(0x0A020003), None, Constant(8080)), about) == ACCEPT
    assert about.packet.tracking is not None
    reply = about.packet.tracking.reply
    assert (reply.source, reply.source_port) == (0x0A020003, 8080)


def test_one_lookup_may_give_address_and_port() -> None:
    content = SetContent((16,), {80: Element(80, (0x0A020003, 8080))}, is_map=True)
    about = tracked()
    assert run(Nat("dnat", MapValue(PORT, content)), about) == ACCEPT
    assert about.packet.tracking is not None
    assert (about.packet.tracking.reply.source, about.packet.tracking.reply.source_port) == (0x0A020003, 8080)


def test_translation_without_an_entry_or_for_another_family_does_nothing() -> None:
    about = tracked()
    assert run(Nat("dnat", MapValue(PORT, elements(81, data=1))), about) is False
    assert run(Nat("dnat", Constant(1), version=6), about, family="inet") is None
    assert about.packet.tracking is not None
    assert not about.packet.tracking.done


def test_source_translation_leaves_the_port_open() -> None:
    about = tracked()
    run(Nat("snat", Constant(0x0A020009)), about)
    assert about.packet.tracking is not None
    assert about.packet.tracking.reply.destination_port == unknown(16, "source translation may pick another port")


def test_a_range_of_addresses_is_undecided() -> None:
    with pytest.raises(Undecided, match="range"):
        run(Nat("dnat", Constant(1), Constant(9)), tracked())
