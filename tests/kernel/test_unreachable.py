"""Rules that are proven to be unreachable, in a real kernel: whatever is sent, their counters never move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, event, given, settings

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings
from calico_debug.hits.model import ALWAYS, AS_SETS_ARE, EMPTY, MET, NOT_MET, UNREACHABLE
from calico_debug.hits.nodes import node_hits
from calico_debug.hits.report import hit_report
from tests.lab.conftest import need_lab
from tests.lab.generate import Case, cases
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector, Tier
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calico_debug.hits.model import HitReport, RuleHits

pytestmark = pytest.mark.kernel

WEB = Selector("app", ("web",))
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab(small_cluster()) as built:
        yield built


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bundles")


def counted(lab: Lab, directory: Path) -> HitReport:
    """What both nodes have counted by now."""
    bundle = directory / f"case-{len(list(directory.iterdir()))}"
    lab.evidence(bundle)
    source = open_bundle(bundle)
    return hit_report([node_hits(NodeListings(source, name)) for name in source.nodes()])


def by_name(report: HitReport) -> dict[tuple[str, str], RuleHits]:
    return {(one.key.policy, one.key.rule): one for one in report.rules if one.key.direction == "ingress"}


def ports(*numbers: int) -> Entity:
    return Entity(ports=numbers)


def test_a_rule_is_shadowed_by_one_that_matches_more(lab: Lab, directory: Path) -> None:
    rules = (
        Rule("Allow", "tcp", destination=ports(80, 81)),
        Rule("Deny", "tcp", destination=ports(80)),
        Rule("Deny", "tcp", destination=ports(81, 82)),
        Rule("Deny"),
        Rule("Allow", "udp", destination=ports(53)),
    )
    lab.program(Model(policies=(Policy("GlobalNetworkPolicy", "shadows", selector=WEB, ingress=rules),)))
    flow = lab.flow("red/cli1", "red/web1", "tcp", 80)
    assert lab.send(flow).verdict == "allowed"
    assert lab.send(lab.flow("red/cli1", "red/web1", "udp", 53)).verdict == "denied"
    found = by_name(counted(lab, directory))
    standings = [found["shadows", str(number)].standing for number in range(5)]
    assert standings == [MET, UNREACHABLE, NOT_MET, MET, UNREACHABLE]
    first, last = found["shadows", "1"].proof, found["shadows", "4"].proof
    assert first is not None
    assert last is not None
    assert (first.holds, first.by) == (ALWAYS, ("GlobalNetworkPolicy shadows, rule 0 (Allow)",))
    assert (last.holds, last.by) == (ALWAYS, ("GlobalNetworkPolicy shadows, rule 3 (Deny)",))


def test_a_rule_is_shadowed_by_several_and_by_the_end_of_a_tier_before(lab: Lab, directory: Path) -> None:
    security = Policy(
        "GlobalNetworkPolicy",
        "security.only",
        "security",
        selector=WEB,
        ingress=(Rule("Allow", "tcp", destination=ports((1, 100))), Rule("Pass", "udp")),
    )
    later = Policy(
        "GlobalNetworkPolicy",
        "later",
        selector=WEB,
        ingress=(
            Rule("Allow", "tcp", destination=ports(8080)),
            Rule("Allow", "udp", destination=ports(53)),
            Rule("Allow", "tcp", destination=ports((1, 50))),
        ),
    )
    halves = Policy(
        "NetworkPolicy",
        "halves",
        namespace="red",
        order=1.0,
        selector=WEB,
        ingress=(
            Rule("Deny", "udp", destination=ports((1, 60))),
            Rule("Deny", "udp", destination=ports((61, 200))),
            Rule("Allow", "udp", destination=ports((50, 100))),
        ),
    )
    tiers = (Tier("security", 100), Tier("default", 1_000_000))
    lab.program(Model(tiers=tiers, policies=(security, later, halves)))
    found = by_name(counted(lab, directory))
    ended, passed, allowed = (found["later", str(number)] for number in range(3))
    assert ended.proof is not None
    assert ended.proof.by == ("end of tier security",)
    # Pods of namespace blue are not selected by the other policy of the tier
    assert passed.proof is None
    assert allowed.proof is not None
    assert allowed.proof.by == ("GlobalNetworkPolicy security.only, rule 0 (Allow)",)
    both = found["halves", "2"].proof
    assert both is not None
    assert both.by == ("NetworkPolicy red/halves, rule 0 (Deny)", "NetworkPolicy red/halves, rule 1 (Deny)")


def test_a_set_that_is_empty_matches_nothing_now(lab: Lab, directory: Path) -> None:
    nobody, clients = Selector("app", ("nobody",)), Selector("app", ("client",), namespace="red")
    rules = (
        Rule("Allow", "tcp", source=Entity(selector=nobody)),
        Rule("Deny", source=Entity(selector=Selector("app", ("client",)))),
        Rule("Allow", "udp", source=Entity(selector=clients)),
        Rule("Allow", "udp", source=Entity(nets=("10.244.0.0/16", "172.30.0.0/24"), selector=nobody)),
    )
    lab.program(Model(policies=(Policy("GlobalNetworkPolicy", "sets", selector=WEB, ingress=rules),)))
    found = by_name(counted(lab, directory))
    for number in ("0", "3"):
        empty = found["sets", number]
        assert (empty.standing, empty.proof and empty.proof.holds) == (EMPTY, AS_SETS_ARE)
    members = found["sets", "2"]
    assert (members.standing, members.proof and members.proof.holds) == (UNREACHABLE, AS_SETS_ARE)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=UNHURRIED, print_blob=True)
@given(case=cases(small_cluster(), flows=10))
def test_what_is_unreachable_is_never_met(lab: Lab, directory: Path, case: Case) -> None:
    lab.program(case.model)
    before = counted(lab, directory)
    lab.send_all(case.flows)
    after = {one.key: one for one in counted(lab, directory).rules}
    for one in before.rules:
        event(one.standing)
        if one.proof is not None:
            assert after[one.key].count == 0, (one, case.flows)
