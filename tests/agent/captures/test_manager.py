"""Captures on a node of a cluster in network namespaces: what is in their files, limits, and what is left."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.captures.manager import MOST_RUNNING, Captures
from calico_debug.agent.captures.running import CaptureLimits
from calico_debug.agent.evidence import LiveSource
from calico_debug.errors import EvidenceError, MissingEvidence, UsageError
from calico_debug.model.subject import Subject
from tests.agent.packets.conftest import lab
from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.demo import MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.agent.captures.folder import Document
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

__all__ = ["lab"]

SECONDS = 20.0
NEW = "calinew0000001"


class Objects:
    """The cluster's lists as the lab has them; implements `ClusterReader`."""

    origin = "the lab"
    namespace = ""

    def __init__(self, lab: Lab) -> None:
        self._files = cluster_files(lab.topology, MODEL)
        self.without = ""
        """A pod that the API does not know yet."""

    def files(self) -> Sequence[str]:
        return tuple(self._files)

    def read(self, file: str) -> bytes:
        content = self._files[file]
        if file == "pods.json":
            items = [one for one in content["items"] if one["metadata"]["name"] != self.without]
            content = {**content, "items": items}
        return json.dumps(content).encode()


class Here:
    """Captures of node1, with the calls that begin in its namespace."""

    def __init__(self, lab: Lab, folder: Path, most: int = 1 << 30) -> None:
        self.lab, self.folder = lab, folder
        self.objects = Objects(lab)
        self.captures = Captures(folder, lambda: LiveSource("node1", self.objects), most=most)

    def start(self, subject: Subject, **limits: Any) -> str:
        with namespaces.entered(self.lab.namespace("node1")):
            return str(self.captures.start(subject, CaptureLimits(**limits))["id"])

    def until(self, name: str, events: int) -> Document:
        """The capture when it has so many events."""
        end = time.monotonic() + SECONDS
        while (document := self.captures.one(name))["events"] < events:
            assert time.monotonic() < end, document
            time.sleep(0.02)
        return document

    def stopped(self, name: str, events: int) -> list[dict[str, str]]:
        """What tshark reads of the capture, stopped when it has so many events."""
        self.until(name, events)
        document = self.captures.stop(name)
        assert (document["state"], document["endedBy"]) == ("ended", "stop")
        return [row for file in document["files"] for row in rows(self.folder / name / file["name"])]


FIELDS = ("frame.interface_name", "frame.comment", "ip.src_host", "ip.dst_host", "frame.len")


def rows(path: Path) -> list[dict[str, str]]:
    """Each packet as stock tshark shows it."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    done = subprocess.run(
        ["tshark", "-r", path, "-N", "n", "-T", "json", *(word for field in FIELDS for word in ("-e", field))],
        capture_output=True,
        check=True,
    )
    assert not [line for line in done.stderr.decode().splitlines() if "Running as" not in line]
    return [{key: value[0] for key, value in one["_source"]["layers"].items()} for one in json.loads(done.stdout)]


def interface(lab: Lab, place: str) -> str:
    return next(pod.interface for pod in lab.topology.pods if pod.place == place)


@pytest.fixture
def here(lab: Lab, tmp_path: Path) -> Iterator[Here]:
    found = Here(lab, tmp_path / "captures")
    yield found
    found.captures.close()


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
    import socket

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


def test_the_ring_keeps_the_newest(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1"), bytes=131_072, files=2)
    flow = lab.flow("blue/db1", "red/web1", "udp", 53)
    events = 0
    while here.captures.one(name)["filesRemoved"] < 1:
        lab.send_all([flow] * 50, silence=0.1)
        events += 50 * 3
        here.until(name, events)
    document = here.captures.stop(name)
    files = [file["name"] for file in document["files"]]
    assert files == ["00002.pcapng", "00003.pcapng"]
    assert sorted(path.name for path in (here.folder / name).iterdir()) == [*files, "capture.json"]
    assert sum(file["bytes"] for file in document["files"]) < 131_072 + 2 * 1500
    assert sum(len(rows(here.folder / name / file)) for file in files) == sum(f["packets"] for f in document["files"])


def test_the_limit_of_packets(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1"), packets=2)
    lab.send_all([lab.flow("blue/db1", "red/web1", "udp", 53)] * 4)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["state"] == "running":
        assert time.monotonic() < end
    assert (document["endedBy"], document["events"]) == ("packets", 6)


def test_the_limit_of_time(here: Here) -> None:
    name = here.start(Subject(drops=True), seconds=1)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["state"] == "running":
        assert time.monotonic() < end
        time.sleep(0.05)
    assert document["endedBy"] == "seconds"


def test_what_is_over_the_rate_is_counted(here: Here, lab: Lab) -> None:
    name = here.start(Subject(pod="red/web1", drops=True), rate=10)
    lab.send_all([lab.flow("blue/db1", "red/web1", "udp", 53)] * 30)
    end = time.monotonic() + SECONDS
    while (document := here.captures.one(name))["events"] + document["losses"]["rateLimited"] < 30:
        assert time.monotonic() < end, document
        time.sleep(0.02)
    assert document["losses"]["rateLimited"] > 0
    document = here.captures.stop(name)
    content = (here.folder / name / document["files"][0]["name"]).read_bytes()
    assert f"{document['losses']['rateLimited']} over the limit of the rate".encode() in content


def test_files_are_their_owners_alone(here: Here) -> None:
    name = here.start(Subject(drops=True))
    for path in (here.folder, here.folder / name):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (here.folder / name).iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_more_than_a_few_at_once(here: Here) -> None:
    names = [here.start(Subject(drops=True)) for _ in range(MOST_RUNNING)]
    with pytest.raises(UsageError, match="run already"):
        here.start(Subject(drops=True))
    here.captures.stop(names[0])
    here.start(Subject(drops=True))


def test_no_more_bytes_than_may_be_kept(lab: Lab, tmp_path: Path) -> None:
    few = Here(lab, tmp_path / "captures", most=100 << 20)
    try:
        name = few.start(Subject(drops=True))
        with pytest.raises(UsageError, match="captures may keep 100 MiB"):
            few.start(Subject(drops=True))
        few.captures.delete(name)
        few.start(Subject(drops=True))
    finally:
        few.captures.close()


@pytest.mark.parametrize(
    "subject",
    [
        Subject(),
        Subject(pod="red/nobody"),
        Subject(policy="nothing"),
        Subject(pod="svc/blue/shop"),
        Subject(source="1.2.3.4"),
    ],
)
def test_what_cannot_be_captured_leaves_nothing(here: Here, subject: Subject) -> None:
    with pytest.raises(UsageError):
        here.start(subject)
    assert here.captures.listed() == []


def test_deleted(here: Here) -> None:
    name = here.start(Subject(drops=True))
    here.captures.delete(name)
    assert list(here.folder.iterdir()) == []
    for ask in (here.captures.one, here.captures.stop, here.captures.delete):
        with pytest.raises(MissingEvidence, match="there is no capture"):
            ask(name)


def test_one_agent_a_directory(here: Here, lab: Lab) -> None:
    here.start(Subject(drops=True))
    other = Here(lab, here.folder)
    with pytest.raises(EvidenceError, match="another agent keeps its captures"):
        other.start(Subject(drops=True))
