"""Policy of eBPF nodes: told from Felix's debug files, and from the loaded programs where those are stale or absent."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings
from calico_debug.explain.listing.policy_view import EndpointView, RuleView
from calico_debug.model.explanation import PolicyRef
from tests.evidence.memory import MemoryNode, MemorySource
from tests.recordings import DATA, Recording, recordings

RECORDING = str(DATA / "v3.32.1-bpf.tar.xz")
CLIENT = "cali930d9fe4cd7"
DEBUG = f"var-run-calico-bpf/policy/{CLIENT}_egress_v4.json"


def source(changed: Mapping[str, bytes | None] | None = None, node: str = "node1") -> MemorySource:
    """The recording, with files of the node replaced, or left out for None."""
    bundle = open_bundle(RECORDING)
    evidence = bundle.node(node)
    files = {name: evidence.read(name) for name in evidence.files()}
    kept = {name: content for name, content in {**files, **(changed or {})}.items() if content is not None}
    cluster = {name: bundle.read_cluster(name) for name in bundle.cluster_files()}
    return MemorySource(cluster, {node: MemoryNode(kept, node)})


def egress(listings: NodeListings) -> EndpointView:
    views = listings.policies(frozenset({CLIENT}))
    return next(view for view in views if view.direction == "egress")


def told(view: EndpointView) -> list[tuple[str, str, list[RuleView]]]:
    return [(tier.name, policy.ref.name, list(policy.rules)) for tier in view.tiers for policy in tier.policies]


def test_the_debug_file_names_every_rule() -> None:
    view = egress(NodeListings(source(), "node1"))
    assert (view.pod, view.kind, view.direction, view.problem) == (("client", "client-5f8b"), "pod", "egress", "")
    (_, _, dns), (_, _, quarantine), (tier, name, own) = told(view)
    assert (tier, name) == ("platform", "platform.client-egress")
    assert (own[0].index, own[0].text) == (0, "Allow TCP to namespace stars, ports 80, 6379")
    assert (own[0].rule_id, own[0].hits) == ("f4e9455e5e2192f2", 3)
    assert own[0].ip_sets[0].members == ("10.244.1.31", "10.244.2.31")
    assert [rule.action for rule in (*dns, *quarantine)] == ["Allow", "Deny", "Pass"]
    # Denials at the end of a tier count, where the code can get there.
    ends = [tier.end for tier in view.tiers]
    assert [(end.hits, end.absent) for end in ends if end] == [(None, "nothing gets to it"), (16, "")]


def test_up_to_v3_31_files_do_not_name_profiles_and_their_ids_do() -> None:
    content = open_bundle(RECORDING).node("node1").read(DEBUG)
    nameless = re.sub(rb"(Start|End) of rule k[ns]\w+\.[\w.-]+ ", rb"\1 of rule ", content)
    assert nameless != content
    view = egress(NodeListings(source({DEBUG: nameless}), "node1"))
    assert [profile.ref for profile in view.profiles] == [PolicyRef("Profile", "kns.client")]
    named = egress(NodeListings(source(), "node1"))
    assert [rule.absent for one in view.profiles for rule in one.rules] == [
        rule.absent for one in named.profiles for rule in one.rules
    ]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "bpf-policy-debug-missing"),
        (b"{", "bpf-policy-debug-missing"),
        (b'{"ifacename": "other"}', "bpf-policy-debug-stale"),
    ],
)
def test_without_a_usable_debug_file_the_loaded_program_is_told_by_its_ids(content: bytes | None, code: str) -> None:
    whole = egress(NodeListings(source(), "node1"))
    view = egress(NodeListings(source({DEBUG: content}), "node1"))
    assert [finding.code for finding in view.findings] == [code]
    assert counted(view) == counted(whole)
    assert counted(view)


def test_without_a_dump_either_nothing_is_known_and_the_message_says_what_to_record() -> None:
    dumps = [name for name in source().node("node1").files() if "xlated-" in name]
    assert dumps
    view = egress(NodeListings(source({DEBUG: None, **dict.fromkeys(dumps)}), "node1"))
    assert "bpftool -j prog dump xlated id" in view.problem
    assert (view.tiers, view.end) == ((), None)


def counted(view: EndpointView) -> list[tuple[str, str, list[tuple[int | None, str, str, int | None]]]]:
    """The rules that have code and count, which is what a program without comments tells."""
    found = [
        (tier, name, [(rule.index, rule.rule_id, rule.action, rule.hits) for rule in rules if _has_code(rule)])
        for tier, name, rules in told(view)
    ]
    return [one for one in found if one[2]]


def _has_code(rule: RuleView) -> bool:
    return bool(rule.rule_id) and not rule.absent


@pytest.mark.parametrize("recording", recordings("-bpf"), ids=lambda one: one.name)
def test_programs_alone_tell_what_debug_files_tell(recording: Recording) -> None:
    """The ids in the loaded code, named by the cluster's objects, are the rules that Felix's files list."""
    bundle, compared = recording.source, 0
    cluster = {name: bundle.read_cluster(name) for name in bundle.cluster_files()}
    for node in bundle.nodes():
        evidence = bundle.node(node)
        files = {name: evidence.read(name) for name in evidence.files()}
        bare = {name: content for name, content in files.items() if not name.startswith("var-run-calico-bpf/")}
        both = (NodeListings(MemorySource(cluster, {node: MemoryNode(kept, node)}), node) for kept in (files, bare))
        for one, other in zip(*(listings.policies() for listings in both), strict=True):
            assert (one.interface, one.direction, one.family) == (other.interface, other.direction, other.family)
            assert counted(one) == counted(other)
            compared += 1
    assert compared > 20


def test_a_map_of_counters_that_is_missing_counts_nothing() -> None:
    view = egress(NodeListings(source(), "node1"))
    assert any(rule.hits for _, _, rules in told(view) for rule in rules)
    listings = NodeListings(source({"bpf/map-cali_rule_ctrs2.json": b"[]"}), "node1")
    assert {rule.hits for _, _, rules in told(egress(listings)) for rule in rules} == {0}


def test_without_files_and_objects_the_ids_are_all_that_is_known() -> None:
    evidence = source().node("node1")
    files = {name: evidence.read(name) for name in evidence.files() if not name.startswith("var-run-calico-bpf/")}
    view = egress(NodeListings(MemorySource({}, {"node1": MemoryNode(files, "node1")}), "node1"))
    named = egress(NodeListings(source(), "node1"))
    assert [tier.name for tier in view.tiers] == ["?"]
    ((_, name, rules),) = told(view)
    assert name == ""
    assert [(rule.index, rule.action) for rule in rules] == [(None, "?")] * len(rules)
    ends = {tier.end.rule_id for tier in named.tiers if tier.end}
    ids = {rule.rule_id for rule in rules}
    assert ids - ends == {number for _, _, found in counted(named) for _, number, _, _ in found}
