from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.policy.chains import (
    ANY_INTERFACE,
    IPTABLES_NAME_LIMIT,
    ChainKind,
    ChainRole,
    CommentKind,
    RuleComment,
    chain_role,
    limited_id,
    parse_comment,
)


@pytest.mark.parametrize(
    ("prefix", "suffix", "limit", "expected"),
    [
        # vectors of libcalico-go/lib/hash/unique_id_test.go
        ("felix", "1234", 10, "felix1234"),
        ("felix", "123456", 11, "felix123456"),
        ("felix", "_2345", 10, "felix_kMQI"),
        ("felix", "12345678910", 13, "felix_Y2QCZIS"),
        ("felix", "", 10, "felix_"),
        # vectors of felix/rules/policy_test.go: v3.29 (with an empty tier), v3.32
        ("cali-pi-", "/long-policy-name-that-gets-hashed", 28, "cali-pi-_FJ9yUkNpzshVDh2n7mg"),
        ("cali-pi-", "gnp/long-policy-name-that-gets-hashed", 28, "cali-pi-_PymyFHQQg3808jiz1OJ"),
        # felix/fv/iptables_force_programming_test.go of v3.31
        ("cali-po-", "default/default.policy-1", 28, "cali-po-_l_CMLPBmpkyZIIwB62k"),
        # a node with Calico v3.32.1 in iptables mode
        ("cali-po-", "gnp/security.quarantine", 28, "cali-po-_fInC6v_wKpoOMtruxUM"),
    ],
)
def test_limited_id(prefix: str, suffix: str, limit: int, expected: str) -> None:
    assert limited_id(prefix, suffix, limit) == expected


def test_limited_id_refuses_a_limit_without_room() -> None:
    with pytest.raises(ValueError, match="no room"):
        limited_id("cali-pi-", "name-that-is-too-long", 9)


@given(st.text(max_size=60), st.integers(min_value=10, max_value=64))
def test_limited_id_keeps_the_limit(suffix: str, limit: int) -> None:
    made = limited_id("cali-pi-", suffix, limit)
    assert made.startswith("cali-pi-")
    assert len(made.encode()) <= limit


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("filter-FORWARD", ChainRole("filter", ChainKind.HOOK, "", "FORWARD")),
        ("raw-cali-PREROUTING", ChainRole("raw", ChainKind.BASE, "", "PREROUTING")),
        ("cali-FORWARD", ChainRole("", ChainKind.BASE, "", "FORWARD")),
        ("filter-cali-fw-cali1e6a8145a25", ChainRole("filter", ChainKind.WORKLOAD, "egress", "cali1e6a8145a25")),
        ("cali-tw-cali1e6a8145a25", ChainRole("", ChainKind.WORKLOAD, "ingress", "cali1e6a8145a25")),
        ("mangle-cali-th-eth0", ChainRole("mangle", ChainKind.HOST, "egress", "eth0")),
        ("filter-cali-fh-eth0", ChainRole("filter", ChainKind.HOST, "ingress", "eth0")),
        ("filter-cali-thfw-eth0", ChainRole("filter", ChainKind.HOST_FORWARD, "egress", "eth0")),
        ("filter-cali-fhfw-eth0", ChainRole("filter", ChainKind.HOST_FORWARD, "ingress", "eth0")),
        ("filter-cali-pi-np/stars/x.y", ChainRole("filter", ChainKind.POLICY, "ingress", "np/stars/x.y")),
        ("cali-po-_fInC6v_wKpoOMtruxUM", ChainRole("", ChainKind.POLICY, "egress", "_fInC6v_wKpoOMtruxUM")),
        ("filter-cali-pri-kns.stars", ChainRole("filter", ChainKind.PROFILE, "ingress", "kns.stars")),
        ("cali-pro-ksa.stars.default", ChainRole("", ChainKind.PROFILE, "egress", "ksa.stars.default")),
        ("cali-gi-_abcdefghijklmnopqrs", ChainRole("", ChainKind.POLICY_GROUP, "ingress", "_abcdefghijklmnopqrs")),
        ("filter-cali-go-x", ChainRole("filter", ChainKind.POLICY_GROUP, "egress", "x")),
        ("filter-cali-from-wl-dispatch", ChainRole("filter", ChainKind.WORKLOAD_DISPATCH, "egress", "")),
        ("cali-from-wl-dispatch-9", ChainRole("", ChainKind.WORKLOAD_DISPATCH, "egress", "9")),
        ("cali-to-wl-dispatch-a", ChainRole("", ChainKind.WORKLOAD_DISPATCH, "ingress", "a")),
        ("cali-from-host-endpoint", ChainRole("", ChainKind.HOST_DISPATCH, "ingress", "")),
        ("cali-to-host-endpoint-1", ChainRole("", ChainKind.HOST_DISPATCH, "egress", "1")),
        ("cali-from-hep-forward", ChainRole("", ChainKind.HOST_FORWARD_DISPATCH, "ingress", "")),
        ("filter-cali-wl-to-host", ChainRole("filter", ChainKind.WORKLOAD_TO_HOST, "egress", "")),
        ("mangle-cali-failsafe-in", ChainRole("mangle", ChainKind.FAILSAFE, "ingress", "")),
        ("cali-failsafe-out", ChainRole("", ChainKind.FAILSAFE, "egress", "")),
        ("filter-cali-cidr-block", ChainRole("filter", ChainKind.CIDR_BLOCK, "", "")),
        ("raw-cali-rpf-skip", ChainRole("raw", ChainKind.RPF_SKIP, "", "")),
        ("nat-cali-nat-outgoing", ChainRole("nat", ChainKind.NAT, "", "")),
        ("filter-cali-arp-dispatch", ChainRole("filter", ChainKind.ARP, "", "")),
        ("filter-cali-arp-cali1e6a8145a25", ChainRole("filter", ChainKind.ARP, "", "cali1e6a8145a25")),
        ("cali-set-endpoint-mark-c", ChainRole("", ChainKind.ENDPOINT_MARK, "", "c")),
        ("mangle-cali-egress-dscp", ChainRole("mangle", ChainKind.OTHER, "", "egress-dscp")),
        ("cali-of-the-future", ChainRole("", ChainKind.OTHER, "", "of-the-future")),
    ],
)
def test_chain_role(name: str, role: ChainRole) -> None:
    assert chain_role(name) == role


@pytest.mark.parametrize(
    "name",
    ["FORWARD", "filter-forward", "KUBE-SERVICES", "service-CTVHNM5D-a/b/tcp/", "calico-dhcp-x", "nat-postrouting", ""],
)
def test_chains_of_others(name: str) -> None:
    assert chain_role(name) is None


def test_hashed_subjects() -> None:
    for prefix in ("cali-fh-", "cali-th-", "cali-fhfw-", "cali-thfw-"):
        role = chain_role(limited_id(prefix, ANY_INTERFACE, IPTABLES_NAME_LIMIT))
        assert role is not None
        assert role.subject == ANY_INTERFACE
    hashed, group, plain = (chain_role(name) for name in ("cali-pi-_abc", "cali-gi-_abc", "cali-pi-gnp/abc"))
    assert hashed is not None
    assert hashed.hashed
    assert group is not None
    assert not group.hashed
    assert plain is not None
    assert not plain.hashed


_HASH = "cali:_8_9IZ5h2s-Sjtc6"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("Start of tier security", CommentKind.TIER_START, {"name": "security"}),
        (
            "End of tier platform. Drop if no policies passed packet",
            CommentKind.TIER_END,
            {"name": "platform", "action": "Drop"},
        ),
        ("Reject if no policies passed packet", CommentKind.TIER_END, {"action": "Reject"}),
        ("Return if policy accepted", CommentKind.POLICY_ACCEPTED, {}),
        ("Return if profile accepted", CommentKind.PROFILE_ACCEPTED, {}),
        ("Return on verdict", CommentKind.GROUP_VERDICT, {}),
        ("Drop if no profiles matched", CommentKind.NO_PROFILE, {"action": "Drop"}),
        ("Unknown interface", CommentKind.UNKNOWN_INTERFACE, {}),
        ("Endpoint admin disabled", CommentKind.ADMIN_DISABLED, {}),
        ("Configured DefaultEndpointToHostAction", CommentKind.HOST_ACTION, {}),
        ("Policy explicitly accepted packet.", CommentKind.ACCEPTED, {}),
        ("Host endpoint policy accepted packet.", CommentKind.HOST_ACCEPTED, {}),
        ("Allow forwarded traffic by default", CommentKind.FORWARD_DEFAULT, {}),
        (
            "Drop VXLAN encapped packets originating in workloads",
            CommentKind.ENCAPSULATED_BY_WORKLOAD,
            {"action": "Drop"},
        ),
        ("Drop IPIP packets from non-Calico hosts", CommentKind.TUNNEL_REFUSED, {"action": "Drop"}),
        ("Reject IPv6 VXLAN packets from non-allowed hosts", CommentKind.TUNNEL_REFUSED, {"action": "Reject"}),
        ("Allow IPv4 VXLAN packets to other allowed hosts", CommentKind.TUNNEL_ALLOWED, {}),
        ("Allow incoming IPv4 Wireguard packets", CommentKind.TUNNEL_ALLOWED, {}),
        (
            "Drop packets over ingress packet rate limit",
            CommentKind.PACKET_RATE,
            {"direction": "ingress", "action": "Drop"},
        ),
        ("Clear egress packet rate limit mark", CommentKind.PACKET_RATE, {"direction": "egress"}),
        (
            "Reject connections over egress connection limit",
            CommentKind.CONNECTION_LIMIT,
            {"direction": "egress", "action": "Reject"},
        ),
        ("From workload without BPF seen mark", CommentKind.BPF, {}),
        ("Profile ksa.stars.default egress", CommentKind.PROFILE, {"name": "ksa.stars.default", "direction": "egress"}),
        (
            "NetworkPolicy stars/platform.x ingress",
            CommentKind.POLICY,
            {"policy_kind": "NetworkPolicy", "name": "stars/platform.x", "direction": "ingress"},
        ),
        (
            "Policy default/knp.default.x egress",
            CommentKind.POLICY,
            {"policy_kind": "Policy", "name": "default/knp.default.x", "direction": "egress"},
        ),
        (
            "owner=the blue team GlobalNetworkPolicy x ingress",
            CommentKind.POLICY,
            {"policy_kind": "GlobalNetworkPolicy", "name": "x", "direction": "ingress"},
        ),
        # cut in the middle of the name, or of the direction: it names nothing for sure
        ("NetworkPolicy stars/a-very-long-na", CommentKind.OTHER, {}),
        ("NetworkPolicy stars/a-very-long-name ingres", CommentKind.OTHER, {}),
        ("something of a later release", CommentKind.OTHER, {}),
    ],
)
def test_comments(text: str, kind: CommentKind, said: dict[str, str]) -> None:
    expected = RuleComment("_8_9IZ5h2s-Sjtc6", text, kind, **said)
    assert parse_comment(f"{_HASH}; {text}") == expected
    assert parse_comment(f"{_HASH} {text}") == expected


@pytest.mark.parametrize("comment", [_HASH, f"{_HASH};", f"{_HASH}; "])
def test_a_hash_alone(comment: str) -> None:
    assert parse_comment(comment) == RuleComment("_8_9IZ5h2s-Sjtc6", "", CommentKind.NONE)


def test_texts_of_others_are_not_trusted() -> None:
    assert parse_comment("End of tier x. Drop if no policies passed packet").kind is CommentKind.OTHER
    assert parse_comment("").kind is CommentKind.NONE


@given(st.text(max_size=200))
def test_any_name_and_comment_is_read(text: str) -> None:
    chain_role(text)
    chain_role(f"filter-cali-{text}")
    assert parse_comment(f"{_HASH}; {text}").hash == "_8_9IZ5h2s-Sjtc6"
    parse_comment(text)
