"""Why kube-proxy's and kubelet's rules deny, by chain and comment."""

from __future__ import annotations

import pytest

from calico_debug.explain.kube_proxy import is_kube_proxy, reason_and_detail
from calico_debug.model.explanation import REASONS
from calico_debug.model.nft import Rule


def rule(table: str, chain: str, comment: str = "") -> Rule:
    return Rule("ip", table, chain, 1, (), comment)


@pytest.mark.parametrize(
    ("denying", "chains", "reason"),
    [
        (rule("filter", "KUBE-SERVICES", "stars/ghost:http has no endpoints"), (), "no-endpoints"),
        (rule("filter", "KUBE-EXTERNAL-SERVICES", "stars/ghost:http has no local endpoints"), (), "no-endpoints"),
        (rule("filter", "KUBE-PROXY-FIREWALL", "a/b:http traffic not accepted by KUBE-FW-X"), (), "source-ranges"),
        (rule("filter", "KUBE-FIREWALL", "kubernetes firewall for dropping marked packets"), (), "source-ranges"),
        (rule("filter", "KUBE-FIREWALL", "block incoming localnet connections"), (), "not-calico"),
        (rule("filter", "KUBE-FORWARD"), (), "ct-invalid"),
        (rule("filter", "KUBE-NEW"), ("INPUT",), "not-calico"),
        (rule("kube-proxy", "reject-chain"), ("services", "filter-input"), "no-endpoints"),
        (rule("kube-proxy", "cluster-ips-check"), (), "service-port"),
        (rule("kube-proxy", "new"), ("firewall-X-a/b/tcp/http",), "source-ranges"),
        (rule("kube-proxy", "new"), (), "not-calico"),
    ],
)
def test_reasons(denying: Rule, chains: tuple[str, ...], reason: str) -> None:
    assert is_kube_proxy(denying)
    found, detail = reason_and_detail(denying, chains)
    assert found == reason
    assert found in REASONS
    assert detail


def test_other_rules_are_not_its() -> None:
    assert not is_kube_proxy(rule("filter", "cali-FORWARD"))
    assert not is_kube_proxy(rule("calico", "filter-FORWARD"))
