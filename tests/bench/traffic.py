"""Traffic between two pods of one node in network namespaces, by processes of their own: throughput, loss, round trips,
drops.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from tests.lab import namespaces
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SECONDS = 2
"""How long each kind of traffic is made."""
WAIT = 10.0
PORT, ECHO, DENIED = 5201, 5202, 5203
"""Of iperf3, of the echo, and one to which the node lets nothing pass."""
CLIENT, SERVER = "red/web1", "blue/db1"
RULES = f"""table inet bench {{
  chain forward {{ type filter hook forward priority 0; udp dport {DENIED} counter drop; }}
}}
"""
BURST = 500
"""Packets that are sent to be dropped before the clock is looked at."""


class Path:
    """Two pods of one node. A context manager."""

    def __enter__(self) -> Self:
        """Bring them up."""
        self._stack = ExitStack()
        self.lab = self._stack.enter_context(Lab())
        self.node = self.lab.namespace("node1")
        self.client, self.server = (self.lab.topology.address(place) for place in (CLIENT, SERVER))
        namespaces.nft(self.node, RULES)
        return self

    def __exit__(self, *_: object) -> None:
        """Take them down."""
        self._stack.close()

    def interface(self) -> str:
        """The node's side of the server's link."""
        return next(pod.interface for pod in self.lab.topology.pods if pod.place == SERVER)

    def throughput(self) -> tuple[float, float]:
        """Bits of TCP a second, and the seconds of its round trips meanwhile, as the kernel's mean of them says."""
        # Where a process runs tells more of a round trip than all else, so each has a CPU of its own.
        cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))[:2]]
        found = self._iperf("-A", ",".join(cpus))
        return float(found["sum_received"]["bits_per_second"]), found["streams"][0]["sender"]["mean_rtt"] / 1e6

    def lost(self, rate: str = "200M") -> float:
        """The share of UDP datagrams, sent at a rate, that did not arrive, in percent."""
        return float(self._iperf("-u", "-l", "1400", "-b", rate)["sum"]["lost_percent"])

    def round_trip(self) -> float:
        """Seconds of a small datagram there and back, the median of as many as there is time for."""
        with self._running(SERVER, "echo", self.server) as (server, said):
            assert said == "ready"
            taken = self._run(CLIENT, "ask", self.server)
            server.terminate()
        return float(taken)

    def dropped(self, rate: int) -> float:
        """Packets a second that the node dropped, of so many that were to be sent."""
        sent = int(self._run(CLIENT, "flood", self.server, str(rate)))
        return sent / SECONDS

    def _iperf(self, *options: str) -> Any:
        command = ["ip", "netns", "exec", self.lab.namespace(SERVER), "iperf3", "-s", "-1", "--forceflush"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 did not begin to listen"
            command = ["iperf3", "-J", "-c", self.server, "-t", str(SECONDS), *options]
            done = namespaces.run(self.lab.namespace(CLIENT), command)
            server.wait(WAIT)
        return json.loads(done)["end"]

    def _running(self, place: str, *arguments: str) -> _Running:
        return _Running(["ip", "netns", "exec", self.lab.namespace(place), *_command(arguments)])

    def _run(self, place: str, *arguments: str) -> str:
        return namespaces.run(self.lab.namespace(place), _command(arguments))


class _Running:
    """A process that says one line when it is ready, and is ended at the end."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        return self._process, self._process.stdout.readline().strip()

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(WAIT)
        assert self._process.stdout is not None
        self._process.stdout.close()


def _command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.traffic", *arguments]


def echo(address: str) -> None:
    """Send back what comes, until the end of the process."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, ECHO))
        print("ready", flush=True)  # noqa: T201
        while True:
            data, peer = server.recvfrom(2048)
            server.sendto(data, peer)


def round_trips(address: str) -> Iterator[float]:
    """Seconds of each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(WAIT)
        client.connect((address, ECHO))
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            started = time.perf_counter()
            client.send(b"x")
            client.recv(16)
            yield time.perf_counter() - started


def flood(address: str, rate: int) -> int:
    """Send so many datagrams a second that nobody gets; how many were sent in the time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((address, DENIED))
        begun, sent = time.monotonic(), 0
        while (passed := time.monotonic() - begun) < SECONDS:
            if sent >= rate * passed:
                time.sleep(BURST / rate)
            for _ in range(BURST):
                client.send(b"x")
            sent += BURST
    return sent


def main(kind: str, address: str, *more: str) -> None:
    """One side of the traffic."""
    if kind != "flood":
        # Both sides of the round trips take turns on one CPU: to wake another takes longer than all the rest.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if kind == "echo":
        echo(address)
    elif kind == "ask":
        print(median(round_trips(address)))  # noqa: T201
    else:
        print(flood(address, *map(int, more)))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
