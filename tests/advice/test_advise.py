"""Proposals: the smallest edit wins, it does what it says, and none is made where none helps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from calico_debug.advice.advise import Proposal, Wanted, propose
from calico_debug.advice.edits import CLUSTER_ALLOWS, Peer, additions
from calico_debug.intent.decide import Intent
from calico_debug.intent.flows import policy_flows
from calico_debug.intent.matrix import matrix
from calico_debug.state.cluster import load_cluster
from calico_debug.state.node import NodeState
from calico_debug.state.resolve import Resolver
from tests.advice.clusters import calico, cluster, cluster_policy, flow, kubernetes, texts
from tests.recordings import Recording, recordings

if TYPE_CHECKING:
    from calico_debug.intent.flows import AskedFlow
    from calico_debug.model.cluster import Cluster

DENY_ALL = calico("a", "deny", types=["Ingress", "Egress"])


def after(before: Cluster, proposal: Proposal) -> Intent:
    policies = list(before.policies)
    for edit in proposal.edits:
        if edit.before is None:
            policies.append(edit.policy)
        else:
            place = [(one.kind, one.namespace, one.name) for one in policies].index(
                (edit.before.kind, edit.before.namespace, edit.before.name)
            )
            policies[place] = edit.policy
    return Intent(replace(before, policies=tuple(policies)))


def proposed(before: Cluster, asked: AskedFlow, wanted: Wanted = "allowed") -> list[str]:
    proposal = propose(Intent(before), [asked], wanted)
    if proposal is None:
        return []
    assert after(before, proposal).decide(asked.flow).verdict == wanted
    return texts(proposal.edits)


def test_a_rule_at_the_end_of_the_policy_that_selects() -> None:
    assert proposed(cluster(DENY_ALL), flow("a/one", "c/bare")) == [
        "add to a/deny an egress rule: Allow TCP to namespace c, port 80"
    ]


def test_both_ends() -> None:
    found = proposed(cluster(DENY_ALL, calico("b", "deny", types=["Ingress"])), flow("a/one", "b/one"))
    assert [text.partition(" rule:")[0] for text in found] == ["add to a/deny an egress", "add to b/deny an ingress"]


def test_fewer_flips_win_over_fewer_words() -> None:
    """Both pods of b would be let in by their namespace, one by its label."""
    (found,) = proposed(cluster(DENY_ALL), flow("b/one", "a/one"))
    assert "app == 'one'" in found
    assert "pod-template-hash" not in found


def test_a_port_more_is_the_smallest_edit() -> None:
    rule = {
        "action": "Allow",
        "protocol": "TCP",
        "source": {"selector": "app == 'one'"},
        "destination": {"ports": [80]},
    }
    rule["source"] = {"namespaceSelector": "kubernetes.io/metadata.name == 'b'", "selector": "app == 'one'"}
    before = cluster(calico("a", "some", selector="app == 'one'", types=["Ingress"], ingress=[rule]))
    assert proposed(before, flow("b/one", "a/one", 81)) == ["add port 81 to ingress rule 0 of a/some"]


def test_kubernetes_policies() -> None:
    entry = {"from": [{"namespaceSelector": {}}], "ports": [{"port": 80}]}
    before = cluster(kubernetes("a", "web", policyTypes=["Ingress"], ingress=[entry]))
    found = proposed(before, flow("c/bare", "a/two", 81, 17))
    assert found[0].startswith("add to a/web an ingress rule: Allow UDP")
    assert not proposed(before, flow("c/bare", "a/two", None, 1)), "a Kubernetes policy cannot say ICMP"


def test_before_an_explicit_denial() -> None:
    rules = [{"action": "Log"}, {"action": "Deny", "protocol": "TCP"}]
    before = cluster(calico("", "no-tcp", types=["Egress"], egress=[*rules, {"action": "Allow"}]))
    (found,) = proposed(before, flow("a/one", "b/one"))
    assert found.startswith("put before egress rule 1 of no-tcp: Allow TCP to ")


def test_a_policy_of_the_namespace_that_is_asked_before_the_denial() -> None:
    denial = calico("", "no-tcp", 200, types=["Egress"], egress=[{"action": "Deny"}])
    (found,) = proposed(cluster(calico("a", "own", 100, types=["Egress"]), denial), flow("a/one", "b/one"))
    assert found.startswith("add to a/own an egress rule: ")
    (found,) = proposed(cluster(calico("a", "own", 300, types=["Egress"]), denial), flow("a/one", "b/one"))
    assert found.startswith("put before egress rule 0 of no-tcp: ")


@pytest.mark.parametrize("kind", list(CLUSTER_ALLOWS))
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_a_policy_of_the_whole_cluster_that_denies(kind: str, direction: str) -> None:
    key = "from" if direction == "ingress" else "to"
    rules = [
        {"action": "Deny", key: [{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "x"}}}}]},
        {"action": "Deny", key: [{"namespaces": {}}]},
    ]
    policy = cluster_policy(kind, **{direction: rules})
    before, asked = Intent(cluster(policy)), flow("b/one", "a/one", 5353, 17)
    assert before.decide(asked.flow).verdict == "denied"
    proposal = propose(before, [asked], "allowed")
    assert proposal is not None
    (edit,) = proposal.edits
    assert edit.text.startswith(f"put before {direction} rule 1 of {policy.name}: Allow UDP ")
    assert edit.policy.spec[direction][1]["action"] == CLUSTER_ALLOWS[kind]
    after = Intent(replace(before.cluster, policies=[edit.policy]))
    assert after.decide(asked.flow).verdict == "allowed"
    assert after.decide(flow("b/one", "a/one", 5354, 17).flow).verdict == "denied"
    other = flow("c/bare", "a/one", 5353, 17) if direction == "ingress" else flow("b/one", "c/bare", 5353, 17)
    assert after.decide(other.flow).verdict == "denied"
    assert propose(before, [flow("b/one", "a/one", None, 1)], "allowed") is None, "these kinds cannot say ICMP"
    back = propose(after, [asked], "denied")
    assert back is not None
    assert Intent(replace(before.cluster, policies=[back.edits[0].policy])).decide(asked.flow).verdict == "denied"


def test_a_policy_of_the_whole_cluster_cannot_name_who_comes_from_outside() -> None:
    deny = [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}]
    (found,) = proposed(cluster(cluster_policy("AdminNetworkPolicy", egress=deny)), flow("a/one", "192.0.2.1"))
    assert "192.0.2.1/32" in found
    ingress = cluster_policy("AdminNetworkPolicy", ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}])
    assert not list(additions(ingress, "ingress", flow("192.0.2.1", "a/one").flow, Peer("192.0.2.1", None), "Allow", 0))


@pytest.mark.parametrize(("destination", "says"), [("192.0.2.1", "192.0.2.1/32"), ("c/bare", "namespace c")])
def test_what_the_other_side_is_called(destination: str, says: str) -> None:
    (found,) = proposed(cluster(DENY_ALL), flow("a/one", destination))
    assert says in found


def test_icmp() -> None:
    (found,) = proposed(cluster(DENY_ALL), flow("a/one", "c/bare", None, 1))
    assert found == "add to a/deny an egress rule: Allow ICMP type 8 (echo request) to namespace c"


def test_to_deny_what_a_rule_allows() -> None:
    before = cluster(calico("b", "open", types=["Ingress"], ingress=[{"action": "Allow"}]))
    (found,) = proposed(before, flow("a/one", "b/one"), "denied")
    assert "Deny TCP" in found
    assert "namespace" in found


def test_to_deny_what_no_policy_looks_at() -> None:
    before = cluster()
    (found,) = proposed(before, flow("a/one", "b/one"), "denied")
    assert found.startswith("add ")
    assert "Deny TCP" in found
    edited = after(before, propose(Intent(before), [flow("a/one", "b/one")], "denied"))  # type: ignore[arg-type]
    assert edited.decide(flow("a/one", "b/one", 81).flow).verdict == "allowed"
    assert edited.decide(flow("a/two", "b/one").flow).verdict == "allowed"


def test_to_deny_what_a_kubernetes_policy_allows() -> None:
    before = cluster(kubernetes("b", "open", policyTypes=["Ingress"], ingress=[{}]))
    found = proposed(before, flow("a/one", "b/one"), "denied")
    assert len(found) == 1


def test_nothing_to_do_and_nothing_that_helps() -> None:
    assert propose(Intent(cluster()), [flow("a/one", "b/one")], "allowed") is None
    staged_only = replace(DENY_ALL, spec={**DENY_ALL.spec, "selector": "!!"})
    assert propose(Intent(cluster(staged_only)), [flow("a/one", "b/one")], "allowed") is None


def test_all_backends_of_a_service() -> None:
    before = cluster(calico("b", "deny", types=["Ingress"]))
    asked = [flow("a/one", "b/one"), flow("a/one", "b/two")]
    proposal = propose(Intent(before), asked, "allowed")
    assert proposal is not None
    edited = after(before, proposal)
    assert all(edited.decide(one.flow).verdict == "allowed" for one in asked)


def every_pair(intent: Intent, port: int | None, protocol: int) -> dict[tuple[str, str], str]:
    pods = [one for one in intent.applicability.endpoints if one.kind == "pod"]
    found = matrix(intent, pods, pods, protocol, port)
    return {
        (str(source), str(destination)): verdict
        for source, row in zip(found.sources, found.rows, strict=True)
        for destination, verdict in zip(found.destinations, row, strict=True)
        if source is not destination
    }


@pytest.mark.parametrize("wanted", ["allowed", "denied"])
@pytest.mark.parametrize("recording", recordings("-nft")[:1], ids=str)
def test_probes_of_a_recording(recording: Recording, wanted: Wanted) -> None:
    """Every proposal does what it says, and flips exactly the pairs that it counts."""
    objects = load_cluster(recording.source)
    states = {name: NodeState(recording.source.node(name)) for name in recording.source.nodes()}
    resolver, intent = Resolver(objects, states), Intent(objects.cluster)
    proposals = 0
    for probe in recording.json("probes.json"):
        if "/" not in probe["src"] or probe["src"].startswith("host/"):
            continue
        port = f":{probe['dport']}" if probe["dport"] else ""
        asked = resolver.resolve(probe["src"], f"{probe['dst_ip']}{port}", protocol=probe["proto"])
        flows = policy_flows(asked, objects)
        proposal = propose(intent, flows, wanted) if flows else None
        if proposal is None:
            continue
        proposals += 1
        edited = after(objects.cluster, proposal)
        assert all(edited.decide(one.flow, one.via).verdict == wanted for one in flows)
        if len(proposal.edits) == 1 and len(flows) == 1:
            one = flows[0].flow
            old, new = (every_pair(each, one.destination_port, one.protocol) for each in (intent, edited))
            ends = tuple(str(intent.applicability.owners.pod(end)) for end in (one.source, one.destination))
            changed = {pair for pair in old if old[pair] != new[pair]} - {ends}
            assert proposal.flips[0].count == len(changed), (proposal.edits[0].text, changed)
    assert proposals > (40 if wanted == "allowed" else 20)
