"""What kube-proxy's rules deny, in both of its modes, and kubelet's beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calico_debug.model.nft import Rule

NFTABLES_TABLE = "kube-proxy"
"""kube-proxy's own table in nftables mode, in the families ip and ip6."""

IPTABLES_PREFIX = "KUBE-"
"""How chains of kube-proxy and kubelet begin in iptables mode."""


class _Denial(NamedTuple):
    chain: re.Pattern[str]
    comment: re.Pattern[str]
    reason: str
    detail: str


_NO_ENDPOINTS = ("no-endpoints", "the service has no endpoints")
_SOURCE_RANGES = ("source-ranges", "the load balancer's source ranges do not include the client")
_ANY = re.compile(r".*")

_NFTABLES = (
    _Denial(re.compile(r"reject-chain|(service|nodeport)-endpoints-check"), _ANY, *_NO_ENDPOINTS),
    _Denial(re.compile(r"cluster-ips-check"), _ANY, "service-port", "no service has this address and port"),
    _Denial(re.compile(r"firewall-.*"), _ANY, *_SOURCE_RANGES),
)
"""Kubernetes pkg/proxy/nftables/proxier.go, v1.29 to v1.35."""

_IPTABLES = (
    _Denial(
        re.compile(r"KUBE-(SERVICES|EXTERNAL-SERVICES|NODEPORTS)"),
        re.compile(r".* has no (local )?endpoints"),
        *_NO_ENDPOINTS,
    ),
    _Denial(re.compile(r"KUBE-(PROXY-FIREWALL|FW-.*|MARK-DROP)"), _ANY, *_SOURCE_RANGES),
    _Denial(
        re.compile(r"KUBE-FIREWALL"), re.compile(r"kubernetes firewall for dropping marked packets"), *_SOURCE_RANGES
    ),
    _Denial(re.compile(r"KUBE-FIREWALL"), _ANY, "not-calico", "kubelet blocks packets from elsewhere to 127.0.0.0/8"),
    _Denial(
        re.compile(r"KUBE-FORWARD"),
        _ANY,
        "ct-invalid",
        "kube-proxy drops packets that conntrack finds to belong to no connection",
    ),
)
"""Kubernetes pkg/proxy/iptables/proxier.go and pkg/kubelet/kubelet_network_linux.go, v1.22 to v1.35. Up to v1.27,
packets outside of the source ranges were marked in KUBE-MARK-DROP, and KUBE-FIREWALL dropped what was marked.
"""


def is_kube_proxy(rule: Rule) -> bool:
    """Whether kube-proxy or kubelet wrote the rule."""
    return rule.table == NFTABLES_TABLE or rule.chain.startswith(IPTABLES_PREFIX)


def reason_and_detail(rule: Rule, chains: Iterable[str]) -> tuple[str, str]:
    """Why a rule of kube-proxy denies, in the vocabulary of ``decision.reason`` and in words.

    ``chains`` are those on the way to the rule, the innermost first.
    """
    table = _NFTABLES if rule.table == NFTABLES_TABLE else _IPTABLES
    for chain in (rule.chain, *chains):
        for denial in table:
            if denial.chain.fullmatch(chain) and denial.comment.fullmatch(rule.comment):
                return denial.reason, denial.detail
    return "not-calico", f"a rule of kube-proxy, chain {rule.chain}"
