"""Flips: exactly the pairs of pods whose verdict changes, but for the one that was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import calico_debug.advice.flips as module
from calico_debug.advice.flips import FlipCounter, Flips, changed_pairs
from calico_debug.intent.decide import Intent
from calico_debug.intent.model import Direction
from calico_debug.model.cluster import PolicyObject
from tests.advice.clusters import ADDRESSES, calico, cluster, flow

DENIES = calico("a", "p", types=["Ingress"])
ALLOWS = replace(DENIES, spec={**DENIES.spec, "ingress": [{"action": "Allow", "source": {"selector": "all()"}}]})


def flips(before: Intent, after: Intent) -> Flips:
    return FlipCounter(before, flow("a/one", "a/two").flow).flips(after, ALLOWS, "ingress")


def test_pairs_by_both_sides() -> None:
    """Pods of a, which the policy selects, let each other in: two pairs, of which one was asked for."""
    change = flips(Intent(cluster(DENIES)), Intent(cluster(ALLOWS)))
    assert (change.count, change.examples) == (1, (("a/two", "a/one"),))


def test_what_the_other_side_denies_does_not_change() -> None:
    closed = calico("a", "closed", types=["Egress"])
    before, after = Intent(cluster(DENIES, closed)), Intent(cluster(ALLOWS, closed))
    assert flips(before, after).count == 0


def test_too_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DECISIONS", 0)
    assert flips(Intent(cluster(DENIES)), Intent(cluster(ALLOWS))).count is None


SELECTORS = st.sampled_from(["all()", "app == 'one'", "app == 'two'", "!has(app)", "pod-template-hash == 'one123'"])
PEERS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    SELECTORS.map(lambda text: {"selector": text}),
    st.sampled_from("abc").map(lambda name: {"namespaceSelector": f"kubernetes.io/metadata.name == '{name}'"}),
    st.sampled_from(["10.0.0.0/23", "10.0.1.1/32", "0.0.0.0/0"]).map(lambda net: {"nets": [net]}),
    st.sampled_from(["10.0.0.0/24", "10.0.2.1/32"]).map(lambda net: {"notNets": [net]}),
    st.just({}),
)
PORTS = st.sampled_from([{}, {"ports": [80]}, {"ports": [81]}, {"notPorts": [80]}])
ACTIONS = st.sampled_from(["Allow", "Deny", "Pass"])


@st.composite
def rules(draw: Any) -> dict[str, Any]:
    source, destination = draw(PEERS), {**draw(PEERS), **draw(PORTS)}
    protocol = {"protocol": draw(st.sampled_from(["TCP", "UDP"]))} if "ports" in destination else {}
    protocol = {"protocol": "TCP"} if "notPorts" in destination else protocol
    return {"action": draw(ACTIONS), "source": source, "destination": destination, **protocol}


@st.composite
def policies(draw: Any, name: str) -> PolicyObject:
    types = draw(st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]))
    spec: dict[str, Any] = {"types": types, "selector": draw(SELECTORS)}
    for direction in types:
        spec[direction.lower()] = draw(st.lists(rules(), max_size=3))
    return calico(draw(st.sampled_from(["", "a", "b"])), name, draw(st.sampled_from([10, 20])), **spec)


@given(policies("p"), policies("q"), policies("r"), rules(), st.integers(0, 3), st.booleans())
def test_those_that_comparing_every_pair_finds(
    edited: PolicyObject, second: PolicyObject, third: PolicyObject, rule: dict[str, Any], at: int, made: bool
) -> None:
    direction: Direction = "ingress" if "Ingress" in edited.spec["types"] else "egress"
    new = [*edited.spec[direction]]
    new.insert(at, rule)
    after_policy = replace(edited, spec={**edited.spec, direction: new})
    asked = flow("a/one", "b/two").flow
    kept = () if made else (edited,)
    before = Intent(cluster(*kept, second, third))
    after = Intent(replace(before.cluster, policies=(after_policy, second, third)), like=before)
    if made and len(edited.spec["types"]) > 1:
        return  # a policy that is made has one direction
    found = FlipCounter(before, asked).flips(after, after_policy, direction)
    pods = [one for one in after.applicability.endpoints if one.kind == "pod"]
    changes = {
        (str(one.source), str(one.destination))
        for one in changed_pairs(before, after, pods, pods, asked.protocol, asked.destination_port, 4)
    } - {("a/one", "b/two")}
    assert found.count == len(changes)
    assert set(found.examples) <= changes
    assert len(found.examples) == min(len(changes), 3)
    assert len(pods) == len(ADDRESSES)
    fresh = Intent(after.cluster)
    again = [fresh.applicability.pod(*name.split("/")) for name in ADDRESSES]
    assert after.applicability.endpoints is before.applicability.endpoints
    for one, other in zip(after.applicability.endpoints, again, strict=True):
        assert other is not None
        for way in ("ingress", "egress"):
            tiers = [one.tiers_of(pod, way) for one, pod in ((after.applicability, one), (fresh.applicability, other))]
            names = [[[applied.policy.key for applied in tier.enforced] for tier in found] for found in tiers]
            assert names[0] == names[1]
