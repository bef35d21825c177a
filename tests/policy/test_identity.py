from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.chains import CommentKind, chain_role, limited_id, parse_comment
from calico_debug.policy.identity import (
    PolicyIdentity,
    chain_names,
    find_policy,
    identify,
    identity_from_chain,
    identity_from_comment,
    identity_from_id,
    identity_of,
    policy_index,
    spellings,
)
from tests.policy.objects import CLIENT_EGRESS, CUSTOMER, DATABASE, RECORDED, STAGED, policy


def _chain(name: str) -> PolicyIdentity | None:
    role = chain_role(name)
    assert role is not None
    return identity_from_chain(role)


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("NetworkPolicy stars/platform.x", PolicyIdentity("NetworkPolicy", "stars", "platform.x")),
        ("GlobalNetworkPolicy default-deny", PolicyIdentity("GlobalNetworkPolicy", "", "default-deny")),
        ("KubernetesNetworkPolicy a/b", PolicyIdentity("KubernetesNetworkPolicy", "a", "b", "default")),
        ("KubernetesClusterNetworkPolicy b", PolicyIdentity("ClusterNetworkPolicy", "", "b")),
        # v3.28 to v3.31
        ("Policy stars/platform.x", PolicyIdentity("NetworkPolicy", "stars", "platform.x", "platform")),
        ("Policy stars/default.x", PolicyIdentity("NetworkPolicy", "stars", "x", "default")),
        ("Policy default/default.x.y", PolicyIdentity("NetworkPolicy", "default", "x.y", "default")),
        ("Policy security.dns", PolicyIdentity("GlobalNetworkPolicy", "", "security.dns", "security")),
        ("Policy plain", PolicyIdentity("GlobalNetworkPolicy", "", "plain", "default")),
        ("Policy a/knp.default.b.c", PolicyIdentity("KubernetesNetworkPolicy", "a", "b.c", "default")),
        ("Policy ossg.default.1234", PolicyIdentity("GlobalNetworkPolicy", "", "ossg.default.1234", "default")),
        (
            "Policy kanp.adminnetworkpolicy.b",
            PolicyIdentity("AdminNetworkPolicy", "", "b", "adminnetworkpolicy"),
        ),
        (
            "Policy kbanp.baselineadminnetworkpolicy.default",
            PolicyIdentity("BaselineAdminNetworkPolicy", "", "default", "baselineadminnetworkpolicy"),
        ),
        # no policy has such a name
        ("NetworkPolicy without-namespace", None),
        ("GlobalNetworkPolicy with/namespace", None),
        ("NetworkPolicy a/b/c", None),
        ("Policy a/b/c", None),
        ("Policy /c", None),
        ("Policy a/knp.default.", None),
    ],
)
def test_identity_from_comment(text: str, identity: PolicyIdentity | None) -> None:
    assert identity_from_comment(parse_comment(f"cali:HASH; {text} ingress")) == identity


def test_other_comments_name_no_policy() -> None:
    assert identity_from_comment(parse_comment("cali:HASH; Profile kns.x ingress")) is None
    assert identity_from_comment(parse_comment("cali:HASH;")) is None


@pytest.mark.parametrize(
    ("chain", "identity"),
    [
        ("filter-cali-pi-np/stars/platform.x", PolicyIdentity("NetworkPolicy", "stars", "platform.x")),
        ("mangle-cali-pi-gnp/security.guard", PolicyIdentity("GlobalNetworkPolicy", "", "security.guard")),
        ("cali-po-knp/yaobank/db", PolicyIdentity("KubernetesNetworkPolicy", "yaobank", "db", "default")),
        ("filter-cali-pi-kcnp/all", PolicyIdentity("ClusterNetworkPolicy", "", "all")),
        # v3.29 to v3.31
        (
            "filter-cali-pi-platform/stars/platform.x",
            PolicyIdentity("NetworkPolicy", "stars", "platform.x", "platform"),
        ),
        ("cali-pi-default/a/default.x", PolicyIdentity("NetworkPolicy", "a", "x", "default")),
        ("cali-pi-security/security.dns", PolicyIdentity("GlobalNetworkPolicy", "", "security.dns", "security")),
        ("filter-cali-pi-default/default.x", PolicyIdentity("GlobalNetworkPolicy", "", "x", "default")),
        ("cali-pi-default/plain", PolicyIdentity("GlobalNetworkPolicy", "", "plain", "default")),
        ("cali-pi-default/a/knp.default.b", PolicyIdentity("KubernetesNetworkPolicy", "a", "b", "default")),
        (
            "cali-pi-adminnetworkpolicy/kanp.adminnetworkpolicy.b",
            PolicyIdentity("AdminNetworkPolicy", "", "b", "adminnetworkpolicy"),
        ),
        # tiers called like v3.32's short kinds
        ("cali-pi-np/np.x", PolicyIdentity("GlobalNetworkPolicy", "", "np.x", "np")),
        ("cali-pi-gnp/a/gnp.x", PolicyIdentity("NetworkPolicy", "a", "gnp.x", "gnp")),
        # v3.28
        ("cali-pi-default.x", PolicyIdentity("GlobalNetworkPolicy", "", "x", "default")),
        ("cali-pi-team-a/default.x", PolicyIdentity("NetworkPolicy", "team-a", "x", "default")),
        ("cali-pi-default/knp.default.x", PolicyIdentity("KubernetesNetworkPolicy", "default", "x", "default")),
        # says too little, or nothing
        ("cali-pi-default/default.x", None),
        ("cali-pi-_fInC6v_wKpoOMtruxUM", None),
        ("cali-pi-a/b/c/d", None),
        ("cali-fw-cali1", None),
    ],
)
def test_identity_from_chain(chain: str, identity: PolicyIdentity | None) -> None:
    assert _chain(chain) == identity


def test_ids_outside_of_chains_have_no_tier() -> None:
    assert identity_from_id("default/default.x", tiered=False) == PolicyIdentity(
        "NetworkPolicy", "default", "x", "default"
    )


def test_words() -> None:
    assert str(PolicyIdentity("NetworkPolicy", "a", "b")) == "NetworkPolicy a/b"
    assert str(PolicyIdentity("GlobalNetworkPolicy", "", "b")) == "GlobalNetworkPolicy b"


@pytest.mark.parametrize(
    ("tier", "object_name", "named", "found"),
    [
        ("platform", "platform.x", "platform.x", True),
        ("platform", "x", "platform.x", True),
        ("platform", "platform.x", "x", True),
        ("default", "x", "x", True),
        ("default", "default.x", "x", True),
        ("platform", "y", "x", False),
        ("security", "x", "platform.x", False),
    ],
)
def test_names_with_and_without_tier(tier: str, object_name: str, named: str, found: bool) -> None:
    candidate = policy("NetworkPolicy", "a", object_name, tier)
    assert find_policy(PolicyIdentity("NetworkPolicy", "a", named), [candidate]) is (candidate if found else None)
    assert find_policy(PolicyIdentity("NetworkPolicy", "b", named), [candidate]) is None
    assert find_policy(PolicyIdentity("GlobalNetworkPolicy", "a", named), [candidate]) is None


def test_the_exact_name_goes_first_and_doubt_finds_nothing() -> None:
    plain = policy("NetworkPolicy", "a", "x", "platform")
    tiered = policy("NetworkPolicy", "a", "platform.x", "platform")
    assert find_policy(identity_of(plain), [plain, tiered]) is plain
    assert find_policy(identity_of(tiered), [plain, tiered]) is tiered
    one, other = policy("NetworkPolicy", "a", "one.x", "one"), policy("NetworkPolicy", "a", "two.x", "two")
    assert find_policy(PolicyIdentity("NetworkPolicy", "a", "x"), [one, other]) is None
    assert find_policy(PolicyIdentity("NetworkPolicy", "a", "x", "two"), [one, other]) is other


@pytest.mark.parametrize(
    ("chain", "kind", "namespace", "name"),
    [
        # chains of nodes with Calico v3.32.1 in iptables mode
        ("cali-pi-_9nVXE8OsErwXFk3cxTy", "NetworkPolicy", "yaobank", "customer-policy"),
        ("cali-po-_fInC6v_wKpoOMtruxUM", "GlobalNetworkPolicy", "", "security.quarantine"),
        ("cali-pi-_hdle9XjFtrd80HpTQD6", "NetworkPolicy", "yaobank", "summary-policy"),
        ("cali-po-_l5YvZZimyRCXfD2Xcmf", "NetworkPolicy", "client", "platform.client-egress"),
        ("cali-pi-_7fkwOJ7EaUbdkl16eNp", "GlobalNetworkPolicy", "", "security.node-ingress"),
        ("cali-pi-_o9UDsGla2cEgHAZXAY_", "NetworkPolicy", "stars", "platform.stars-backend"),
        ("cali-pi-_oLw6i18l3uXERk2ZRUj", "KubernetesNetworkPolicy", "yaobank", "database-policy"),
        ("cali-pi-_yjpE-lip5dufFxbbKqH", "GlobalNetworkPolicy", "", "platform.management"),
    ],
)
def test_hashed_chains(chain: str, kind: str, namespace: str, name: str) -> None:
    found = policy_index(RECORDED).find_chain(chain)
    assert found is not None
    assert (found.kind, found.namespace, found.name) == (kind, namespace, name)


@pytest.mark.parametrize(
    ("candidate", "legacy_id"),
    [
        # felix/fv/iptables_force_programming_test.go of v3.31: cali-pi-_l_CMLPBmpkyZIIwB62k
        (policy("GlobalNetworkPolicy", "", "policy-1"), "default/default.policy-1"),
        (CLIENT_EGRESS, "platform/client/platform.client-egress"),
        (policy("NetworkPolicy", "client", "client-egress", "platform"), "platform/client/platform.client-egress"),
        (DATABASE, "default/yaobank/knp.default.database-policy"),
        (DATABASE, "yaobank/knp.default.database-policy"),
        (
            policy("AdminNetworkPolicy", "", "cluster-control", "adminnetworkpolicy"),
            "adminnetworkpolicy/kanp.adminnetworkpolicy.cluster-control",
        ),
    ],
)
def test_hashed_chains_of_older_releases(candidate: object, legacy_id: str) -> None:
    chain = limited_id("cali-pi-", legacy_id, 28)
    assert "_" in chain
    assert policy_index([candidate]).find_chain(f"filter-{chain}") is candidate  # type: ignore[list-item]


def test_plain_names_are_found_too() -> None:
    index = policy_index(RECORDED)
    assert index.find_chain("filter-cali-pi-default/yaobank/default.customer-policy") is CUSTOMER
    assert index.find_chain("filter-cali-po-np/yaobank/customer-policy") is CUSTOMER
    assert index.find_chain("filter-cali-po-np/yaobank/other") is None


def test_one_chain_of_two_objects_is_nobodys() -> None:
    # the two releases would give these the same chain
    one = policy("NetworkPolicy", "default", "a-name-that-needs-a-hash")
    other = policy("GlobalNetworkPolicy", "", "a-name-that-needs-a-hash")
    chain = limited_id("cali-pi-", "default/default.a-name-that-needs-a-hash", 28)
    assert policy_index([one]).find_chain(chain) is one
    assert policy_index([one, other]).find_chain(chain) is None
    assert policy_index([one, other]).find_chain("filter-cali-fw-x") is None


def test_staged_policies_have_no_chain() -> None:
    assert not chain_names(STAGED)


def test_identify_takes_what_tells_most() -> None:
    index = policy_index(RECORDED)

    def named(chain: str, comment: str) -> PolicyIdentity | None:
        role = chain_role(chain)
        assert role is not None
        return identify(role, parse_comment(comment), index, chain)

    customer = PolicyIdentity("NetworkPolicy", "yaobank", "customer-policy", "default")
    hashed = "cali-pi-_9nVXE8OsErwXFk3cxTy"
    assert named(hashed, "cali:H; NetworkPolicy yaobank/customer-policy ingress") == customer
    assert named(hashed, "cali:H; Policy yaobank/default.customer-policy ingress") == customer
    assert named(hashed, "cali:H;") == customer
    assert named("filter-cali-pi-np/yaobank/customer-policy", "cali:H;") == customer
    gone = PolicyIdentity("NetworkPolicy", "yaobank", "gone")
    assert named("filter-cali-pi-np/yaobank/gone", "") == gone
    assert named("cali-pi-_AAAAAAAAAAAAAAAAAAA", "cali:H;") is None
    assert named("filter-cali-pri-kns.x", "cali:H; Profile kns.x ingress") is None
    assert parse_comment("cali:H; NetworkPolicy yaobank/customer-policy ingress").kind is CommentKind.POLICY


@given(st.text(alphabet="abk/._:-np ", max_size=40), st.sampled_from([None, True, False]))
def test_any_id_is_read(policy_id: str, tiered: bool | None) -> None:
    identity = identity_from_id(policy_id, tiered=tiered)
    if identity is not None:
        assert identity.name
        assert "/" not in identity.namespace
        policy_index(RECORDED).find(identity)


def test_spellings() -> None:
    spec: dict[str, object] = {}
    own = PolicyObject("NetworkPolicy", "shop", "early.web", "early", None, spec)
    assert spellings(own) == {"shop/early.web", "shop/web"}
    assert spellings(PolicyObject("GlobalNetworkPolicy", "", "web", "early", None, spec)) == {"web"}
