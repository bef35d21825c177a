"""What a packet leaves behind."""

from __future__ import annotations

from calico_debug.walk.context import Trace
from tests.walk.worlds import context, packet


def test_a_trace_is_empty_at_first() -> None:
    trace = Trace(hypothetical=True)
    assert (trace.events, trace.counted, trace.denials, trace.undecided, trace.missing) == ([], [], [], "", False)
    assert trace.hypothetical


def test_fib_asks_about_the_packet_as_it_is_now() -> None:
    about = context(packet())
    about.hook = "forward"
    assert about.fib("oifname", frozenset({"daddr"}), present=False) == "eth-s"
    about.packet.destination = about.packet.source
    assert about.fib("oifname", frozenset({"daddr"}), present=False) == "eth-c"
