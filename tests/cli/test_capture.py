"""The command capture, with a watch made of memory."""

from __future__ import annotations

import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.environment import Place, WatchQuestion
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.model.packet_event import Losses
from calico_debug.model.subject import Subject
from tests.cli.packet_watch import MemoryWatch
from tests.cli.samples import SAMPLES
from tests.cli.worlds import Ran, run
from tests.explain.test_packet_story import ANSWER, DELIVERED, DENIED

if TYPE_CHECKING:
    from pathlib import Path

    from calico_debug.model.packet_event import PacketEvent

DATA = bytes.fromhex("4500001c000040004011 26b8 0af4010a 0af4010e 0035 1f90 0008 0000".replace(" ", ""))


def with_data(*events: PacketEvent) -> list[PacketEvent | BaseException | int]:
    return [replace(event, data=DATA) for event in events]


def captured(watch: MemoryWatch, path: Path, *arguments: str) -> tuple[Ran, list[WatchQuestion]]:
    asked: list[WatchQuestion] = []

    def opened(place: Place, platform: str, question: WatchQuestion) -> MemoryWatch:
        asked.append(question)
        return watch

    flow = arguments or ("--from", "red/cli1", "--to", "red/web1:80")
    return run("capture", *flow, "-w", str(path), open_watch=opened), asked


def interfaces(path: Path) -> list[str]:
    """The interface of each packet."""
    reader = pytest.importorskip("scapy.utils").RawPcapNgReader(str(path))
    return [meta.ifname.decode() for _, meta in reader]


def test_a_flow(tmp_path: Path) -> None:
    path = tmp_path / "flow.pcapng"
    watch = MemoryWatch(with_data(*DELIVERED, *ANSWER), explanation=SAMPLES["denied_end_of_tier"])
    ran, asked = captured(watch, path)
    assert ran.code == ExitCode.ANSWERED
    assert asked == [WatchQuestion(Subject("red/cli1", "red/web1:80"), 60.0, 10_000, 1 << 40, 1000, 256)]
    assert interfaces(path) == [
        *("eth0 in red/cli1", "calicli", "caliweb", "eth0 in red/web1"),
        *("eth0 in red/web1", "eth0 in red/cli1"),
    ]
    lines = ran.out.splitlines()
    assert lines[0] == f"{path}: {path.stat().st_size} bytes, 4 interfaces"
    assert lines[1].startswith("observed  ALLOWED on node1")
    assert lines[-1].startswith("6 events of 2 packets; 0 events lost")
    assert ran.err.splitlines()[0] == "capturing on node1: tcp a -> b"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_comments_say_what_became_of_a_packet(tmp_path: Path) -> None:
    path = tmp_path / "flow.pcapng"
    captured(MemoryWatch(with_data(*DENIED), explanation=SAMPLES["denied_end_of_tier"]), path)
    content = path.read_bytes()
    assert b"request DROPPED at calicli: NETFILTER_DROP in nft_do_chain (a rule of nftables or iptables)" in content
    assert b"; predicted DENIED on node1; tier platform; policy " in content
    assert b"; reason end-of-tier: end of tier: " in content


def test_addresses_get_their_names(tmp_path: Path) -> None:
    path = tmp_path / "flow.pcapng"
    captured(MemoryWatch(with_data(*DENIED), explanation=SAMPLES["denied_end_of_tier"]), path)
    source = SAMPLES["denied_end_of_tier"].source
    assert source.pod is not None
    assert f"{source.pod['name']}.{source.pod['namespace']}.pod\0".encode() in path.read_bytes()


def test_run_is_what_is_meant_without_a_word(tmp_path: Path) -> None:
    one, two = tmp_path / "one.pcapng", tmp_path / "two.pcapng"
    captured(MemoryWatch(with_data(*DELIVERED)), one, "--from", "a", "--to", "b")
    captured(MemoryWatch(with_data(*DELIVERED)), two, "run", "--from", "a", "--to", "b")
    assert one.read_bytes() == two.read_bytes()
    assert "Commands:" in run("capture", "--help").out
    assert "start" in run("capture", "-h").out


@pytest.mark.parametrize("meant", [("--pod", "a/b"), ("--policy", "a/b"), ("--pod", "a/b", "--drops")])
def test_pods_and_policies(tmp_path: Path, meant: tuple[str, ...]) -> None:
    path = tmp_path / "some.pcapng"
    ran, asked = captured(MemoryWatch(with_data(replace(DENIED[-1], flow=None))), path, "run", *meant)
    subject = asked[0].subject
    assert (subject.pod or subject.policy, subject.drops) == ("a/b", "--drops" in meant)
    assert "observed" not in ran.out
    assert interfaces(path) == ["calicli"]


def test_all_drops(tmp_path: Path) -> None:
    path = tmp_path / "drops.pcapng"
    drop = replace(DENIED[-1], flow=None, data=DATA)
    ran, asked = captured(MemoryWatch([drop], losses=Losses(matched=2, limited=1)), path, "--drops", "--snap", "64")
    assert "observed" not in ran.out
    assert "1 event lost" in ran.out
    assert (asked[0].subject, asked[0].data) == (Subject(drops=True), 64)
    assert interfaces(path) == ["calicli"]


def test_the_file_ends_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "flow.pcapng"
    watch = MemoryWatch(with_data(*DELIVERED * 100), queued=DENIED, limited_by="")
    ran, _ = captured(watch, path, "--from", "a", "--to", "b", "--bytes", "1000")
    assert 1000 <= path.stat().st_size < 1500
    assert "ended by the limit of bytes" in ran.out
    assert ran.code == ExitCode.ANSWERED


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "flow.pcapng"
    path.write_bytes(b"mine")
    watch = MemoryWatch([])
    ran, _ = captured(watch, path)
    assert (ran.code, path.read_bytes(), watch.open) == (ExitCode.USAGE, b"mine", False)
    assert "is there already" in ran.err


def test_a_file_that_cannot_be_made(tmp_path: Path) -> None:
    ran, _ = captured(MemoryWatch([]), tmp_path / "none" / "flow.pcapng")
    assert ran.code == ExitCode.FAILED
    assert "cannot be made: No such file or directory" in ran.err


def test_a_file_is_needed() -> None:
    ran = run("capture", "--drops")
    assert ran.code == ExitCode.USAGE
    assert "--write" in ran.err
