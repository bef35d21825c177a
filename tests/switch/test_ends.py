"""Ends are found again after pods were restarted."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from calico_debug.state.cluster import load_cluster
from calico_debug.switch.ends import Ends, identity, pod_end, same_pods
from calico_debug.switch.model import RecordedEnd
from tests.switch.sources import Json, engine, items, source

CLIENT = ip_address("10.244.1.30")


def ends(pods: list[Json] | None = None) -> Ends:
    made = source("nft", {} if pods is None else {"pods.json": pods})
    return Ends(load_cluster(made), {})


def restarted(name: str, address: str, node: str = "node1") -> list[Json]:
    """The recorded pods, with the client's pod under another name."""
    pods = items("nft", "pods.json")
    client = next(pod for pod in pods if pod["metadata"]["name"] == "client-5f8b")
    client["metadata"]["name"], client["spec"]["nodeName"] = name, node
    client["metadata"].setdefault("labels", {})["pod-template-hash"] = "other"
    client["status"] = {"phase": "Running", "podIP": address}
    return pods


def test_names_of_addresses() -> None:
    known = Ends(engine("nft").cluster, engine("nft").states)
    assert known.name(CLIENT).name == "client-5f8b"
    assert known.name(ip_address("10.96.20.2"), 6379, 6) == RecordedEnd(
        "service", "10.96.20.2", 6379, "stars", "backend"
    )
    assert known.name(ip_address("172.30.0.12"), 30002, 6) == RecordedEnd("node", "172.30.0.12", 30002, name="node2")
    assert known.name(ip_address("198.51.100.9")) == RecordedEnd("outside", "198.51.100.9")


def test_a_pod_is_found_by_its_name_and_by_its_labels() -> None:
    before = ends().name(CLIENT, 80)
    assert ends().find(before) == before
    after = ends(restarted("client-9999", "10.244.1.99")).find(before)
    assert after == replace(before, name="client-9999", ip="10.244.1.99")
    elsewhere = ends(restarted("client-9999", "10.244.2.99", "node2")).find(before)
    assert elsewhere is not None
    assert (elsewhere.ip, elsewhere.node) == ("10.244.2.99", "node2")


def test_a_pod_that_is_gone() -> None:
    before = ends().name(CLIENT)
    others = [pod for pod in items("nft", "pods.json") if pod["metadata"]["namespace"] != "client"]
    assert ends(others).find(before) is None
    ended = restarted("client-5f8b", "10.244.1.30")
    next(pod for pod in ended if pod["metadata"]["name"] == "client-5f8b")["status"]["phase"] = "Succeeded"
    assert ends(ended).find(before) is None


def test_a_service_keeps_its_address_or_has_another() -> None:
    before = ends().name(ip_address("10.96.20.2"), 6379, 6)
    assert ends().find(before) == before
    assert ends().find(replace(before, ip="10.96.77.77")) == before
    assert ends().find(replace(before, name="nobody")) is None


def test_what_a_controller_writes_does_not_tell_pods_apart() -> None:
    pods = {pod.name: pod for pod in load_cluster(source("nft")).pods}
    pod = pods["client-5f8b"]
    other = replace(pod, name="client-2", labels={**pod.labels, "pod-template-hash": "x"})
    assert identity(pod_end(pod, CLIENT)) == identity(pod_end(other, ip_address("10.244.1.77")))
    assert identity(pod_end(pod, CLIENT)) != identity(pod_end(replace(pod, node="node2"), CLIENT))
    assert same_pods(pod_end(pod, CLIENT), pod_end(other, CLIENT, 80))
    assert not same_pods(pod_end(pod, CLIENT), pod_end(replace(pod, labels={}), CLIENT))
