"""The command itself on a node of a cluster in network namespaces."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.agent.packets.conftest import lab, need_observer
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel

__all__ = ["lab"]

PROGRAM = Path(sys.executable).with_name("calico-debug")


@contextmanager
def observing(lab: Lab, *arguments: str, path: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """The command on node1, with its standard error still to be read."""
    environment = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
    if path is not None:
        environment["PATH"] = path
    with namespaces.entered(lab.namespace("node1")):
        process = subprocess.Popen(
            [PROGRAM, "observe", "--node", "node1", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**environment, "HOME": "/nonexistent"},
        )
    with process:
        yield process


def ready(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("watching"):
            return line
    raise AssertionError("it did not begin to watch")


def documents(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in out.splitlines()]


def ends(lab: Lab, source: str, target: str, port: int) -> tuple[str, ...]:
    return ("--from", lab.topology.address(source, 4), "--to", f"{lab.topology.address(target, 4)}:{port}")


def test_a_denied_flow(lab: Lab) -> None:
    with observing(lab, *ends(lab, "blue/db1", "red/web1", 53), "-p", "udp", "-o", "json") as process:
        assert ready(process) == "watching node1: udp 10.244.1.14 -> 10.244.1.10:53\n"
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        process.send_signal(signal.SIGINT)
        *events, summary = documents(process)
    assert process.returncode == 130
    assert [e["event"] for e in events] == ["sent", "received", "dropped"]
    assert events[0]["pod"] == "pod 10.244.1.14"
    assert events[2]["reason"] == "NETFILTER_DROP"
    assert summary["witness"]["verdict"] == summary["predicted"] == "denied"
    assert summary["losses"] == {"noRoom": 0, "rateLimited": 0, "passedOver": 0, "notIp": 0}
    assert summary["endedBy"] == "interrupt"


def test_a_service_on_another_node(lab: Lab) -> None:
    arguments = ("--from", lab.topology.address("red/cli1", 4), "--to", "10.96.1.1:80", "--seconds", "3")
    with observing(lab, *arguments) as process:
        assert "10.96.1.1:80 or 10.244.2.13:80" in ready(process)
        assert lab.send(lab.flow("red/cli1", "10.96.1.1", "tcp", 80)).verdict == "allowed"
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "sent by eth0  tcp 10.244.1.12" in out
    assert "mark 0x10000 (accept)" in out
    assert "observed  ALLOWED on node1: " in out
    assert "left node1 by eth0; answers seen" in out
    assert out.splitlines()[-1].endswith("0 events lost (0 for want of room, 0 over the limit of the rate)")


def test_all_drops(lab: Lab) -> None:
    with observing(lab, "--drops", "--packets", "1", "-o", "json") as process:
        assert ready(process) == "watching node1: all drops\n"
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        event, summary = documents(process)
    assert (event["event"], event["reason"]) == ("dropped", "NETFILTER_DROP")
    assert "direction" not in event
    assert (summary["endedBy"], summary["packets"]) == ("packets", 1)
    assert "witness" not in summary


def test_a_pod(lab: Lab) -> None:
    with observing(lab, "--pod", lab.topology.address("red/web1", 4), "--packets", "1", "-o", "json") as process:
        assert ready(process) == "watching node1: pod 10.244.1.10\n"
        lab.send(lab.flow("blue/db1", "red/cli1", "udp", 53))
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        *events, summary = documents(process)
    assert [event["event"] for event in events] == ["sent", "received", "dropped"]
    assert {event["destination"]["ip"] for event in events} == {"10.244.1.10"}
    assert "witness" not in summary
    assert summary["losses"] == {"noRoom": 0, "rateLimited": 0, "passedOver": 0, "notIp": 0}


def test_drops_of_a_pod(lab: Lab) -> None:
    arguments = ("--pod", lab.topology.address("red/web1", 4), "--drops", "--packets", "1", "-o", "json")
    with observing(lab, *arguments) as process:
        assert ready(process) == "watching node1: drops of pod 10.244.1.10\n"
        lab.send(lab.flow("blue/db1", "red/cli1", "udp", 53))
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        event, _ = documents(process)
    assert (event["event"], event["destination"]["ip"]) == ("dropped", "10.244.1.10")


def test_a_policy_without_objects(lab: Lab) -> None:
    with observing(lab, "--policy", "red/x") as process:
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error.count("\n")) == (1, 1)
    assert "this node has no policies, so 'red/x' selects nothing: name a cluster with --kubeconfig" in error


def test_names_that_nobody_has(lab: Lab) -> None:
    with observing(lab, "--from", "red/nobody", "--to", "10.244.1.10:80") as process:
        out, error = process.communicate(timeout=60)
    assert (process.returncode in (1, 2), out, error.count("\n")) == (True, "", 1)


def test_without_rights() -> None:
    need_observer()
    if namespaces.supported():
        pytest.skip(namespaces.supported())
    command = [PROGRAM, "observe", "--drops", "--seconds", "1"]
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "root" in line


def test_a_capture(lab: Lab, tmp_path: Path) -> None:
    """Every place of the way is an interface of the file, and what dropped the packet is its comment."""
    path = tmp_path / "flow.pcapng"
    asked = ends(lab, "blue/db1", "red/web1", 53)
    with namespaces.entered(lab.namespace("node1")):
        command = [PROGRAM, "capture", "--node", "node1", *asked, "-p", "udp", "--packets", "1", "-w", path]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith("capturing"))
        lab.send(lab.flow("blue/db1", "red/web1", "udp", 53))
        out, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "observed  DENIED on node1" in out
    assert "ended by the limit of packets" in out
    reader = pytest.importorskip("scapy.utils").RawPcapNgReader(str(path))
    packets = list(reader)
    host = next(pod.interface for pod in lab.topology.pods if pod.place == "blue/db1")
    assert [meta.ifname.decode() for _, meta in packets] == ["eth0 in pod 10.244.1.14", host, host]
    assert {data[12:20] for data, _ in packets} == {bytes([10, 244, 1, 14, 10, 244, 1, 10])}
    assert b"DROPPED at" in path.read_bytes()
