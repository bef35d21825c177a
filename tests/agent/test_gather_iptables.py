"""The witnesses on nodes in iptables mode: rules of iptables-nft are traced, those of iptables-legacy are not."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveSource
from calico_debug.agent.packets.witness import PacketWitness
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.errors import MissingEvidence
from calico_debug.model.observation import Wanted
from tests.agent.packets.conftest import need_observer
from tests.lab import namespaces
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.explanation import FlowExplanation

pytestmark = pytest.mark.kernel

ALL = Wanted(watch=0.1, observe=0.1, probe=True)


def rules(interface: str) -> str:
    """One pod with one policy, in the chains of Calico v3.32's iptables mode."""
    lines = (
        "*filter",
        *(f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")),
        *(f":{chain} - [0:0]" for chain in ("cali-FORWARD", "cali-from-wl-dispatch", "cali-po-gnp/default.web")),
        f":cali-fw-{interface} - [0:0]",
        rule("FORWARD", "cali:a1", "-j cali-FORWARD"),
        rule("cali-FORWARD", "cali:a2", "-j MARK --set-xmark 0x0/0x70000"),
        rule("cali-FORWARD", "cali:a3", f"-i {interface} -j cali-from-wl-dispatch"),
        rule("cali-from-wl-dispatch", "cali:a5", f"-i {interface} -g cali-fw-{interface}"),
        rule("cali-from-wl-dispatch", "cali:a6", "-j DROP", "Unknown interface"),
        rule(f"cali-fw-{interface}", "cali:b1", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        rule(f"cali-fw-{interface}", "cali:b2", "-j MARK --set-xmark 0x0/0x30000"),
        rule(f"cali-fw-{interface}", "cali:b3", "-j MARK --set-xmark 0x0/0x20000", "Start of tier default"),
        rule(f"cali-fw-{interface}", "cali:b4", "-m mark --mark 0x0/0x20000 -j cali-po-gnp/default.web"),
        rule(
            f"cali-fw-{interface}", "cali:b5", "-m mark --mark 0x10000/0x10000 -j RETURN", "Return if policy accepted"
        ),
        rule(
            f"cali-fw-{interface}",
            "cali:b6",
            "-m mark --mark 0x0/0x20000 -j DROP",
            "End of tier default. Drop if no policies passed packet",
        ),
        rule(
            "cali-po-gnp/default.web",
            "cali:c1",
            "-p tcp -m tcp --dport 443 -j MARK --set-xmark 0x40000/0x40000",
            "GlobalNetworkPolicy default.web egress",
        ),
        rule("cali-po-gnp/default.web", "cali:c2", "-m mark --mark 0x40000/0x40000 -j DROP"),
        rule(
            "cali-po-gnp/default.web",
            "cali:c3",
            "-p tcp -m tcp --dport 80 -j MARK --set-xmark 0x10000/0x10000",
            "GlobalNetworkPolicy default.web egress",
        ),
        "COMMIT",
        "",
    )
    return "\n".join(lines)


def rule(chain: str, comment: str, what: str, more: str = "") -> str:
    second = f' -m comment --comment "{more}"' if more else ""
    return f'-A {chain} -m comment --comment "{comment}"{second} {what}'


@pytest.fixture(scope="module", params=["nft", "legacy"])
def backend(request: pytest.FixtureRequest) -> Iterator[tuple[str, Lab]]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = str(request.param)
    if shutil.which(f"iptables-{name}-restore") is None:
        pytest.skip(f"iptables-{name}-restore is not installed")
    with Lab() as lab:
        (client,) = [pod for pod in lab.topology.pods if pod.name == "cli1"]
        node = lab.namespace("node1")
        namespaces.run(node, [f"iptables-{name}-restore"], rules(client.interface))
        yield name, lab


def ask(lab: Lab, port: int, wanted: Wanted = ALL) -> FlowExplanation:
    lab.forget_connections("node1")
    asked = Question(lab.topology.address("red/cli1"), f"{lab.topology.address('red/web1')}:{port}", "tcp")
    with namespaces.entered(lab.namespace("node1")):
        tracer = EvidenceTracer(LiveSource("node1"))
        return tracer.witness(tracer.trace(asked), wanted)


CASES = {80: ("allowed", "rule", 1), 443: ("denied", "rule", 2), 22: ("denied", "end-of-tier", 2)}


@pytest.mark.parametrize("port", CASES)
def test_witnesses(backend: tuple[str, Lab], port: int) -> None:
    need_observer()
    name, lab = backend
    verdict, reason, rose = CASES[port]
    found = ask(lab, port)
    assert found.decision is not None
    assert (found.verdict, found.decision.reason) == (verdict, reason)
    counted, observed = found.witnesses["counted"], found.witnesses["observed"]
    assert f"+{rose} in" in counted.detail
    assert (counted.verdict, observed.verdict) == (verdict, verdict)
    codes = {finding.code for finding in found.findings}
    assert "witnesses-agree" in codes
    assert "not-observed" not in codes
    if name == "nft" and verdict == "denied":
        assert "dropped there" in observed.detail


def test_packets_of_legacy_rules_are_watched_at_the_interfaces(backend: tuple[str, Lab]) -> None:
    """No rule can be traced there, and the kernel's reason for dropping is seen all the same."""
    need_observer()
    name, lab = backend
    found = ask(lab, 443, Wanted(observe=0.5, probe=True))
    observed = found.witnesses["observed"]
    assert observed.verdict == "denied"
    if name == "legacy":
        assert "NETFILTER_DROP in " in observed.detail
        assert "probe packets got no answer" in observed.detail
    assert "witnesses-agree" in {finding.code for finding in found.findings}


def test_where_packets_cannot_be_watched_that_is_said(
    backend: tuple[str, Lab], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object) -> None:
        raise MissingEvidence("no clang here")

    monkeypatch.setattr(PacketWitness, "__enter__", refuse)
    name, lab = backend
    found = ask(lab, 443, Wanted(observe=0.1))
    assert ("observed" in found.witnesses) == (name == "nft")
    messages = [finding.message for finding in found.findings if finding.code == "not-observed"]
    assert [("iptables-legacy" in m, "--probe" in m, "no clang here" in m) for m in messages] == [
        (True, True, True)
    ] * (name == "legacy")
