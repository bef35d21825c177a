"""Deciding once for equals is deciding for each of them."""

from __future__ import annotations

from typing import Any

import pytest

from calico_debug.intent.decide import Intent
from calico_debug.intent.model import PolicyFlow
from calico_debug.matrix.by_intent import intent_table
from calico_debug.matrix.model import SOURCE_PORT, Asked, Reason
from calico_debug.matrix.reasons import of_intent
from calico_debug.model.cluster import HostEndpoint
from tests.intent.clusters import PODS, intent, pod, policy

TWINS = tuple(pod(f"shop/twin-{n}", 10 + n, "n1" if n % 2 else "n2", app="twin") for n in range(6))
WEB, PORT_80 = {"selector": "app == 'web'"}, {"ports": [80]}
WEB_ONLY = policy(
    "GlobalNetworkPolicy",
    "web-only",
    selector="app in {'db', 'twin'}",
    types=["Ingress"],
    ingress=[
        {"action": "Allow", "protocol": "TCP", "source": {"selector": "app == 'web'"}, "destination": {"ports": [80]}}
    ],
)
FROM_HIGH = policy(
    "GlobalNetworkPolicy",
    "from-high",
    selector="app == 'cli'",
    types=["Ingress"],
    ingress=[{"action": "Allow", "protocol": "TCP", "source": {"ports": ["1024:65535"]}}],
)
HOST = HostEndpoint("n2-all", "n2", "*", labels={"host": "n2"})
FORWARDED = policy(
    "GlobalNetworkPolicy",
    "forwarded",
    selector="host == 'n2'",
    applyOnForward=True,
    types=["Ingress"],
    ingress=[{"action": "Deny", "protocol": "TCP", "destination": {"ports": [8080]}}, {"action": "Allow"}],
)
ASKED = (Asked(6, 80), Asked(6, 8080), Asked(17, 53), Asked(1))
ECHO = {1: (8, 0)}


def reasons(made: Intent) -> dict[tuple[str, str, Asked], Reason | None]:
    pods = [one for one in made.applicability.endpoints if one.kind == "pod"]
    table = intent_table(made, pods, pods, ASKED, 4)
    return {
        (a, b, asked): None if index is None else table.reasons[index]
        for row, sources in enumerate(table.sources)
        for number, asked in enumerate(ASKED)
        for column, index in enumerate(table.rows[row][number])
        for a in sources
        for b in table.destinations[column]
    }


@pytest.mark.parametrize("hosts", [(), (HOST,)], ids=["pods alone", "a host on the way"])
def test_every_pair(hosts: tuple[HostEndpoint, ...]) -> None:
    made = intent(WEB_ONLY, FROM_HIGH, FORWARDED, pods=(*PODS, *TWINS), host_endpoints=hosts)
    assert made.polices_forwarding() is bool(hosts)
    found = reasons(made)
    pods = {str(one): one for one in made.applicability.endpoints if one.kind == "pod"}
    assert len(found) == len(pods) ** 2 * len(ASKED)
    for (a, b, asked), reason in found.items():
        if a == b:
            continue
        ends = pods[a].addresses[0], pods[b].addresses[0]
        flow = PolicyFlow(*ends, asked.protocol, asked.source_port, asked.port, ECHO.get(asked.protocol))
        assert reason is not None
        assert reason.key == of_intent(made.decide(flow).stages, made.matching, flow).key, (a, b, asked)
    assert {reason.verdict for reason in found.values() if reason} == {"allowed", "denied"}
    denied_by_host = {pair for pair, reason in found.items() if reason and _by(reason) == "forwarded"}
    assert bool(denied_by_host) is bool(hosts)


def _by(reason: Reason) -> str:
    return next((one.policy.name for one in reason.decisions if one.policy is not None), "")


def test_a_pod_with_itself_is_no_cell_unless_it_stands_for_equals() -> None:
    """Without a policy shop/web and shop/db are equal: what holds between them is their cell."""
    found = reasons(intent(pods=PODS[:2]))
    assert None not in found.values()
    found = reasons(intent(WEB_ONLY, pods=PODS[:2]))
    assert {(a, b) for (a, b, _), reason in found.items() if reason is None} == {
        ("shop/web", "shop/web"),
        ("shop/db", "shop/db"),
    }


def test_flows_come_from_a_port() -> None:
    """So rules that ask for the ports that clients get are no doubt."""
    assert Asked(6, 80).source_port == SOURCE_PORT
    assert Asked(1).source_port is None
    made: Any = reasons(intent(FROM_HIGH))
    assert made["shop/web", "bank/cli", ASKED[0]].verdict == "allowed"
