"""The agent as a process, the command line, and the stream of drops."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from calico_debug.agent.capture_routes import STREAMS
from calico_debug.cli.agent_client import AgentClient
from calico_debug.cli.exit_codes import ExitCode
from tests.agent.captures.here import interface, rows
from tests.agent.captures.live import PROGRAM, SECONDS, Running, agent
from tests.lab import namespaces

if TYPE_CHECKING:
    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

BURST = 300
"""Packets."""


@pytest.fixture(scope="module")
def running(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with agent(lab, tmp_path_factory.mktemp("agent")) as found:
        yield found


def until(running: Running, name: str, events: int) -> Any:
    end = time.monotonic() + SECONDS
    while (document := AgentClient(running.socket).json(f"/v1/captures/{name}"))["events"] < events:
        assert time.monotonic() < end, document
        time.sleep(0.02)
    return document


def test_start_list_get_stop_delete(running: Running, lab: Lab, tmp_path: Path) -> None:
    asked = running.ends("blue/db1", "red/web1", 53, "udp")
    assert not running.captures.exists()
    name = running.document("start", *asked)["id"]
    lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
    until(running, name, 3)
    listed = running.text("list").splitlines()
    assert listed[0].split() == ["ID", "STATE", "STARTED", "PACKETS", "FILES", "BYTES", "LOST", "SUBJECT"]
    assert listed[1].split()[:2] == [name, "running"]
    assert listed[1].split()[3] == "1"
    assert listed[1].endswith("udp 10.244.1.14 -> 10.244.1.10:53")
    path = tmp_path / "flow.pcapng"
    got = running.text("get", name, "--write", str(path))
    assert got.startswith(f"{path}: {path.stat().st_size} bytes, 1 of the capture's files\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    host = interface(lab, "blue/db1")
    assert [row["frame.interface_name"] for row in rows(path)] == ["eth0 in pod 10.244.1.14", host, host]
    done = subprocess.run(
        [PROGRAM, "capture", "get", name, "--agent", running.socket, "-w", "-"], capture_output=True, check=True
    )
    assert done.stdout == path.read_bytes()
    assert "is there already" in running.text("get", name, "--write", str(path), code=ExitCode.USAGE)
    stopped = running.text("stop", name).splitlines()
    assert stopped[0] == f"{name}  ended  udp 10.244.1.14 -> 10.244.1.10:53  (ended by stop)"
    assert stopped[1] == "captured  3 events of 1 packets"
    assert stopped[-1] == "lost      0 events (0 for want of room, 0 over the limit of the rate)"
    running.text("delete", name)
    assert running.text("list") == "no captures\n"
    assert "there is no capture" in running.text("stop", name, code=ExitCode.FAILED)


def test_documents_are_as_described(running: Running) -> None:
    source = AgentClient(running.socket)
    description = source.json("/v1/openapi.json")

    def check(path: str, method: str, answer: Any) -> Any:
        schema = description["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(answer, {**schema, "components": description["components"]})
        return answer

    asked = {"drops": True, "seconds": 60, "bytes": 131_072, "files": 1}
    name = check("/v1/captures", "post", source.json("/v1/captures", asked))["id"]
    check("/v1/captures", "get", source.json("/v1/captures"))
    one = f"/v1/captures/{name}"
    check("/v1/captures/{capture}", "get", source.json(one))
    check("/v1/captures/{capture}", "delete", source.json(one, method="DELETE"))
    check("/v1/captures/{capture}/files", "delete", source.json(f"{one}/files", method="DELETE"))


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/captures", {}, 400),
        ("/v1/captures", {"drops": "yes"}, 400),
        ("/v1/captures", {"pod": "a/b", "policy": "c"}, 400),
        ("/v1/captures", {"drops": True, "from": "1.2.3.4"}, 400),
        ("/v1/captures", {"drops": True, "seconds": 0}, 400),
        ("/v1/captures", {"drops": True, "bytes": 65_536, "files": 2}, 400),
        ("/v1/captures", {"drops": True, "folder": "/etc"}, 400),
        ("/v1/captures/20261121-174704-8db1", None, 404),
        ("/v1/captures/..", None, 404),
        ("/v1/captures/..%2f..", None, 404),
        ("/v1/captures/20261121-174704-8db1/files/../../../../etc/passwd", None, 404),
        ("/v1/drops?seconds=0", None, 400),
        ("/v1/drops?seconds=1&seconds=x", None, 400),
        ("/v1/drops?what=1", None, 400),
        ("/v1/drops?pod=a/b&policy=c", None, 400),
        ("/v1/drops?pod=%ff", None, 400),
    ],
)
def test_what_is_refused(running: Running, path: str, body: Any, status: int) -> None:
    connection = connected(running)
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["kind"]) == (status, "Error")
    connection.close()


def connected(running: Running) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("agent", timeout=SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(SECONDS)
    connection.sock.connect(running.socket)
    return connection


def test_drops_as_they_come(running: Running, lab: Lab) -> None:
    connection = connected(running)
    connection.request("GET", f"/v1/drops?seconds=60&events=1&pod={lab.topology.address('red/web1')}")
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Type")) == (200, "application/jsonl")
    first = json.loads(response.readline())
    assert (first["kind"], first["subject"]) == ("PacketWatch", "drops of pod 10.244.1.10")
    lab.send(lab.flow("blue/db1", "blue/web2", "udp", 1))
    lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
    event, summary = (json.loads(line) for line in response.read().splitlines())
    assert (event["kind"], event["event"], event["reason"]) == ("PacketEvent", "dropped", "NETFILTER_DROP")
    assert event["interface"] == interface(lab, "blue/db1")
    assert event["destination"] == {"ip": lab.topology.address("red/web1"), "port": 53}
    assert (event["predicted"]["verdict"], event["predicted"]["tier"]) == ("denied", "platform")
    assert event["predicted"]["policy"]["name"] == "platform.web"
    assert (summary["kind"], summary["endedBy"], summary["events"]) == ("PacketObservation", "packets", 1)
    assert summary["losses"] == {"noRoom": 0, "rateLimited": 0, "passedOver": 0, "notIp": 0}
    connection.close()


def test_a_stream_ends_when_its_client_goes(running: Running) -> None:
    """Else no other could be had."""
    end = time.monotonic() + SECONDS
    for _ in range(STREAMS + 2):
        while True:
            connection = connected(running)
            connection.request("GET", "/v1/drops?seconds=60")
            status = connection.getresponse().status
            connection.close()
            if status == 200:
                break
            assert (status, time.monotonic() < end) == (500, True)
            time.sleep(0.05)


def test_an_agent_that_is_told_to_end_closes_its_files(lab: Lab, tmp_path: Path) -> None:
    with agent(lab, tmp_path) as running:
        name = running.document("start", "--drops")["id"]
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        until(running, name, 1)
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(SECONDS)
    assert sorted(path.name for path in (running.captures / name).iterdir()) == ["00001.pcapng", "capture.json"]
    document = json.loads((running.captures / name / "capture.json").read_text())
    assert (document["state"], document["endedBy"]) == ("ended", "stop")


def test_without_an_agent(running: Running) -> None:
    nobody = Running(running.lab, Path("/nonexistent"), running.process)
    assert "start it with `calico-debug agent`" in nobody.text("list", code=ExitCode.FAILED)


def test_what_observers_were_to_tell_and_lost_is_counted(running: Running, lab: Lab) -> None:
    def counters() -> dict[tuple[str, ...], int]:
        listed = AgentClient(running.socket).json("/v1/counters")["counters"]
        found = {(one["name"], *one["labels"].values()): int(one["value"]) for one in listed}
        return {key: value for key, value in found.items() if "_observer_" in key[0]}

    events, lost = "calico_debug_observer_events_total", "calico_debug_observer_lost_events_total"

    def moved(before: dict[tuple[str, ...], int], *key: str) -> int:
        return counters()[key] - before[key]

    before, name = counters(), running.document("start", "--drops", "--rate", "10")["id"]
    with namespaces.entered(lab.namespace("blue/db1")):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        for _ in range(BURST):
            client.sendto(b"x", (lab.topology.address("red/web1"), 53))
    end = time.monotonic() + SECONDS
    while moved(before, events, "capture") < BURST:  # a page is kept for a while
        assert time.monotonic() < end
        time.sleep(0.1)
    during = counters()
    running.text("stop", name)
    losses = AgentClient(running.socket).json(f"/v1/captures/{name}")["losses"]
    assert losses["rateLimited"] > 0
    while moved(before, lost, "capture", "rate-limit") != losses["rateLimited"]:
        assert time.monotonic() < end
        time.sleep(0.1)
    after = counters()
    assert all(before[key] <= during[key] <= after[key] for key in before)
    assert moved(before, lost, "capture", "no-room") == losses["noRoom"]
    assert {key: after[key] for key in after if "capture" not in key} == {
        key: before[key] for key in before if "capture" not in key
    }
