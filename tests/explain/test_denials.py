"""Causes of denials that no policy made."""

from __future__ import annotations

import pytest

from calico_debug.explain.denials import Cause, cause_of
from calico_debug.model.nft import Chain, Hook, Reject, Rule
from calico_debug.state.ruleset import RecordedRuleset
from calico_debug.walk.context import Denial
from calico_debug.walk.packet import Ends
from tests.explain.rules import ruleset


def denial(chain: str, text: str | None, *stack: str, table: str = "ip calico") -> Denial:
    family, name = table.split()
    base = Chain(family, name, "base", 1, Hook("filter", "forward", 0))
    rule: Rule | None = None
    if text is not None:
        listed = RecordedRuleset.read(ruleset({table: {chain: [text]}}).encode(), "test").rules(family, name, chain)
        assert listed is not None
        rule = listed[0]
    reject = next((s for s in rule.statements if isinstance(s, Reject)), None) if rule else None
    return Denial(rule, base, "forward", ("base", *stack), reject, 1, 1, Ends(1, 2, 3, 4), False)


@pytest.mark.parametrize(
    ("chain", "text", "reason"),
    [
        ("filter-cali-from-wl-dispatch", "drop # cali:x; Unknown interface", "unknown-interface"),
        ("filter-cali-wl-to-host", "drop # cali:x; Configured DefaultEndpointToHostAction", "host-default"),
        ("filter-cali-INPUT", "drop # cali:x; Drop IPv4 VXLAN packets from non-allowed hosts", "encapsulation"),
        ("filter-cali-INPUT", "drop # cali:x; Drop IPIP packets from non-Calico hosts", "encapsulation"),
        ("filter-cali-fw-cali1", "drop # cali:x; Endpoint admin disabled", "endpoint-disabled"),
        ("filter-cali-fw-cali1", "drop # cali:x; Drop packets over egress packet rate limit", "rate-limit"),
        ("filter-cali-fw-cali1", "drop # cali:x; Drop connections over egress connection limit", "rate-limit"),
        ("raw-cali-PREROUTING", "spoofed drop", "rpf"),
        ("filter-cali-cidr-block", "daddr=10.96.0.0/16 drop", "service-loop"),
    ],
)
def test_calicos_own_rules(chain: str, text: str, reason: str) -> None:
    cause = cause_of(denial(chain, text))
    assert cause.reason == reason
    assert cause.detail


def test_a_rule_of_calico_that_is_not_known_is_quoted() -> None:
    assert cause_of(denial("filter-cali-x", "drop # cali:x; Because")) == Cause("rule", "Because")
    assert cause_of(denial("filter-cali-x", "drop")) == Cause("rule", "a rule of chain filter-cali-x")


@pytest.mark.parametrize(
    ("chain", "stack", "reason"),
    [
        ("reject-chain", ("service-endpoints-check",), "no-endpoints"),
        ("reject-chain", ("nodeport-endpoints-check",), "no-endpoints"),
        ("cluster-ips-check", (), "service-port"),
        ("firewall-ABCD-shop/web/tcp/http", ("firewall-check",), "source-ranges"),
        ("something-new", (), "not-calico"),
    ],
)
def test_kube_proxy(chain: str, stack: tuple[str, ...], reason: str) -> None:
    assert cause_of(denial(chain, "drop", *stack, table="ip kube-proxy")).reason == reason


def test_everybody_else() -> None:
    cause = cause_of(denial("input", "drop", table="inet firewall"))
    assert cause == Cause("not-calico", "a rule of table inet firewall, chain input, which is not Calico's")
    cause = cause_of(denial("base", None, table="inet firewall"))
    assert cause.reason == "not-calico"
    assert cause.detail == "the policy of chain base of table inet firewall is to drop and none of its rules accepted"
