"""Rule ids: known vectors, and every id that a recorded node counts under."""

from __future__ import annotations

from dataclasses import replace

from calico_debug.model.bytecode import Section, SectionKind
from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.rule_ids import direction_of, end_of_tier_id, fnv1a, named, policy_ids, rule_id
from tests.bytecode.recorded import RECORDED, RecordedCluster
from tests.recordings import Recording

WEB = PolicyObject("NetworkPolicy", "default", "allow-web", "default", None, {})
OURS = PolicyObject("KubernetesNetworkPolicy", "team-a", "default-deny", "default", None, {})
STAGED = PolicyObject("StagedNetworkPolicy", "default", "allow-web", "default", None, {})


def test_vectors() -> None:
    assert rule_id("API0|np/default/allow-web") == 0x9BAF83274F1C92E6
    assert end_of_tier_id("default", "ingress", "deny") == 3749095597137102361
    assert end_of_tier_id("default", "egress", "deny") == 1545619793626482357
    assert rule_id("DPI0|knp/team-a/default-deny") == 6436464034705866854


def test_names_from_ids() -> None:
    ids = (
        rule_id("API0|np/default/allow-web"),
        rule_id("DPE2|knp/team-a/default-deny"),
        rule_id("ARE0|kns.default"),
        5,
        0,
    )
    found = named(
        (*ids, end_of_tier_id("security", "egress", "pass")), [WEB, OURS, STAGED], ["security"], ["kns.default"]
    )
    web, ours, profile, end = (found[number] for number in (*ids[:3], end_of_tier_id("security", "egress", "pass")))
    assert (web.owner, web.namespace, web.name, web.index, web.action) == (
        "NetworkPolicy",
        "default",
        "allow-web",
        0,
        "allow",
    )
    assert (ours.owner, ours.name, ours.index, ours.action) == ("KubernetesNetworkPolicy", "default-deny", 2, "deny")
    assert (profile.owner, profile.name) == ("Profile", "kns.default")
    assert end == Section(SectionKind.END_OF_TIER, "security", match_id=end.match_id, action="pass")
    assert len(found) == 4


def test_names_of_older_releases() -> None:
    policy = PolicyObject("GlobalNetworkPolicy", "", "security.dns", "security", None, {})
    ids = (
        rule_id("APE2|security.dns"),
        rule_id("DPI0|team-a/knp.default.default-deny"),
        fnv1a("next-tierPolicyEgress1security.dns"),
    )
    found = named(ids, [policy, OURS], [], [])
    assert [(found[one].name, found[one].index, found[one].action) for one in ids] == [
        ("security.dns", 2, "allow"),
        ("default-deny", 0, "deny"),
        ("security.dns", 1, "pass"),
    ]


def test_kubernetes_rules_become_several() -> None:
    spec = {"ingress": [{"from": [{}] * 5, "ports": [{}] * 4}, {}]}
    policy = PolicyObject("KubernetesNetworkPolicy", "a", "b", "default", None, spec)
    assert named([rule_id("API20|knp/a/b")], [policy], [], []) != {}
    assert named([rule_id("API99|knp/a/b")], [policy], [], []) == {}


def test_long_names_are_shortened_as_in_the_prefix() -> None:
    long = PolicyObject("NetworkPolicy", "a-namespace", "n" * 80, "default", None, {})
    plain = fnv1a(f"API0|np/a-namespace/{'n' * 80}")
    number = rule_id(f"API0|np/a-namespace/{'n' * 80}")
    assert number != plain
    assert named([number], [long], [], [])[number].name == "n" * 80


@RECORDED
def test_every_recorded_id_is_found(recording: Recording) -> None:
    cluster = RecordedCluster(recording)
    debugs = [debug for node in cluster.nodes.values() for _, debug in node.debug_files()]
    sections = [section for debug in debugs for section in debug.rules if section.match_id]
    assert len(sections) > 100
    tiers = {section.tier for section in sections} - {""}
    profiles = {section.name for section in sections if section.owner == "Profile"}
    found = named({section.match_id or 0 for section in sections}, cluster.state.cluster.policies, tiers, profiles)
    for section in sections:
        assert section.match_id is not None
        same = found[section.match_id]
        assert (same.kind, same.owner, same.namespace, same.name) == (
            section.kind,
            section.owner,
            section.namespace,
            section.name,
        )
        assert (same.index, same.action) == (section.index, section.action)


def test_ids_of_one_direction() -> None:
    rules = [{"action": "Allow"}, {"action": "Deny"}]
    policy = PolicyObject("NetworkPolicy", "shop", "web", "default", None, {"ingress": rules, "egress": rules[:1]})
    ingress, egress = policy_ids(policy, "ingress"), policy_ids(policy, "egress")
    assert ingress[rule_id("API0|np/shop/web")] == 0
    assert ingress[rule_id("DPI1|np/shop/web")] == 1
    assert rule_id("API2|np/shop/web") not in ingress
    assert set(egress.values()) == {0}
    assert not ingress.keys() & egress.keys()


def test_the_direction_of_a_computed_id() -> None:
    for prefix, direction in (("APE2|np/red/web", "egress"), ("DPI2|np/red/web", "ingress")):
        section = Section(SectionKind.RULE, "default", "NetworkPolicy", "red", "web", 2, rule_id(prefix), "allow")
        assert direction_of(section) == direction
    legacy = Section(SectionKind.RULE, "default", "", "red", "default.web", 0, rule_id("API0|red/default.web"), "allow")
    assert direction_of(legacy) == "ingress"
    profile = Section(SectionKind.RULE, "", "Profile", "", "kns.red", 0, rule_id("ARE0|kns.red"), "allow")
    assert direction_of(profile) == "egress"
    end = Section(SectionKind.END_OF_TIER, "security", match_id=end_of_tier_id("security", "egress", "deny"))
    assert direction_of(end) == "egress"
    assert direction_of(replace(end, match_id=7)) == ""
