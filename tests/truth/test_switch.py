"""One cluster recorded in three dataplanes: what a switch is said to change is what really was different, all ways."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from ipaddress import ip_address
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.explain.engine import Engine
from calico_debug.model.flow import PROTOCOL_NUMBERS
from calico_debug.switch.answers import Asker
from calico_debug.switch.compare import Comparison, compare
from calico_debug.switch.document import from_json, to_document
from calico_debug.switch.model import Question
from calico_debug.switch.questions import question_key
from calico_debug.switch.record import make_record
from tests.recordings import DATA, Recording
from tests.truth.happened import Happened, verdict_of, what_happened
from tests.truth.happened_bpf import what_happened_on_bpf

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

MODES = ("nft", "iptables", "bpf")


@cache
def _recording(mode: str) -> Recording:
    return Recording(DATA / f"v3.32.1-{mode}.tar.xz")


@cache
def _happened(mode: str) -> dict[Hashable, Happened]:
    recording = _recording(mode)
    match mode:
        case "bpf":
            found: Sequence[Happened] = what_happened_on_bpf(recording)
        case "nft":
            found = what_happened(recording)
        case _:
            found = [_in_iptables(probe) for probe in recording.json("probes.json")]
    return {tuple(one.question.items()): one for one in found}


def _in_iptables(probe: dict[str, Any]) -> Happened:
    rules = [rule for delta in probe["delta"].values() for rule in delta]
    dropped = any("cali:" in rule and rule.rstrip().endswith("-j DROP") for rule in rules)
    return Happened(probe, verdict_of(probe, dropped), frozenset(), frozenset(), "")


def _question(asker: Asker, one: Happened) -> Question:
    probe = one.probe
    protocol = PROTOCOL_NUMBERS[one.question["protocol"]]
    port = None if probe["proto"] == "icmp" else probe["dport"]
    return Question(
        asker.ends.name(ip_address(probe["src_ip"])),
        asker.ends.name(ip_address(probe["dst_ip"]), port, protocol),
        protocol,
        one.question.get("via"),
        "asked",
    )


def _compared(before: str, after: str) -> dict[Hashable, Comparison]:
    engine = Engine(_recording(before).source)
    asker = Asker(engine)
    asked = [_question(asker, one) for one in _happened(before).values()]
    document = to_document(make_record(engine, asked))
    record = from_json(json.dumps(document).encode(), "the record")
    found = {question_key(one.flow.question): one for one in compare(record, Engine(_recording(after).source)).flows}
    return {
        key: found[question_key(_question(asker, one))]
        for key, one in _happened(before).items()
        if question_key(_question(asker, one)) in found
    }


@pytest.mark.parametrize(("before", "after"), list(permutations(MODES, 2)))
def test_what_is_said_to_differ_did_differ(before: str, after: str) -> None:
    compared, old, new = _compared(before, after), _happened(before), _happened(after)
    assert len(compared) > 250
    results = Counter[str]()
    for key, one in compared.items():
        assert one.answer is not None
        verdicts = old[key].verdict, new[key].verdict
        if None in verdicts:
            continue
        results[one.result] += 1
        if one.flow.answer.verdict == "undetermined" and one.result == "same":
            # Backends fare differently, each as before; which of them the kernel picked is chance.
            assert {way.verdict for way in one.answer.ways} >= set(verdicts), str(old[key])
            continue
        assert (one.result == "differs") == (verdicts[0] != verdicts[1]), f"{old[key]}, then {new[key]}: {one.why}"
    assert not results["undetermined"] + results["gone"]
    # kube-proxy and policy share the work in both of the netfilter modes.
    assert (results["differs"] > 0) == ("bpf" in (before, after))
