"""What is left behind on nodes."""

from __future__ import annotations

import json

from calico_debug.doctor.examine import Report
from calico_debug.explain.engine import Engine
from calico_debug.switch.leftovers import LEFTOVERS, look_for_leftovers
from tests.doctor.patients import bpf
from tests.evidence.bpf_node import BpfNode
from tests.evidence.memory import MemorySource
from tests.explain.rules import ruleset
from tests.explain.world import Node, objects
from tests.switch.sources import engine

SAVED = "*filter\n:FORWARD ACCEPT [0:0]\n:cali-from-wl-dispatch - [0:0]\n-A FORWARD -j cali-from-wl-dispatch\nCOMMIT\n"
KUBE = {"ip nat": {"PREROUTING@prerouting:-100:accept:nat": ["jump:KUBE-SERVICES"], "KUBE-SERVICES": ["protocol=tcp"]}}


def of_bpf(made: BpfNode) -> Report:
    return look_for_leftovers(Engine(MemorySource(objects([Node(1, pods=[1])]), {"n1": made.evidence()})))


def codes(report: Report) -> list[tuple[str, str]]:
    return [(one.severity, one.code) for one in report.findings]


def test_nothing_is_left_in_recordings() -> None:
    for mode in ("nft", "iptables", "bpf"):
        report = look_for_leftovers(engine(mode))
        assert codes(report) == []
        assert len(report.unseen) == (0 if mode == "bpf" else 2)  # recorded without the list of programs
    assert codes(of_bpf(bpf())) == []


def test_rules_of_kube_proxy_and_what_they_count() -> None:
    made = bpf()
    made.files["nft-ruleset.json"] = ruleset(KUBE)
    report = of_bpf(made)
    assert codes(report) == [("warning", "kube-proxy-beside-bpf")]
    assert report.findings[0].seen.endswith("; its chains have counted 7 packets so far")
    assert report.findings[0].entry is LEFTOVERS["kube-proxy-beside-bpf"]
    made_engine = Engine(MemorySource(objects([Node(1, pods=[1])]), {"n1": made.evidence()}))
    for earlier, end in ((4, "7 packets so far, 3 of them since the record"), (9, "7 packets so far")):
        assert look_for_leftovers(made_engine, {"n1": earlier}).findings[0].seen.endswith(end)


def test_rules_of_two_dataplanes() -> None:
    node = Node(1, pods=[1], files={"iptables-save.txt": SAVED})
    report = look_for_leftovers(Engine(MemorySource(objects([node]), {"n1": node.evidence()})))
    assert codes(report) == [("error", "leftover-rules")]
    seen = report.findings[0].seen
    assert seen == "iptables: chain cali-from-wl-dispatch in table ip filter; nftables: table ip calico"


def test_programs_and_maps_beside_rules() -> None:
    made = bpf()
    rules = Node(1, pods=[1]).evidence().read("nft-ruleset.json")
    made.files["nft-ruleset.json"] = rules
    report = of_bpf(made)
    assert codes(report) == [("error", "leftover-programs"), ("info", "leftover-maps")]
    assert report.findings[0].seen == "nftables rules, and programs at cali1"
    assert "maps pinned, such as /sys/fs/bpf/tc/globals/cali_" in report.findings[1].seen


def test_pins_alone() -> None:
    made = bpf()
    made.files |= {
        "nft-ruleset.json": Node(1, pods=[1]).evidence().read("nft-ruleset.json"),
        "bpf/tcx-query.json": json.dumps([]),
    }
    assert codes(of_bpf(made)) == [("info", "leftover-maps")]
    made.files["bpf/pins.txt"] = ""
    assert codes(of_bpf(made)) == []
