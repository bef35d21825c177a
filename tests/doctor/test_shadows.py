"""Rules that no packet gets to, as programmed: a recording has one, another has none."""

from __future__ import annotations

import pytest

from calico_debug.doctor.examine import examine
from tests.doctor.patients import seen
from tests.recordings import Recording, recordings


@pytest.mark.parametrize("recording", recordings("-stale-nft"), ids=lambda one: one.name)
def test_a_policy_that_freezes_a_tier_shadows_the_others(recording: Recording) -> None:
    found = seen(examine(recording.source, ["node1", "node2"]), "rule-shadowed")
    shadow = "GlobalNetworkPolicy platform.freeze, rule 0 (Deny)"
    assert found == [f"NetworkPolicy stars/platform.stars-backend, rule 0 (Allow), ingress: shadowed by {shadow}"]


@pytest.mark.parametrize(
    "recording", [*recordings("2.1-nft"), *recordings("-iptables"), *recordings("2.1-bpf")], ids=lambda one: one.name
)
def test_nothing_is_shadowed_where_every_rule_can_be_met(recording: Recording) -> None:
    assert seen(examine(recording.source, ["node1", "node2"]), "rule-shadowed") == []
