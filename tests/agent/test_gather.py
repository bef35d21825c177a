"""The three witnesses on nodes of the lab: every way that a packet dies, and the way it lives."""

from __future__ import annotations

import json
import socket
import subprocess
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator

from calico_debug.agent.evidence import LiveSource
from calico_debug.agent.observe import Observer
from calico_debug.agent.watch import Watch
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.explain.counted import counted, places
from calico_debug.explain.observed import flow_tuples
from calico_debug.model.observation import FlowTuple, Wanted
from tests.explain.test_document import SCHEMA
from tests.lab import namespaces
from tests.lab.demo import MODEL, PROGRAM
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.explanation import FlowExplanation

pytestmark = pytest.mark.kernel

ALL = Wanted(watch=0.1, observe=0.1, probe=True)

EXTRA = """
add table ip admin
add chain ip admin forward { type filter hook forward priority 10; }
add rule ip admin forward tcp dport 443 tcp flags & (syn | ack) == syn counter drop
add rule ip admin forward ip saddr 10.244.1.14 tcp sport 9001 tcp flags & (syn | ack) == syn | ack counter drop
add chain ip admin output { type filter hook output priority 10; }
add rule ip admin output tcp dport 4545 counter drop
add rule ip admin output tcp dport 4546 counter reject
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A flow of node1 with what the three witnesses say. ``rose`` is by how much the deciding counter rises."""

    source: str
    target: str
    verdict: str
    observed: str
    protocol: str = "tcp"
    port: int | None = 80
    reason: str = ""
    rose: int | None = None
    version: int = 4


CASES = {
    "allowed": Case("red/cli1", "red/web1", "allowed", "sent out of {web1}, answer syn-ack", reason="rule", rose=1),
    "allowed in IPv6": Case("red/cli1", "red/web1", "allowed", "answer syn-ack", reason="rule", rose=1, version=6),
    "echo": Case("red/web1", "blue/db1", "allowed", "answer echo reply", "icmp", None, reason="profile", rose=1),
    "echo in IPv6": Case("red/web1", "blue/db1", "allowed", "echo reply", "icmpv6", None, "profile", 1, 6),
    "nothing listens": Case("red/web1", "blue/db1", "allowed", "answer reset", port=4444, reason="profile", rose=1),
    "policy": Case("blue/db1", "red/web1", "denied", "2 probe packets dropped there", "udp", 53, "rule", 2),
    "policy in IPv6": Case("blue/db1", "red/web1", "denied", "2 probe packets dropped there", "udp", 53, "rule", 2, 6),
    "end of tier": Case(
        "red/cli1", "red/db2", "denied", "dropped there, no answer", port=8080, reason="end-of-tier", rose=2
    ),
    "other table": Case("red/web1", "blue/db1", "denied", "dropped there", port=443, reason="not-calico", rose=2),
    "no endpoints": Case(
        "blue/db1", "10.96.1.3", "rejected", "rejected there, answer icmp type 3", reason="no-endpoints"
    ),
    "no way": Case("blue/db1", "198.51.100.9", "rejected", "lost behind prerouting", reason="no-route"),
    "a black hole": Case("blue/db1", "203.0.113.7", "denied", "lost behind prerouting", reason="no-route"),
    "answer": Case("red/web1", "blue/db1", "denied", "its answer dropped", port=9001, reason="not-calico", rose=2),
    "from the node": Case("node1", "red/web1", "allowed", "answer syn-ack", reason="host-to-own-pod"),
    "own output": Case("node1", "red/web1", "denied", "dropped there", port=4545, reason="not-calico", rose=2),
    "own output refuses": Case(
        "node1", "red/web1", "rejected", "rejected there, answer icmp type 3", port=4546, reason="not-calico", rose=1
    ),
    "no way from the node": Case("node1", "198.51.100.9", "denied", "not sent: No route", reason="no-route"),
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as built:
        built.program(MODEL)
        node = built.namespace("node1")
        namespaces.nft(node, EXTRA)
        namespaces.ip(node, ["route add unreachable 198.51.100.0/24", "route add blackhole 203.0.113.0/24"])
        yield built


def tracer() -> EvidenceTracer:
    return EvidenceTracer(LiveSource("node1"))


def question(lab: Lab, case: Case) -> Question:
    target = case.target if case.target[0].isdigit() else lab.topology.address(case.target, case.version)
    bracketed = f"[{target}]" if ":" in target else target
    to = bracketed if case.port is None else f"{bracketed}:{case.port}"
    return Question(lab.topology.address(case.source, case.version), to if case.port else target, case.protocol)


def ask(lab: Lab, case: Case, wanted: Wanted = ALL) -> FlowExplanation:
    lab.forget_connections("node1")
    with namespaces.entered(lab.namespace("node1")):
        asked = tracer()
        return asked.witness(asked.trace(question(lab, case)), wanted)


def codes(explanation: FlowExplanation) -> set[str]:
    return {finding.code for finding in explanation.findings}


@pytest.mark.parametrize("name", CASES)
def test_three_witnesses(lab: Lab, name: str) -> None:
    case = CASES[name]
    found = ask(lab, case)
    assert found.decision is not None
    assert (found.verdict, found.decision.reason) == (case.verdict, case.reason)
    observed, counted = found.witnesses["observed"], found.witnesses["counted"]
    interfaces = {pod.name: pod.interface for pod in lab.topology.pods}
    assert case.observed.format(**interfaces) in observed.detail
    if "refusal-not-seen" in codes(found):
        # The kernel limits how many errors it sends for want of a route (net/ipv4/route.c, ip_error).
        assert (name, observed.verdict) == ("no way", "denied")
        return
    assert observed.verdict == case.verdict
    assert observed.node == counted.node == "node1"
    assert observed.at.endswith("Z")
    if case.rose is not None:
        assert f"+{case.rose} in" in counted.detail
        assert counted.verdict == case.verdict
    else:
        assert counted.verdict == "undetermined"
    assert "witnesses-agree" in codes(found)
    assert not codes(found) & {"witness-dissents", "not-confirmed", "counters-disturbed", "observation-incomplete"}


def test_a_prediction_of_rules_that_have_changed_since(lab: Lab) -> None:
    case = CASES["allowed"]
    with namespaces.entered(lab.namespace("node1")):
        asked = tracer()
        explanation = asked.trace(question(lab, case))
        namespaces.nft(lab.namespace("node1"), "insert rule ip admin forward tcp dport 80 drop comment fresh")
        try:
            found = asked.witness(explanation, ALL)
        finally:
            handle = lab_handle(lab, "fresh")
            namespaces.nft(lab.namespace("node1"), f"delete rule ip admin forward handle {handle}")
    assert (found.verdict, found.witnesses["observed"].verdict) == ("allowed", "denied")
    (dissent,) = [finding for finding in found.findings if finding.code == "witness-dissents"]
    assert dissent.severity == "error"
    assert "the rules may have changed" in dissent.message
    assert f"chain forward, handle {handle} (no such rule was there" in dissent.message


def lab_handle(lab: Lab, comment: str) -> int:
    listed = namespaces.run(lab.namespace("node1"), ["nft", "-a", "list", "chain", "ip", "admin", "forward"])
    (line,) = [line for line in listed.splitlines() if comment in line]
    return int(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize(("how", "word"), [("replace", "was reset"), ("delete", "rewritten")])
def test_a_rule_touched_while_it_was_watched(lab: Lab, how: str, word: str) -> None:
    """Replaced by its like it keeps its handle and counts from 0; deleted and added again it has another handle."""
    node = lab.namespace("node1")
    rule = "tcp dport 443 tcp flags & (syn | ack) == syn counter drop"
    assert lab.send(lab.flow("red/web1", "blue/db1", "tcp", 443)).verdict == "denied"
    with namespaces.entered(node):
        asked = tracer()
        explanation = asked.trace(question(lab, CASES["other table"]))
        assert explanation.decision is not None
        assert explanation.decision.evidence is not None
        watch = Watch(LiveSource("node1").node("node1"), places(explanation, "node1"))
        change = f"{how} rule ip admin forward handle {explanation.decision.evidence.handle}"
        namespaces.nft(node, f"{change} {rule}" if how == "replace" else f"{change}; add rule ip admin forward {rule}")
        watched = watch.finish()
    witness, findings = counted(explanation, "node1", watched, None, None)
    assert (witness.verdict, word in witness.detail) == ("undetermined", True)
    assert {finding.code for finding in findings} == {"counters-disturbed"}


def test_traffic_of_others_on_the_same_rule(lab: Lab) -> None:
    """Two probes, and one packet of another flow that the rule drops as well."""
    case = CASES["policy"]
    flow = lab.flow("blue/db1", "red/web1", "udp", 8053)
    with namespaces.entered(lab.namespace("node1")):
        asked = tracer()
        explanation = asked.trace(question(lab, case))
        watch = Watch(LiveSource("node1").node("node1"), places(explanation, "node1"))
    assert lab.send(flow).verdict == "denied"
    with namespaces.entered(lab.namespace("node1")):
        watched = watch.finish()
    alone, _ = counted(explanation, "node1", watched, None, None)
    assert "+1 in" in alone.detail
    assert alone.verdict == "undetermined"


def test_observed_without_a_probe_is_what_others_send(lab: Lab) -> None:
    case = CASES["allowed"]
    with namespaces.entered(lab.namespace("node1")):
        asked = tracer()
        explanation = asked.trace(question(lab, case))
        quiet = asked.witness(explanation, Wanted(observe=0.1))
        with Observer(flow_tuples(explanation, "node1")) as observer:
            assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
            seen = observer.finish()
    assert quiet.witnesses["observed"].verdict == "undetermined"
    assert "no packet of the flow was seen" in quiet.witnesses["observed"].detail
    assert "not-confirmed" in codes(quiet)
    assert {packet.ending for packet in seen.packets} == {"sent"}
    assert {packet.reply for packet in seen.packets} == {True, False}


def test_a_flow_of_another_node_is_not_probed(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        asked = tracer()
        away = asked.trace(Question("172.30.0.100", f"{lab.topology.address('red/web1')}:80", "tcp", "node1"))
        found = asked.witness(away, Wanted(probe=True))
    (finding,) = [finding for finding in found.findings if finding.code == "not-probed"]
    assert "outside of the cluster" in finding.message
    assert "observed" not in found.witnesses


def test_rules_that_copy_packets_to_flow_logs_are_not_counted_twice() -> None:
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as logging:
        logging.program(replace(MODEL, felix=replace(MODEL.felix, flow_logs=True)))
        listed = namespaces.run(logging.namespace("node1"), ["nft", "list", "table", "ip", "calico"])
        assert "log prefix" in listed
        for name in ("policy", "end of tier", "allowed"):
            case = CASES[name]
            found = ask(logging, case)
            counted, observed = found.witnesses["counted"], found.witnesses["observed"]
            assert (counted.verdict, observed.verdict) == (case.verdict, case.verdict)
            assert counted.detail.count("+") == 1
            assert f"+{case.rose} in" in counted.detail


def test_answers_to_the_node_are_seen_with_translation_undone(lab: Lab) -> None:
    """The service's backend is on the other node, where the walk of one node alone cannot follow."""
    found = ask(lab, Case("node1", "10.96.1.1", "undetermined", ""))
    assert found.verdict == "undetermined"
    assert found.witnesses["observed"].verdict == "allowed"
    assert "answer syn-ack from 10.96.1.1" in found.witnesses["observed"].detail
    assert "settled-by-packets" in codes(found)


def test_a_spoofed_source_is_seen_to_die(lab: Lab) -> None:
    """Not by a probe, which has its place's own address: somebody in the pod makes such a packet."""
    from scapy.layers.inet import IP, UDP

    spoofed, web = "10.244.1.99", lab.topology.address("red/web1")
    with namespaces.entered(lab.namespace("red/cli1")):
        sender = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    flow = FlowTuple(17, ip_address(spoofed), ip_address(web), None, 53)
    with sender, namespaces.entered(lab.namespace("node1")), Observer([flow]) as observer:
        sender.sendto(bytes(IP(src=spoofed, dst=web) / UDP(sport=1, dport=53)), (web, 0))
        (packet,) = observer.finish().packets
    assert packet.drop is not None
    assert packet.drop.chain == "raw-cali-PREROUTING"
    assert packet.hooks == ()


def test_the_command_itself(lab: Lab) -> None:
    client, web = lab.topology.address("blue/db1"), lab.topology.address("red/web1")
    asked = ("trace", "--node", "node1", "--from", client, "--to", f"{web}:53", "-p", "udp")
    witnesses = ("--probe", "--observe", "0.2", "-o", "json", "--exit-code")
    with namespaces.entered(lab.namespace("node1")):
        done = subprocess.run([PROGRAM, *asked, *witnesses], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (3, b"")
    document = json.loads(done.stdout)
    Draft202012Validator(SCHEMA).validate(document)
    assert {name: witness["verdict"] for name, witness in document["witnesses"].items()} == dict.fromkeys(
        ("predicted", "counted", "observed"), "denied"
    )
