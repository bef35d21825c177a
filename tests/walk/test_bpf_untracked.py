"""Untracked policy at XDP: the recorded node2, whose host endpoint is given a program of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from calico_debug.decode.bpf_globals import XDP_GLOBALS
from calico_debug.model.bytecode import LOAD_WIDE, SECOND_HALF, Instruction
from calico_debug.model.explanation import FlowExplanation
from calico_debug.walk.choices import Chooser
from calico_debug.walk.packet import UDP, Packet
from calico_debug.walk.passage import DELIVERED, DENIED
from tests.bytecode.felix import (
    JUMP_FD,
    SETS_FD,
    STATE_FD,
    STATIC_FD,
    Builder,
    Policy,
    Rule,
    Rules,
    Style,
    Tier,
    debug_file,
)
from tests.decode.test_bpf_instructions import dumped
from tests.explain.world import decided
from tests.walk.recorded_bpf import POLICY, Change, RecordedCluster
from tests.walk.test_bpf_passage import new

OUTSIDE, NODE2 = "198.51.100.9", "172.30.0.12"
PREAMBLE, PROGRAM, SETTINGS, SLOT = 90012, 90032, 90201, 7
NONE = 0xFFFFFFFF
UNTRACKED = Rules(
    normal=(
        Tier(
            "default",
            (
                Policy(
                    "fast",
                    (
                        Rule("allow", 71, protocol="udp", destination_ports=((9999, 9999),)),
                        Rule("allow", 72, protocol="tcp", destination_ports=((9999, 9999),)),
                        Rule("deny", 73, destination_ports=((9998, 9998),)),
                    ),
                ),
            ),
            "pass",
            79,
        ),
    ),
    xdp=True,
)
ANSWERS = b"-A cali-to-host-endpoint -j MARK --set-xmark 0x10000/0x10000\n"
"""What Felix writes there for an untracked policy that allows all that leaves (felix/rules, raw table)."""


def with_xdp(rules: Rules = UNTRACKED, mode: str = "generic", answers: bool = True, slots: bool = True) -> Change:
    def change(files: dict[str, bytes]) -> None:
        if b"FELIX_FELIXHOSTNAME=node2" not in files["felix-env.txt"]:
            return
        maps = json.loads(files["bpf/map-show.json"])
        jumps = next(one for one in maps if one["name"] == "xdp_cali_jump3")
        link = next(one for one in json.loads(files["ip-link.json"]) if one["ifname"] == "eth0")
        settings = {"id": SETTINGS, "type": "array", "name": "cali_xdp.rodata", "bytes_key": 4}
        maps.append(settings | {"bytes_value": 2 * XDP_GLOBALS.size, "max_entries": 1})
        programs = json.loads(files["bpf/prog-show.json"])
        programs.append({"id": PREAMBLE, "type": "xdp", "name": "cali_xdp_preamb", "map_ids": [jumps["id"], SETTINGS]})
        programs.append({"id": PROGRAM, "type": "xdp", "name": "p4x_eth0", "map_ids": []})
        attached = {"devname": "eth0", "ifindex": link["ifindex"], "mode": mode, "id": PREAMBLE}
        four = XDP_GLOBALS.pack({"interface": "eth0".ljust(15, "-"), "jumps": (0, SLOT, *([NONE] * 14))})
        six = XDP_GLOBALS.pack({"jumps": (NONE,) * 16})
        info = json.dumps(maps).encode()
        files["bpf/map-show.json"] = info
        files["bpf/prog-show.json"] = json.dumps(programs).encode()
        files["bpf/net-show.json"] = json.dumps([{"xdp": [attached], "tc": []}]).encode()
        files[f"bpf/rodata-{SETTINGS}.json"] = dump({bytes(4): four + six})
        slot = {SLOT.to_bytes(4, "little"): PROGRAM.to_bytes(4, "little")} if slots else {}
        files["bpf/map-xdp_cali_jump3.json"] = dump(slot)
        files[f"{POLICY}eth0_xdp_v4.json"] = debug_file(rules, interface="eth0")
        if answers:
            saved = files["iptables-save.txt"]
            place = saved.index(b"-A cali-untracked-policy")
            place = saved.rindex(b"\n", 0, place) + 1
            files["iptables-save.txt"] = saved[:place] + ANSWERS + saved[place:]

    return change


def dump(pairs: dict[bytes, bytes]) -> bytes:
    listed = [
        {"key": [f"{b:#04x}" for b in key], "value": [f"{b:#04x}" for b in value]} for key, value in pairs.items()
    ]
    return json.dumps(listed).encode()


def ask(change: Change, port: int, protocol: str = "tcp", source: str = f"{OUTSIDE}:40000") -> FlowExplanation:
    cluster = RecordedCluster(change)
    return cluster.engine.explain(cluster.resolver.resolve(source, f"{NODE2}:{port}", protocol=protocol, via="node2"))


def stages(answer: FlowExplanation) -> list[tuple[str, str]]:
    return [(step.stage, step.action) for step in answer.steps if step.stage in ("host", "reply")]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_untracked_policy_accepts_meets_no_other(protocol: str) -> None:
    answer = ask(with_xdp(), 9999, protocol)
    assert decided(answer) == ("allowed", "rule", "node2")
    assert answer.decision is not None
    assert answer.decision.policy is not None
    assert answer.decision.policy.name == "fast"
    assert stages(answer) == [("host", "allowed"), ("reply", "passed")]
    untracked = [step for step in answer.steps if step.stage == "conntrack"]
    assert {step.action for step in untracked} <= {"untracked"}


def test_what_it_denies_is_gone() -> None:
    assert decided(ask(with_xdp(), 9998)) == ("denied", "rule", "node2")


def test_what_it_says_nothing_of_goes_on_to_tc() -> None:
    without, answer = ask(lambda _files: None, 9997), ask(with_xdp(), 9997)
    assert decided(answer) == decided(without) == ("denied", "rule", "node2")
    assert [one for one in stages(answer) if one not in stages(without)] == []
    assert stages(answer) == [("host", "passed"), ("host", "passed"), *stages(without)]


def test_answers_need_untracked_policy_of_their_own() -> None:
    """With conntrack none the wiser, a host endpoint drops answers in the middle of TCP (tc.c, SUPPRESS_CT_STATE)."""
    answer = ask(with_xdp(answers=False), 9999)
    assert decided(answer) == ("denied", "ct-invalid", "node2")


def test_failsafe_ports_are_left_to_tc() -> None:
    everything = Rules(normal=(Tier("default", (Policy("all", (Rule("deny", 71),)),), "pass", 79),), xdp=True)
    assert decided(ask(with_xdp(everything), 22)) == ("allowed", "failsafe", "node2")
    assert decided(ask(with_xdp(everything), 9997)) == ("denied", "rule", "node2")
    # An answer to the host's own connection to a failsafe port is not untracked policy's to drop.
    answer = ask(with_xdp(everything), 9997, source=f"{OUTSIDE}:53", protocol="udp")
    assert answer.decision is not None
    assert answer.decision.policy is not None
    assert answer.decision.policy.name != "all"


def test_an_open_source_port_may_be_a_failsafe_one() -> None:
    """tc denies here what untracked policy would allow."""
    answer = ask(with_xdp(), 9999, source=OUTSIDE)
    assert answer.verdict == "undetermined"
    assert any("outbound failsafe ports" in finding.message for finding in answer.findings)


def test_a_driver_may_have_no_room_for_what_xdp_says() -> None:
    """Then tc's policy is asked, which denies here."""
    answer = ask(with_xdp(mode="driver"), 9999)
    assert answer.verdict == "undetermined"
    assert any("metadata in front of the packet" in finding.message for finding in answer.findings)


@pytest.mark.parametrize(("port", "ending"), [(9998, DENIED), (9997, DELIVERED)])
def test_packets_of_the_link_meet_it_too(port: int, ending: str) -> None:
    """Neighbour discovery is such: tc lets it pass unasked, XDP does not."""
    walker = RecordedCluster(with_xdp()).walkers["node2"]
    sent = Packet(4, UDP, int(ip_address(OUTSIDE)), int(ip_address(NODE2)), 40000, port)
    assert walker.receive_on_link(sent, "eth0", new, Chooser()).ending == ending


def test_no_program_in_the_slot_passes_everything() -> None:
    assert decided(ask(with_xdp(slots=False), 9998)) == decided(ask(lambda _files: None, 9998))


def test_a_dump_without_felix_s_file_is_run_too() -> None:
    """Then rules are known by their ids alone."""

    def dumped_only(files: dict[str, bytes]) -> None:
        with_xdp()(files)
        if files.pop(f"{POLICY}eth0_xdp_v4.json", None) is None:
            return
        maps = json.loads(files["bpf/map-show.json"])
        found = {name: next(one["id"] for one in maps if one["name"] == name) for name in NAMES.values()}
        [part] = Builder(UNTRACKED, Style(descriptors={fd: found[name] for fd, name in NAMES.items()})).parts
        programs = json.loads(files["bpf/prog-show.json"])
        programs[-1]["map_ids"] = list(found.values())
        files["bpf/prog-show.json"] = json.dumps(programs).encode()
        files[f"bpf/xlated-{PROGRAM}.json"] = json.dumps(listing(part.instructions())).encode()

    for port, verdict in ((9999, "allowed"), (9998, "denied"), (9997, "denied")):
        answer = ask(dumped_only, port)
        assert answer.verdict == verdict
        assert "bpf-policy-debug-missing" in {finding.code for finding in answer.findings}
    assert stages(ask(dumped_only, 9997))[0] == ("host", "passed")


NAMES = {STATE_FD: "cali_state6", SETS_FD: "cali_v4_ip_sets", STATIC_FD: "xdp_cali_progs3", JUMP_FD: "xdp_cali_jump3"}


def listing(instructions: Sequence[Instruction]) -> list[dict[str, object]]:
    """As ``bpftool -j prog dump xlated … opcodes`` prints them: a wide load is one entry."""
    listed = []
    for one in instructions:
        if one.code == SECOND_HALF:
            continue
        immediates = (one.immediate & NONE, 0, one.immediate >> 32) if one.code == LOAD_WIDE else (one.immediate,)
        text = f"({one.code:02x}) {f'call {one.helper}#1' if one.helper else 'x'}"
        if one.code == LOAD_WIDE and one.source:
            text = f"(18) r{one.destination} = map[id:{one.immediate}]"
        listed.append(dumped(text, hex(one.code), one.destination, one.source, one.offset, *immediates))
    return listed
