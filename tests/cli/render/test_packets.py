"""Events and summaries as text and JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

from calico_debug.cli.render.packets import event_line, summary_lines
from calico_debug.cli.render.terminal import PLAIN
from calico_debug.explain.packet_document import event_document, json_line
from calico_debug.explain.packet_story import direction
from calico_debug.model.explanation import Decision, PolicyRef, Step
from calico_debug.model.packet_event import Ends, Losses
from tests.cli.samples import SAMPLES
from tests.explain.test_packet_story import DELIVERED, DENIED, ERROR, PLACES

EVENT = replace(DELIVERED[1], time=1_795_274_845_474_073_460, mark=0x1000042)


def test_a_line() -> None:
    assert event_line(EVENT, 12, PLACES, ("seen", "0x42")) == (
        "15:27:25.474073 #12 request  received by calicli  tcp 10.244.1.12:20000 -> 10.244.1.10:80 SYN, 60 bytes, "
        "mark 0x1000042 (seen, 0x42)\n"
    )


def test_what_else_is_known() -> None:
    line = event_line(replace(EVENT, mark=0, followed=True, tunnelled=True, flags=0x11), 1, PLACES, ())
    assert line.endswith("ACK FIN, 60 bytes, translated, inside of the tunnel\n")
    assert " error    sent by calicli " in event_line(ERROR[0], 1, PLACES, ())
    assert "type 3 code 13" in event_line(ERROR[0], 1, PLACES, ())


def test_ipv6() -> None:
    six = replace(EVENT, ends=Ends(6, ip_address("fd00::1"), ip_address("fd00::2"), 1, 2))
    assert "tcp [fd00::1]:1 -> [fd00::2]:2" in event_line(six, 1, PLACES, ())


def test_a_mark_that_means_nothing_is_told_once() -> None:
    assert event_line(replace(EVENT, mark=0x42), 1, PLACES, ("0x42",)).endswith("mark 0x42\n")


def test_names_do_not_steer_the_terminal() -> None:
    line = event_line(replace(EVENT, interface="\x1b[31mcali"), 1, PLACES, ())
    assert "\x1b" not in line
    assert "\\x1b" in line


def test_directions() -> None:
    assert direction(replace(EVENT, flow=None)) == ""
    assert direction(replace(EVENT, reply=True)) == "answer"


def test_a_document_leaves_out_what_is_not_known() -> None:
    assert event_document(replace(EVENT, mark=0), 3, PLACES, ()) == {
        "apiVersion": "calico-debug/v1",
        "kind": "PacketEvent",
        "time": "2026-11-21T15:27:25.474073Z",
        "node": "node1",
        "packet": 3,
        "event": "received",
        "direction": "request",
        "interface": "calicli",
        "namespace": 1,
        "protocol": "tcp",
        "source": {"ip": "10.244.1.12", "port": 20000},
        "destination": {"ip": "10.244.1.10", "port": 80},
        "length": 60,
        "flags": ["SYN"],
    }
    drop = event_document(replace(DENIED[-1], mark=1), 3, PLACES, ("0x1",))
    assert (drop["reason"], drop["place"], drop["mark"], drop["markMeans"]) == (
        "NETFILTER_DROP",
        "nft_do_chain",
        "0x1",
        ["0x1"],
    )


def test_a_document_tells_a_source_that_is_not_the_pods() -> None:
    places = replace(PLACES, leads={"calicli": 7}, addresses={"calicli": ["10.244.1.99"]})
    assert event_document(DENIED[-1], 3, places, ())["foreignSource"] is True
    assert "foreignSource" not in event_document(DENIED[-2], 3, places, ())


def test_what_was_allowed_before_is_in_the_summary() -> None:
    step = Step("node1", "egress", "allowed", "", "egress", "platform", PolicyRef("NetworkPolicy", "out", "red"))
    left = replace(
        SAMPLES["denied_end_of_tier"],
        verdict="undetermined",
        decision=Decision("node1", "ebpf", "missing-evidence", detail="goes on"),
        steps=(step,),
    )
    text = summary_lines(None, left, (1, 1), Losses(), "", PLAIN)
    assert text.startswith(
        "predicted UNDETERMINED on node1: goes on; before that egress ALLOWED on node1 by NetworkPolicy red/out\n"
    )


def test_lines_of_json_are_printable() -> None:
    assert json_line({"a": "\x7fé\x1b"}) == '{"a":"\\u007f\\u00e9\\u001b"}\n'
    assert json.loads(json_line({"a": "\x7fé"})) == {"a": "\x7fé"}
