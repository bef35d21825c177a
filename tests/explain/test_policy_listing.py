from __future__ import annotations

import json

from calico_debug.explain.policy_listing import PolicyListing
from calico_debug.state.node import NodeState
from tests.explain.world import Node, Tier, allow, endpoint
from tests.explain.world import policy as chains
from tests.intent.clusters import host, intent, policy

RULES = {"types": ["Ingress"], "ingress": [{"action": "Allow", "protocol": "TCP"}]}
OBJECTS = (
    policy("NetworkPolicy", "web", "shop", order=2.5, selector="app == 'web'", **RULES),
    policy("StagedNetworkPolicy", "draft", "shop", order=9, **RULES),
    policy("GlobalNetworkPolicy", "edge", selector="role == 'edge'", applyOnForward=True, preDNAT=True, **RULES),
    policy("GlobalNetworkPolicy", "only", tier="early", namespaceSelector="team == 'b'", **RULES),
)


def listing() -> PolicyListing:
    made = intent(*OBJECTS, host_endpoints=(host("h", role="edge"),))
    programmed = {
        **chains("np", "shop/web", "ingress", allow("dport=80")),
        **endpoint("cali-fw-cali1", [Tier("default", ["np/shop/web"])]),
    }
    return PolicyListing(made, {"n1": NodeState(Node(chains=programmed).evidence())})


def pod_document(name: str = "web") -> dict[str, object]:
    made = listing()
    found = made._intent.applicability.pod("shop", name)
    assert found is not None
    return made.of_pod(found)


def test_policies_of_a_pod() -> None:
    document = pod_document()
    (tier,) = document["ingress"]["tiers"]  # type: ignore[index]
    assert (tier["tier"], tier["order"], tier["defaultAction"]) == ("default", 1000000, "Deny")
    web, draft = tier["policies"]
    assert (web["name"], web["order"], web["hits"]["node"], web["hits"]["count"]) == ("web", 2.5, "n1", 7)
    assert web["rules"] == [{"index": 0, "text": "Allow TCP"}]
    assert (draft["kind"], draft["stagedAction"], "hits" in draft) == ("StagedNetworkPolicy", "Set", False)
    assert document["egress"] == {"tiers": [], "profiles": ["kns.shop", "ksa.shop.web"]}


def test_a_pod_of_a_node_without_evidence_has_no_counts() -> None:
    (tier,) = pod_document("db")["ingress"]["tiers"]  # type: ignore[index]
    assert tier["onlyStaged"] is True
    assert all("hits" not in one for one in tier["policies"])


def test_every_policy() -> None:
    early, last = listing().of_all()["tiers"]
    assert (early["tier"], [one["endpoints"] for one in early["policies"]]) == ("early", [1])
    assert [(one["name"], one["endpoints"], one["types"]) for one in last["policies"]] == [
        ("web", 1, ["ingress"]),
        ("draft", 2, ["ingress"]),
        ("edge", 1, ["ingress"]),
    ]


def test_endpoints_of_a_policy() -> None:
    made = listing()
    by_name = {one.key.name: one for one in made._intent.applicability.policies}
    edge = made.endpoints(by_name["edge"])
    assert edge["endpoints"] == [{"kind": "HostEndpoint", "name": "h", "node": "n2", "interface": "eth0"}]
    assert (edge["policy"]["preDNAT"], edge["policy"]["applyOnForward"], edge["hits"]) == (True, True, [])
    (hits,) = made.endpoints(by_name["web"])["hits"]
    assert (hits["node"], hits["direction"], hits["count"]) == ("n1", "ingress", 7)
    assert made.endpoints(by_name["draft"])["hits"] == []


def test_documents_are_json() -> None:
    made = listing()
    documents = [pod_document(), made.of_all(), *(made.endpoints(one) for one in made._intent.applicability.policies)]
    assert [json.loads(json.dumps(one)) for one in documents] == documents
