from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.intent.endpoints import Owners, endpoints, network_sets
from calico_debug.intent.model import NamedPort
from calico_debug.model.cluster import HostEndpoint
from tests.intent.clusters import PODS, cluster, host, network_set, pod


def test_labels_of_pods() -> None:
    web, _, cli = endpoints(cluster())
    assert web.labels == {
        "app": "web",
        "projectcalico.org/namespace": "shop",
        "projectcalico.org/orchestrator": "k8s",
        "projectcalico.org/serviceaccount": "web",
        "pcns.team": "a",
        "pcns.projectcalico.org/name": "shop",
        "pcsa.level": "high",
        "pcsa.projectcalico.org/name": "web",
    }
    assert (web.profiles, web.ports, web.unknown) == (("kns.shop", "ksa.shop.web"), (NamedPort("http", 6, 8080),), ())
    assert cli.labels["pcns.team"] == "b"


def test_own_labels_go_before_inherited_ones_and_calicos_before_own() -> None:
    labels = {"pcns.team": "mine", "projectcalico.org/namespace": "forged"}
    (made,) = endpoints(cluster(pods=(pod("shop/x", 9, **labels),)))
    assert (made.labels["pcns.team"], made.labels["projectcalico.org/namespace"]) == ("mine", "shop")


def test_long_names_of_accounts_are_no_labels() -> None:
    for length, labelled in ((62, True), (63, False)):
        (made,) = endpoints(cluster(pods=(pod("shop/x", 9, account="a" * length),)))
        assert ("projectcalico.org/serviceaccount" in made.labels) is labelled
        assert made.profiles[1] == f"ksa.shop.{'a' * length}"


def test_what_evidence_does_not_have() -> None:
    web = endpoints(cluster(namespaces={}, service_accounts={}))[0]
    assert web.unknown == ("pcsa.", "pcns.") or web.unknown == ("pcns.", "pcsa.")
    assert web.labels["pcns.kubernetes.io/metadata.name"] == "shop"
    assert web.labels["pcsa.projectcalico.org/name"] == "web"
    gone = endpoints(cluster(service_accounts={("shop", "other"): {}}))[0]
    assert gone.unknown == ()
    assert "pcsa.projectcalico.org/name" not in gone.labels


def test_pods_that_policy_does_not_apply_to() -> None:
    web = PODS[0]
    others = (
        replace(web, host_network=True),
        replace(web, node=""),
        replace(web, addresses=()),
        replace(web, phase="Succeeded"),
        replace(web, phase="Failed"),
    )
    assert endpoints(cluster(pods=others)) == ()


def test_host_endpoints_and_network_sets() -> None:
    odd = HostEndpoint("odd", "n1", "*", ("nonsense", "fd00::9"), ports=((99, "p", 1), ("nonsense", "q", 2)))
    given = cluster(
        pods=(),
        host_endpoints=(host("h", role="edge"), odd),
        network_sets=(network_set("g", ["198.51.100.0/24"], threat="yes"), network_set("n", [], "shop", a="b")),
    )
    first, second = endpoints(given)
    assert (first.kind, first.labels, first.interface, str(first)) == (
        "host",
        {"role": "edge"},
        "eth0",
        "host endpoint h",
    )
    assert (second.addresses, second.ports) == ((ip_address("fd00::9"),), (NamedPort("p", 99, 1),))
    everywhere, own = network_sets(given)
    assert everywhere.labels == {"threat": "yes"}
    assert own.labels == {
        "a": "b",
        "pcns.team": "a",
        "pcns.projectcalico.org/name": "shop",
        "projectcalico.org/namespace": "shop",
    }


def test_owners_of_addresses() -> None:
    nets = ["10.0.0.0/8", "10.0.0.0/24", "fd00::/8"]
    given = cluster(
        network_sets=(network_set("a", nets), network_set("b", ["10.0.0.1"])), host_endpoints=(host("h", "n1"),)
    )
    owners = Owners(endpoints(given), network_sets(given))
    found = [
        [one.name for one in owners.of(ip_address(text))] for text in ("10.0.0.1", "10.9.9.9", "fd00::2", "11.0.0.1")
    ]
    assert [sorted(one) for one in found] == [["a", "b", "web"], ["a"], ["a", "db"], []]
    web = owners.pod(ip_address("10.0.0.1"))
    assert web is not None
    assert web.name == "web"
    assert owners.pod(ip_address("172.30.0.1")) is None
    assert [one.name for one in owners.endpoints(ip_address("172.30.0.1"))] == ["h"]
