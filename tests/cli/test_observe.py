"""The command observe, with a watch made of memory."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.environment import Place, WatchQuestion, open_watch
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.observe import SHOWN
from calico_debug.errors import EvidenceError
from calico_debug.model.packet_event import Losses
from calico_debug.model.subject import Subject
from tests.cli.packet_watch import MemoryWatch
from tests.cli.samples import SAMPLES
from tests.cli.worlds import Ran, run
from tests.explain.test_packet_story import ANSWER, DELIVERED, DENIED

if TYPE_CHECKING:
    from calico_debug.model.packet_event import PacketEvent

ASKED = ("observe", "--from", "red/cli1", "--to", "red/web1:80")


def watched(watch: MemoryWatch, *arguments: str) -> tuple[Ran, list[tuple[Place, str, WatchQuestion]]]:
    asked: list[tuple[Place, str, WatchQuestion]] = []

    def opened(place: Place, platform: str, question: WatchQuestion) -> MemoryWatch:
        asked.append((place, platform, question))
        return watch

    return run(*(arguments or ASKED), open_watch=opened), asked


def test_a_flow_line_by_line() -> None:
    ran, asked = watched(MemoryWatch([*DELIVERED, *ANSWER], explanation=SAMPLES["allowed_same_node"]))
    assert ran.code == ExitCode.ANSWERED
    lines = ran.out.splitlines()
    assert len(lines) == 9
    assert lines[0].split(" ", 1)[1] == (
        "#1 request  sent by eth0 in red/cli1  tcp 10.244.1.12:20000 -> 10.244.1.10:80 SYN, 60 bytes"
    )
    assert lines[4].split()[1:3] == ["#2", "answer"]
    assert lines[6] == "observed  ALLOWED on node1: packet delivered to eth0 in red/web1; answers seen"
    assert lines[7].startswith("predicted ALLOWED")
    assert lines[8] == "6 events of 2 packets; 0 events lost (0 for want of room, 0 over the limit of the rate)"
    assert ran.err == "watching node1: tcp a -> b\nwarning: told at the end\n"
    assert asked[0][2] == WatchQuestion(Subject("red/cli1", "red/web1:80"), 10.0, 1000, 100 << 20, SHOWN)


def test_what_was_queued_is_told_too() -> None:
    ran, _ = watched(MemoryWatch([*DENIED[:1]], queued=DENIED[1:]))
    assert "DROPPED at calicli: NETFILTER_DROP in nft_do_chain (a rule of nftables or iptables)" in ran.out
    assert "observed  DENIED on node1" in ran.out
    assert "predicted" not in ran.out


def test_losses_are_always_told() -> None:
    watch = MemoryWatch([], losses=Losses(matched=9, ring_full=1, limited=2, unreadable=3, missed=4))
    watch.limited_by = "packets"
    ran, _ = watched(watch)
    assert ran.out.splitlines()[-1] == (
        "0 events of 0 packets; ended by the limit of packets; 3 events lost (1 for want of room, 2 over the limit of "
        "the rate); up to 4 packets passed over; 3 drops of what is no IP packet not shown"
    )


def test_drops_have_no_verdict() -> None:
    drop = replace(DENIED[-1], flow=None, mark=0x10000)
    ran, asked = watched(MemoryWatch([drop]), "observe", "--drops", "--seconds", "2", "--rate", "50")
    assert ran.out.splitlines()[0].split(" ", 1)[1] == (
        "#1 DROPPED at calicli: NETFILTER_DROP in nft_do_chain (a rule of nftables or iptables)  "
        "tcp 10.244.1.12:20000 -> 10.244.1.10:80 SYN, 60 bytes, mark 0x10000 (accept)"
    )
    assert "observed" not in ran.out
    assert asked[0][2] == WatchQuestion(Subject(drops=True), 2.0, 1000, 100 << 20, 50)


def test_json_lines() -> None:
    events: list[PacketEvent | BaseException | int] = [*DENIED]
    ran, _ = watched(MemoryWatch(events, explanation=SAMPLES["denied_end_of_tier"]), *ASKED, "-o", "json")
    documents = [json.loads(line) for line in ran.out.splitlines()]
    assert [d["kind"] for d in documents] == ["PacketEvent"] * 3 + ["PacketObservation"]
    assert documents[2]["reason"] == "NETFILTER_DROP"
    assert documents[2]["source"] == {"ip": "10.244.1.12", "port": 20000}
    assert documents[0]["pod"] == "red/cli1"
    assert documents[3]["witness"]["verdict"] == "denied"
    assert documents[3]["predicted"] == "denied"
    assert documents[3]["losses"] == {"noRoom": 0, "rateLimited": 0, "passedOver": 0, "notIp": 0}


def test_interrupted_from_the_keyboard_the_summary_is_still_told() -> None:
    watch = MemoryWatch([*DELIVERED, signal.SIGINT, *DENIED], limited_by="")
    ran, _ = watched(watch)
    assert ran.code == ExitCode.INTERRUPTED
    assert "observed  ALLOWED" in ran.out
    assert not watch.open
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_interruption_ends_at_once() -> None:
    watch = MemoryWatch([KeyboardInterrupt()])
    ran, _ = watched(watch)
    assert (ran.code, ran.out) == (ExitCode.INTERRUPTED, "")
    assert not watch.open


def test_whatever_happens_the_watch_ends() -> None:
    watch = MemoryWatch([EvidenceError("the ring broke; try again")])
    ran, _ = watched(watch)
    assert (ran.code, ran.err.splitlines()[-1]) == (
        ExitCode.FAILED,
        "calico-debug: error: the ring broke; try again",
    )
    assert not watch.open


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--from", "a"), "--to missing"),
        ((), "--from and --to missing"),
        (("--drops", "--from", "a"), "--drops and --from contradict each other"),
        (("--from", "a", "--to", "b", "--seconds", "0"), "--seconds"),
        (("--from", "a", "--to", "b", "--packets", "0"), "--packets"),
        (("--from", "a", "--to", "b", "--bytes", "x"), "--bytes"),
    ],
)
def test_command_lines_that_cannot_be_understood(arguments: tuple[str, ...], words: str) -> None:
    ran, asked = watched(MemoryWatch([]), "observe", *arguments)
    assert ran.code == ExitCode.USAGE
    assert words in ran.err
    assert asked == []


def test_elsewhere_than_on_linux() -> None:
    ran = run(*ASKED, platform="darwin", open_watch=open_watch)
    assert ran.code == ExitCode.FAILED
    assert "packets can only be watched on a Linux node, and this system is darwin" in ran.err
