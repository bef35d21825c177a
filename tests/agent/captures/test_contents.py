"""What is in captures of a node of a cluster in network namespaces, as stock tshark reads it."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

from calico_debug.model.subject import Subject
from tests.agent.captures.here import SECONDS, Here, interface, rows
from tests.lab import namespaces

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

NEW = "calinew0000001"


def test_a_pod_with_all_its_flows(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1"))
    assert lab.send(lab.flow("blue/db1", "red/web1", "udp", 53)).verdict == "denied"
    assert lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80)).verdict == "allowed"
    lab.send(lab.flow("red/cli1", "blue/db1", "udp", 53))
    seen = here.stopped(name, 3 + 4)
    denied = [row for row in seen if row["ip.src_host"] == "db1.blue.pod"]
    assert [row["frame.interface_name"] for row in denied] == [
        "eth0 in blue/db1",
        interface(lab, "blue/db1"),
        interface(lab, "blue/db1"),
    ]
    assert "DROPPED at" in denied[-1]["frame.comment"]
    assert "NETFILTER_DROP in" in denied[-1]["frame.comment"]
    predicted = "predicted DENIED on node1; tier platform; policy GlobalNetworkPolicy platform.web; rule 0; reason rule"
    assert all(predicted in row["frame.comment"] for row in denied)
    allowed = [row for row in seen if "cli1.red.pod" in (row["ip.src_host"], row["ip.dst_host"])]
    places = [row["frame.interface_name"] for row in allowed]
    client, web = interface(lab, "red/cli1"), interface(lab, "red/web1")
    assert places[:4] == ["eth0 in red/cli1", client, web, "eth0 in red/web1"]
    assert places[4:8] == ["eth0 in red/web1", web, client, "eth0 in red/cli1"]
    assert [row["frame.comment"].startswith("answer") for row in allowed[:8]] == [False] * 4 + [True] * 4
    assert all("predicted ALLOWED" in row["frame.comment"] for row in allowed)
    assert {row["ip.src_host"] for row in allowed} == {"cli1.red.pod", "web1.red.pod"}
    assert not [row for row in seen if row["ip.dst_host"] == "db1.blue.pod"]


def test_drops_of_a_pod_alone(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1", drops=True))
    lab.send(lab.flow("red/cli1", "red/web1", "tcp", 80))
    lab.send(lab.flow("red/web1", "red/cli1", "tcp", 81))
    lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
    seen = here.stopped(name, 1)
    assert {row["frame.interface_name"] for row in seen if "NETFILTER_DROP" in row["frame.comment"]} == {
        interface(lab, "blue/db1")
    }
    assert all("DROPPED" in row["frame.comment"] for row in seen)


def test_a_policy_and_what_it_decides(here: Here, lab: Lab) -> None:
    name = here.start(Subject(policy="networkpolicy/red/platform.client-egress"))
    assert here.captures.one(name)["subject"] == "NetworkPolicy red/platform.client-egress: red/cli1 on node1"
    lab.send(lab.flow("red/cli1", "blue/db1", "udp", 53))
    lab.send(lab.flow("red/web1", "blue/db1", "tcp", 80))
    seen = here.stopped(name, 3)
    assert {row["ip.src_host"] for row in seen} == {"cli1.red.pod"}
    assert all(row["frame.comment"].endswith("; decided at the end of the captured policy's tier") for row in seen)
    assert here.captures.one(name)["decided"] == 3


def test_a_service_by_its_flow(here: Here, lab: Lab) -> None:
    """Before and behind translation, to a node whose evidence is not here; the names of pods and service are there."""
    name = here.start(Subject("red/cli1", "svc/blue/shop"))
    assert lab.send(lab.flow("red/cli1", "10.96.1.1", "tcp", 80)).verdict == "allowed"
    seen = here.stopped(name, 6)
    assert [row["ip.dst_host"] for row in seen[:3]] == ["shop.blue.svc", "shop.blue.svc", "web2.blue.pod"]
    assert seen[2]["frame.interface_name"] == "eth0"
    assert "before that egress allowed on node1; tier platform; policy NetworkPolicy red/" in seen[0]["frame.comment"]


def test_all_drops_beside_a_flow(here: Here, lab: Lab) -> None:
    """Two at once see what each is for, and the end of one is not the other's."""
    web = lab.topology.address("red/web1")
    drops = here.start(Subject(drops=True))
    flow = here.start(Subject(lab.topology.address("blue/db1"), f"{web}:53", protocol="udp"))
    lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
    assert len(here.stopped(flow, 3)) == 3
    lab.send(lab.flow("blue/db1", "red/web1", "udp", 54))
    seen = here.stopped(drops, 2)
    assert {row["ip.dst_host"] for row in seen if "NETFILTER_DROP" in row["frame.comment"]} == {"web1.red.pod"}
    assert len([row for row in seen if "NETFILTER_DROP" in row["frame.comment"]]) == 2


def test_a_policys_pod_that_comes_later(here: Here, lab: Lab) -> None:
    """The kernel tells of an interface, and the API of the pod: then its packets are captured."""
    here.objects.without = "cli1"
    name = here.start(Subject(policy="red/platform.client-egress"))
    assert here.captures.one(name)["notes"] == ["NetworkPolicy red/platform.client-egress selects nothing on node1 now"]
    lab.send(lab.flow("red/cli1", "blue/db1", "udp", 53))
    here.objects.without = ""
    assert here.captures.one(name)["events"] == 0
    node = lab.namespace("node1")
    namespaces.ip(node, [f"link add {NEW} type veth peer name other"])
    try:
        end = time.monotonic() + SECONDS
        while not here.captures.one(name)["events"]:
            assert time.monotonic() < end
            lab.send(lab.flow("red/cli1", "blue/db1", "udp", 53))
    finally:
        namespaces.ip(node, [f"link del {NEW}"])


def test_a_pod_that_comes_later(here: Here, lab: Lab) -> None:
    """Its inside is watched from then on, without anybody asking."""
    node = lab.namespace("node1")
    name = here.start(Subject("10.244.1.99", f"{lab.topology.address('red/web1')}:80"))
    (inside,) = namespaces.create(["new"]).values()
    try:
        namespaces.ip(node, [f"link add {NEW} type veth peer name eth0 netns {inside}", f"link set {NEW} up"])
        namespaces.ip(node, [f"route add 10.244.1.99/32 dev {NEW}"])
        namespaces.sysctl(node, {f"net/ipv4/conf/{NEW}/proxy_arp": "1"})
        namespaces.ip(inside, ["addr add 10.244.1.99/32 dev eth0", "link set eth0 up", "route add default dev eth0"])
        end = time.monotonic() + SECONDS
        seen: list[str] = []
        while "eth0 in pod 10.244.1.99" not in seen:
            assert time.monotonic() < end, seen
            with namespaces.entered(inside):
                _knock(lab.topology.address("red/web1"))
            seen = [row["frame.interface_name"] for row in _now(here, name)]
    finally:
        namespaces.delete([inside])


def _knock(address: str) -> None:
    with socket.socket() as client:
        client.settimeout(0.05)
        try:
            client.connect((address, 80))
        except OSError:
            return


def _now(here: Here, name: str) -> list[dict[str, str]]:
    """What a running capture has, read as it is given to clients."""
    path = here.folder / "now.pcapng"
    path.write_bytes(
        b"".join(b"".join(here.captures.content(name, f["name"])) for f in here.captures.one(name)["files"])
    )
    return rows(path)
