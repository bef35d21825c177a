"""Pods that changed objects have to do with."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.diff import touched as touched_module
from calico_debug.diff.model import Change, ObjectKey
from calico_debug.diff.touched import touched
from calico_debug.model.cluster import Backend, Service
from tests.intent.clusters import PODS, intent, pod, policy

RULE = {"action": "Allow", "source": {"selector": "app == 'cli'"}, "destination": {"ports": [80]}}
LOCK = policy("NetworkPolicy", "lock", "shop", tier="early", selector="app == 'db'", types=["Ingress"], ingress=[RULE])
BACKEND = Backend(ip_address("10.0.0.3"), 80, "TCP", "", True)
MADE = intent(LOCK, services=(Service("bank", "front", "ClusterIP", (), (), backends=(BACKEND,)),))


@pytest.mark.parametrize(
    ("key", "pods"),
    [
        (("NetworkPolicy", "shop", "lock"), ["shop/db"]),
        (("Tier", "", "early"), ["shop/db"]),
        (("Pod", "shop", "web"), ["shop/web"]),
        (("Namespace", "", "shop"), ["shop/web", "shop/db"]),
        (("ServiceAccount", "shop", "web"), ["shop/web"]),
        (("Node", "", "n2"), ["shop/db"]),
        (("Service", "bank", "front"), ["bank/cli"]),
        (("NetworkSet", "shop", "x"), []),
        (("NetworkPolicy", "shop", "none"), []),
    ],
)
def test_each_kind(key: tuple[str, str, str], pods: list[str]) -> None:
    assert list(touched([MADE], [Change(ObjectKey(*key), "changed")])) == pods


def test_peers_of_rules() -> None:
    """In a namespaced policy a selector means pods of its namespace, with a namespace's selector those of others."""
    rule = {"action": "Allow", "source": {"selector": "app == 'cli'", "namespaceSelector": "all()"}}
    far = policy("NetworkPolicy", "far", "shop", selector="app == 'db'", types=["Ingress"], ingress=[rule])
    assert touched([intent(far)], [Change(ObjectKey("NetworkPolicy", "shop", "far"), "added")]) == (
        "shop/db",
        "bank/cli",
    )


def test_of_equals_some_and_of_all_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    twins = tuple(pod(f"shop/twin-{n}", 10 + n, app="db") for n in range(50))
    made = intent(LOCK, pods=(*PODS, *twins))
    changes = [Change(ObjectKey(kind, "shop", "lock"), "changed") for kind in ("NetworkPolicy",)]
    assert touched([made], changes) == ("shop/db",)
    monkeypatch.setattr(touched_module, "MOST_TOUCHED", 3)
    every = [Change(ObjectKey("Pod", "shop", one.name), "changed") for one in twins]
    assert len(touched([made], every)) == 3
