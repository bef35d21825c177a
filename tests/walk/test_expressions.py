"""Expressions over a packet."""

from __future__ import annotations

import pytest

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.nft import (
    Bitwise,
    Concat,
    Constant,
    Ct,
    Expression,
    Meta,
    Numgen,
    Payload,
    Shift,
    UnknownExpression,
)
from calico_debug.model.routing import Interface
from calico_debug.model.values import Drawn, Partial, unknown
from calico_debug.walk.context import Context
from calico_debug.walk.expressions import compile_expression
from calico_debug.walk.packet import Tracking
from tests.walk.worlds import CLIENT, context, packet


def _value(expression: Expression, about: Context | None = None) -> object:
    def no_maps(_value: object) -> object:
        raise AssertionError("no map is asked here")

    return compile_expression(expression, no_maps)(about or context())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (Constant(5), 5),
        (Payload("network", 96, 32), CLIENT),
        (Meta("l4proto"), 6),
        (Meta("nfproto"), 2),
        (Meta("protocol"), 0x0800),
        (Meta("mark"), 0),
        (Meta("iifname"), ""),
        (Meta("oif"), 0),
        (Meta("iiftype"), None),
        (Meta("iifkind"), None),
        (Meta("skuid"), None),
        (Ct("state"), STATE_BITS["invalid"]),
        (Ct("mark"), None),
        (Bitwise(Constant(0xFF), 0x0F, 0x1), 0x0E),
        (Shift(Constant(1), 4), 16),
        (Shift(Constant(16), -4), 1),
        (Concat((Constant(1), Constant("lo"))), (1, "lo")),
        (Concat((Constant(1), Meta("iiftype"))), None),
        (Numgen("random", 1, 7), 7),
        (Numgen("random", 3), Drawn(0, 2, "numgen random mod 3")),
    ],
)
def test_values(expression: Expression, value: object) -> None:
    assert _value(expression) == value


def test_what_is_not_understood_is_open_and_named() -> None:
    value = _value(UnknownExpression("osf name"))
    assert isinstance(value, Partial)
    assert value.why == "osf name is not understood"
    length = _value(Meta("length"))
    assert isinstance(length, Partial)
    assert "length" in length.why


def test_known_bits_survive_masks_and_shifts() -> None:
    about = context()
    about.packet.mark = Partial(0x10, 0xF0, 32, "half")
    assert _value(Bitwise(Meta("mark"), 0xF0, 0), about) == 0x10
    assert isinstance(_value(Bitwise(Meta("mark"), 0xFF, 0), about), Partial)
    shifted = _value(Shift(Bitwise(Meta("mark"), 0xF0, 0), -4), about)
    assert shifted == 1


def test_devices_without_a_kind_end_the_rule_and_types_follow_the_buffer() -> None:
    about = context()
    about.packet.incoming, about.packet.outgoing = Interface("eth0", 2), Interface("tunl0", 3, "ipip")
    assert _value(Meta("iifkind"), about) is None
    assert _value(Meta("oifkind"), about) == "ipip"
    about.hook = "forward"
    assert _value(Meta("iiftype"), about) == 1
    about.hook = "postrouting"
    assert _value(Meta("iiftype"), about) == 768


def test_conntrack_keys() -> None:
    about = context(packet())
    ends = about.packet.ends()
    about.packet.tracking = Tracking(STATE_BITS["new"], ends, ends, mark=5)
    assert _value(Ct("mark"), about) == 5
    assert _value(Ct("proto-dst", "original"), about) == 80
    assert _value(Ct("direction"), about) == 0
    about.packet.tracking.state = STATE_BITS["untracked"]
    assert _value(Ct("mark"), about) is None
    assert _value(Ct("state"), about) == STATE_BITS["untracked"]


def test_open_marks_stay_open() -> None:
    about = context()
    about.packet.mark = unknown(32, "from outside")
    assert _value(Meta("mark"), about) == unknown(32, "from outside")
