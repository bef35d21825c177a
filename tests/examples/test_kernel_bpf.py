"""The examples in the eBPF dataplane: policy programs of Felix's shape, loaded into this kernel and run for each flow.

What surrounds policy there (services, routes) is not programmed: flows are those that policy sees.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from calico_debug.decode.assertions import decode_assertions
from calico_debug.intent.decide import Intent
from calico_debug.intent.flows import policy_flows
from calico_debug.intent.model import Direction, Endpoint, NamedPort, PolicyFlow, Side
from calico_debug.matrix.model import SOURCE_PORT
from calico_debug.state.cluster import ClusterState
from calico_debug.state.resolve import Resolver
from calico_debug.walk.bpf_policy import Verdict
from calico_debug.walk.bpf_state import PolicyPacket
from tests.bytecode.felix import Policy, Rule, Rules, Style, Tier
from tests.examples.environments import Stage, stages
from tests.kernel.bpf_syscall import Kernel, unusable
from tests.kernel.test_bpf_machine import Loaded

pytestmark = pytest.mark.kernel

ALLOW_ALL = Policy("kns", (Rule("allow", 1),))
PREFIX, WITH_PORT = 64 + 32, 64 + 32 + 24
"""Bits of a set's key that count: its id and an address, or these with port and protocol (felix/bpf/ipsets)."""


@pytest.fixture(scope="module", autouse=True)
def _one_cpu() -> Iterator[None]:
    if reason := unusable():
        pytest.skip(reason)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


class Sets:
    """Numbers for what rules select, and the keys that their members have."""

    def __init__(self, pods: list[Endpoint]) -> None:
        self._pods = pods
        self._numbers: dict[tuple[str, str], int] = {}
        self.keys: list[bytes] = []

    def of(self, side: Side, named: str = "") -> int:
        """The set of pods that a side selects, or of their ports of a name; 0 where everything is meant."""
        if side.selector is None and not named:
            return 0
        known = (str(side.selector or ""), named)
        if known not in self._numbers:
            number = self._numbers[known] = len(self._numbers) + 1
            for pod in self._pods:
                if side.selector is None or side.selector.evaluate(pod.labels):
                    self.keys.extend(self._member(number, pod, named))
        return self._numbers[known]

    def _member(self, number: int, pod: Endpoint, named: str) -> Iterator[bytes]:
        place = number.to_bytes(8, "big") + pod.addresses[0].packed
        if not named:
            yield PREFIX.to_bytes(4, "little") + place + bytes(4)
        for port in pod.ports:
            if named == port.name:
                yield WITH_PORT.to_bytes(4, "little") + place + _service(port)


def _service(port: NamedPort) -> bytes:
    return port.number.to_bytes(2, "little") + bytes((port.protocol, 0))


class Programs:
    """The policy programs of every pod of a stage, loaded when they are asked for."""

    def __init__(self, kernel: Kernel, state: ClusterState) -> None:
        self._kernel = kernel
        self.intent = Intent(state.cluster)
        self.pods = [one for one in self.intent.applicability.endpoints if one.kind == "pod"]
        self._loaded = cache(self._load)

    def verdict(self, pod: Endpoint, direction: Direction, flow: PolicyFlow) -> Verdict:
        """What the kernel's run and ours agree on."""
        assert flow.destination_port is not None
        addresses = int(flow.source), int(flow.destination)
        packet = PolicyPacket(4, flow.protocol, *addresses, SOURCE_PORT, flow.destination_port)
        return self._loaded(pod, direction).compare(packet).verdict

    def _load(self, pod: Endpoint, direction: Direction) -> Loaded:
        sets, number = Sets(self.pods), iter(range(100, 1 << 16))
        tiers = tuple(
            Tier(
                tier.name,
                tuple(
                    Policy(
                        applied.policy.key.name,
                        tuple(_rule(rule, sets, next(number)) for rule in applied.policy.rules(direction)),
                        namespace=applied.policy.key.namespace,
                    )
                    for applied in tier.enforced
                ),
                tier.default_action.lower(),
                next(number),
            )
            for tier in self.intent.applicability.tiers_of(pod, direction)
        )
        rules = Rules(tiers=tiers, profiles=(ALLOW_ALL,), no_profile_id=2, suppress_host=True)
        return Loaded(self._kernel, rules, Style(), sets.keys)


def _rule(rule: Any, sets: Sets, number: int) -> Rule:
    destination: Side = rule.destination
    (named,) = destination.named_ports or ("",)
    return Rule(
        rule.action.lower(),
        number,
        protocol=rule.protocol,
        source_set=sets.of(rule.source),
        destination_set=sets.of(destination),
        destination_ports=destination.ports,
        named_port_set=sets.of(destination, named) if named else 0,
    )


@pytest.mark.parametrize("stage", stages(), ids=str)
def test_every_answer(stage: Stage, tmp_path: Path) -> None:
    state = stage.cluster(tmp_path)
    resolver = Resolver(state, {})
    with Kernel() as kernel:
        programs = Programs(kernel, state)
        for one in decode_assertions(stage.expected.read_bytes(), str(stage)):
            flows = policy_flows(resolver.resolve(one.source, one.destination), state)
            assert flows
            for asked in flows:
                found = "allowed" if _let_through(programs, asked.flow) else "denied"
                assert found in one.verdicts, (str(stage), one, asked.flow)


def _let_through(programs: Programs, flow: PolicyFlow) -> bool:
    owners = programs.intent.applicability.owners
    sender, receiver = owners.pod(flow.source), owners.pod(flow.destination)
    assert sender is not None
    assert receiver is not None
    ways: tuple[tuple[Endpoint, Direction], ...] = ((sender, "egress"), (receiver, "ingress"))
    verdicts = [programs.verdict(pod, direction, flow) for pod, direction in ways]
    assert set(verdicts) <= {Verdict.ALLOWED, Verdict.DENIED}
    return verdicts == [Verdict.ALLOWED, Verdict.ALLOWED]
