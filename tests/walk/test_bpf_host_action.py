"""What pods may send to their own node: from Felix's rules, and from its environment."""

from __future__ import annotations

import pytest

from calico_debug.walk.bpf_host_action import ACCEPT, DROP, RETURN, UNKNOWN, host_action
from tests.explain.world import decided
from tests.walk.recorded_bpf import Change, RecordedCluster

POD, DEVICE, NODE = "10.244.1.31", "cali1e6a8145a25", "172.30.0.11"
SEEN = b"--mark 0x1000000/0x1000000 -j ACCEPT"
UNSEEN = b"! --mark 0x1000000/0x1000000 -j DROP"
SETTING = b"FELIX_DEFAULTENDPOINTTOHOSTACTION="


def changed(environment: bytes | None = None, without: tuple[bytes, ...] = ()) -> Change:
    """Felix's setting, None for as it was recorded; and rules at input that are not there."""

    def change(files: dict[str, bytes]) -> None:
        rules = files["iptables-save.txt"].splitlines(keepends=True)
        kept = [line for line in rules if b"-A INPUT" not in line or not any(part in line for part in without)]
        files["iptables-save.txt"] = b"".join(kept)
        if environment is not None:
            lines = [line for line in files["felix-env.txt"].splitlines() if not line.startswith(SETTING)]
            files["felix-env.txt"] = b"\n".join([*lines, SETTING + environment if environment else b""])

    return change


@pytest.mark.parametrize(
    ("environment", "without", "action"),
    [
        (None, (), ACCEPT),
        (b"DROP", (), ACCEPT),  # the rules are what runs
        (b"", (), ACCEPT),
        (b"DROP", (SEEN,), DROP),
        (b"Return", (SEEN,), RETURN),
        (b"ACCEPT", (SEEN,), UNKNOWN),  # newer than the rules
        (b"ACCEPT", (SEEN, UNSEEN), ACCEPT),
        (b"maybe", (SEEN,), UNKNOWN),
        (b"", (SEEN,), UNKNOWN),
        (b"", (SEEN, UNSEEN), UNKNOWN),
    ],
)
def test_the_setting(environment: bytes | None, without: tuple[bytes, ...], action: str) -> None:
    state = RecordedCluster(changed(environment, without)).engine.states["node1"]
    assert host_action(state, 4, DEVICE) == action
    assert host_action(state, 4, "azv1") != ACCEPT or environment == b"ACCEPT" or environment is None
    assert host_action(state, 6, DEVICE) != ACCEPT or environment == b"ACCEPT" or environment is None


@pytest.mark.parametrize(
    ("change", "answer"),
    [
        (changed(), ("allowed", "host-default", "node1")),
        (changed(b"DROP", (SEEN,)), ("denied", "host-default", "node1")),
        (changed(b"", (SEEN,)), ("undetermined", "not-understood", "node1")),
    ],
)
def test_a_pod_and_its_own_node(change: Change, answer: tuple[str, str, str]) -> None:
    cluster = RecordedCluster(change)
    assert decided(cluster.engine.explain(cluster.resolver.resolve(POD, f"{NODE}:10250"))) == answer


def test_return_leaves_it_to_the_rules() -> None:
    cluster = RecordedCluster(changed(b"RETURN", (SEEN,)))
    answer = cluster.engine.explain(cluster.resolver.resolve(POD, f"{NODE}:10250"))
    assert answer.verdict == "allowed"
    assert answer.decision is not None
    assert answer.decision.reason == "profile"
