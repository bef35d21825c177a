"""iperf3 between two pods of one node, in veth pairs: its throughput with packets observed and not."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from statistics import median
from typing import TYPE_CHECKING

from calico_debug.agent.packets.observer import Limits, PacketObserver
from calico_debug.model.packet_event import Ends
from tests.lab import namespaces
from tests.lab.lab import Lab

if TYPE_CHECKING:
    from collections.abc import Sequence

SECONDS = 2
PORT, OTHER = 5201, 5202
WAIT = 10.0


@dataclass(frozen=True, slots=True)
class Rate:
    """What iperf3 made, in bits a second; of the observer the events that it told and that were lost, and its CPU
    seconds a second.
    """

    bits: float
    told: int = 0
    lost: int = 0
    cpu: float = 0.0


class Path:
    """Two pods of one node, in a cluster without policy. A context manager."""

    def __init__(self) -> None:
        """Nothing is there yet."""
        self._stack = ExitStack()

    def __enter__(self) -> Path:
        """Bring the cluster up."""
        self._lab = self._stack.enter_context(Lab())
        self._target = self._lab.topology.address("blue/db1")
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self._stack.close()

    def measured(self, flows: Sequence[Ends] | None) -> Rate:
        """The throughput of TCP with ``flows`` observed: None for nothing, () for all drops."""
        if flows is None:
            return Rate(self._iperf())
        limits = Limits(seconds=WAIT + SECONDS, packets=10**9, bytes=1 << 60, rate=1000)
        with ExitStack() as stack:
            with namespaces.entered(self._lab.namespace("node1")):
                observer = stack.enter_context(PacketObserver(flows or None, limits))
            told = 0

            def take() -> None:
                nonlocal told
                told = sum(1 for _ in observer.events())

            reader = threading.Thread(target=take)
            begun, used = time.perf_counter(), time.process_time()
            reader.start()
            bits = self._iperf()
            observer.stop()
            reader.join()
            cpu = (time.process_time() - used) / (time.perf_counter() - begun)
            told += len(observer.finish())
            return Rate(bits, told, observer.losses.lost, cpu)

    def flow(self, port: int) -> tuple[Ends, ...]:
        """The flow of iperf3, or another to the same pod."""
        return (Ends(6, ip_address(self._lab.topology.address("red/web1")), ip_address(self._target), 0, port),)

    def _iperf(self) -> float:
        server = subprocess.Popen(
            ["ip", "netns", "exec", self._lab.namespace("blue/db1"), "iperf3", "-s", "-1", "--forceflush"],
            stdout=subprocess.PIPE,
            text=True,
        )
        with server:
            assert server.stdout is not None
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 did not begin to listen"
            done = subprocess.run(
                [
                    *("ip", "netns", "exec", self._lab.namespace("red/web1")),
                    *("iperf3", "-J", "-c", self._target, "-t", str(SECONDS)),
                ],
                capture_output=True,
                timeout=SECONDS + WAIT,
                check=True,
            )
            server.wait(WAIT)
        return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"])


def missing() -> str:
    """ "" when this can run, else what is missing."""
    return namespaces.supported() or ("" if shutil.which("iperf3") else "iperf3 is not installed")


def measure(runs: int) -> str:
    """Medians of several runs, taken in turn, each with its ratio to the first."""
    with Path() as path:
        ways = {
            "nothing observed": None,
            "another flow observed": path.flow(OTHER),
            "this flow observed, every packet told": path.flow(PORT),
            "all drops observed": (),
        }
        taken: dict[str, list[Rate]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, flows in ways.items():
                taken[name].append(path.measured(flows))
    lines = []
    middle = {name: median(rate.bits for rate in rates) for name, rates in taken.items()}
    first = next(iter(middle.values()))
    for name, rates in taken.items():
        last = rates[-1]
        more = f", {last.told} events told and {last.lost} lost, {last.cpu:.0%} of a CPU" if last.told else ""
        lines.append(f"  {middle[name] / 1e9:8.2f} Gbit/s  {middle[name] / first:5.2f} x  {name}{more}")
    return "\n".join(lines)
