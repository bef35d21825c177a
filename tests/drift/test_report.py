"""Bundles that agree with their objects have no drift; each change of an object is found as what it is."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.drift.report import find_drift
from calico_debug.errors import EvidenceError
from tests.drift.altered import BUNDLES, Change, altered, named, without

if TYPE_CHECKING:
    from calico_debug.drift.model import Drift

GLOBAL = "globalnetworkpolicies.crd.projectcalico.org.json"
SLICES = "endpointslices.discovery.k8s.io.json"

pytestmark = pytest.mark.parametrize("bundle", BUNDLES)


def drift(bundle: str, **changes: Change) -> list[Drift]:
    files = {"policies": GLOBAL, "slices": SLICES}
    source = altered(bundle, {files.get(key, f"{key}.json"): change for key, change in changes.items()})
    return list(find_drift(source, source.nodes()).found)


def codes(found: list[Drift]) -> set[tuple[str, str, str]]:
    return {(one.code, one.node, one.object) for one in found}


def test_none(bundle: str) -> None:
    source = altered(bundle, {})
    report = find_drift(source, source.nodes())
    assert (report.found, report.not_compared) == ((), ())
    assert report.compared["endpoints"] >= 20
    assert report.compared["IP sets"] >= 10
    assert report.compared["services"] >= 10


def test_a_policy_that_is_deleted_is_programmed_still(bundle: str) -> None:
    found = [one for one in drift(bundle, policies=without("security.dns")) if one.code == "policy-left"]
    pods = {one.object for one in found}
    assert {"pod client/client-5f8b", "pod attack/rogue"} <= pods
    assert "security.dns is programmed for egress, and the API has no such policy" in found[0].message


def test_a_policy_that_no_longer_selects(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        named(items, "security.dns")["spec"]["selector"] = "nothing == 'this'"

    found = drift(bundle, policies=change)
    assert {one.code for one in found} == {"policy-left"}
    assert all("does not select the pod" in one.message for one in found)


def test_a_policy_that_is_not_programmed(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        added = deepcopy(named(items, "security.dns"))
        added["metadata"] = {"name": "security.new"}
        added["spec"] |= {
            "selector": "has(role) && role == 'client'",
            "types": ["Ingress"],
            "ingress": [{"action": "Allow", "source": {"selector": "role == 'nobody'"}}],
            "egress": [],
        }
        items.append(added)

    found = drift(bundle, policies=change)
    assert ("policy-missing", "node1", "pod client/client-5f8b") in codes(found)
    missing = [one for one in found if one.code == "policy-missing"]
    assert [one.message for one in missing] == [
        "GlobalNetworkPolicy security.new selects the pod for ingress and is not programmed"
    ]
    others = {one.code for one in found} - {"policy-missing"}
    # A set without members has no entry in the eBPF dataplane, so nothing can be said of it there.
    assert others == (set() if bundle.endswith("bpf") else {"set-missing"})


def test_another_order(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        named(items, "security.dns")["spec"]["order"] = 5000

    found = drift(bundle, policies=change)
    assert {one.code for one in found} == {"policy-order"}
    assert "egress asks security.dns, security.quarantine; the API's order is security.quarantine, security.dns" in {
        one.message.partition(", platform")[0] for one in found if one.object == "pod attack/rogue"
    }


def test_a_label_that_changed(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        named(items, "rogue")["metadata"]["labels"]["role"] = "guest"

    found = [one for one in drift(bundle, pods=change) if one.code.startswith("set-")]
    assert {one.code for one in found} == {"set-members-left"}
    assert {one.node for one in found} == {"node1", "node2"}
    assert all("10.244.1.20" in one.message and "attacker" in one.object for one in found)
    assert all("security.quarantine" in one.message for one in found)


def test_a_member_that_is_new(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        named(items, "client-5f8b")["metadata"]["labels"]["role"] = "attacker"

    found = [one for one in drift(bundle, pods=change) if one.code == "set-members-missing"]
    assert any("it lacks 10.244.1.30 (client/client-5f8b)" in one.message for one in found)


def test_backends(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        for item in items:
            for endpoint in item.get("endpoints") or ():
                endpoint["addresses"] = [
                    "10.244.1.99" if one == "10.244.1.10" else one for one in endpoint["addresses"]
                ]

    found = drift(bundle, slices=change)
    assert {
        ("backends-missing", "node1", "service yaobank/customer"),
        ("backends-left", "node2", "service yaobank/customer"),
    } <= codes(found)
    left = next(one for one in found if one.code == "backends-left")
    assert "balanced to 10.244.1.10:80, which no ready endpoint has" in left.message


def test_services(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        named(items, "frontend")["spec"] |= {"clusterIP": "10.96.77.7", "clusterIPs": ["10.96.77.7"]}

    found = codes(drift(bundle, services=change))
    assert ("service-missing", "node1", "service stars/frontend") in found
    assert {code for code, _, _ in found} == {"service-missing", "service-left"}


def test_pods(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        added = deepcopy(named(items, "rogue"))
        added["metadata"] |= {"name": "late", "uid": "1"}
        added["status"] |= {"podIP": "10.244.1.77", "podIPs": [{"ip": "10.244.1.77"}], "phase": "Running"}
        items[:] = [item for item in items if item["metadata"]["name"] != "rogue"]
        items.append(added)

    found = codes(drift(bundle, pods=change))
    assert ("endpoint-missing", "node1", "pod attack/late") in found
    assert ("endpoint-left", "node1", "interface calie61222946e3") in found


def test_a_pod_that_starts_is_waited_for(bundle: str) -> None:
    def change(items: list[dict[str, Any]]) -> None:
        added = deepcopy(named(items, "rogue"))
        added["metadata"] |= {"name": "early", "uid": "1"}
        added["status"] = {"phase": "Pending", "podIP": "10.244.1.78", "podIPs": [{"ip": "10.244.1.78"}]}
        items.append(added)

    source = altered(bundle, {"pods.json": change})
    report = find_drift(source, ["node1"])
    assert "endpoint-missing" not in {one.code for one in report.found}
    assert report.not_compared == ("node1: pod attack/early: it is starting",)


def test_labels_that_evidence_lacks_are_no_drift(bundle: str) -> None:
    source = altered(bundle, {"serviceaccounts.json": lambda items: items.clear()})
    report = find_drift(source, source.nodes())
    assert not report.found


def test_without_objects_nothing_is_intended(bundle: str) -> None:
    class Bare:
        def __init__(self) -> None:
            self._source = altered(bundle, {})

        def __getattr__(self, name: str) -> Any:
            return getattr(self._source, name)

        def cluster_files(self) -> list[str]:
            return []

    with pytest.raises(EvidenceError, match=r"has no pods.json and no namespaces.json"):
        find_drift(Bare(), ["node1"])  # type: ignore[arg-type]
