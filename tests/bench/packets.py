"""Traffic between two pods of one node while packets are observed, or captured by tcpdump, and while they are not."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from statistics import median
from typing import TYPE_CHECKING

from calico_debug.agent.packets.observer import Limits, PacketObserver
from calico_debug.cli.observe import SHOWN
from calico_debug.model.packet_event import Ends
from tests.bench.traffic import ECHO, PORT, SECONDS, WAIT, Path
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from calico_debug.model.packet_event import Losses

DROPS_A_SECOND = 100_000
EVERY = 10**9


@dataclass(slots=True)
class Watched:
    """What an observer told and lost, and its CPU seconds a second; known at its end."""

    told: int = 0
    losses: Losses | None = None
    cpu: float = 0.0

    def __str__(self) -> str:
        """In words; "" before."""
        if self.losses is None or not self.losses.matched:
            return ""
        return f"{self.told} events told, {self.losses.lost} counted as left out, {self.cpu:.0%} of a CPU"


@contextmanager
def watching(path: Path, flows: Sequence[Ends] | None, rate: int = SHOWN) -> Iterator[Watched]:
    """Observe flows, or with None all drops."""
    limits = Limits(seconds=WAIT + SECONDS, packets=EVERY, bytes=1 << 60, rate=rate)
    found = Watched()
    with ExitStack() as stack:
        with namespaces.entered(path.node):
            observer = stack.enter_context(PacketObserver(flows, limits))

        def take() -> None:
            found.told = sum(1 for _ in observer.events())

        reader = threading.Thread(target=take)
        begun, used = time.perf_counter(), time.process_time()
        reader.start()
        yield found
        observer.stop()
        reader.join()
        found.told += len(observer.finish())
        found.cpu = (time.process_time() - used) / (time.perf_counter() - begun)
        found.losses = observer.losses


@contextmanager
def tcpdump(path: Path) -> Iterator[Watched]:
    """tcpdump's headers of this flow, at one of the interfaces on its way."""
    capture = ["tcpdump", "-n", "-U", "-s", "96", "-w", "-", "-i", path.interface(), "host", path.client]
    command = ["ip", "netns", "exec", path.node, *capture]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        while "listening" not in (line := process.stderr.readline()):
            assert line, "tcpdump did not begin to listen"
        try:
            yield Watched()
        finally:
            process.terminate()
            process.wait(WAIT)


@contextmanager
def nothing(_: Path) -> Iterator[Watched]:
    """No observer."""
    yield Watched()


@dataclass(slots=True)
class Measured:
    """Of one way to watch, the results of several runs."""

    throughput: list[float] = field(default_factory=list)
    under_load: list[float] = field(default_factory=list)
    round_trip: list[float] = field(default_factory=list)
    lost: list[float] = field(default_factory=list)
    words: str = ""


def missing() -> str:
    """ "" when this can run, else what is missing."""
    return namespaces.supported() or ("" if shutil.which("iperf3") else "iperf3 is not installed")


def flow(path: Path, port: int, protocol: int = 6) -> Ends:
    """A flow between the two pods."""
    return Ends(protocol, ip_address(path.client), ip_address(path.server), 0, port)


def measure(runs: int) -> str:
    """The best of several runs, the ways in turn, each with its ratio to the first: whatever else a machine does only
    slows a run down. Of round trips under load, and of losses, the median. Without an observer it is measured twice, so
    that the second ratio tells how exact the others are.
    """
    with Path() as path:
        other = Ends(6, ip_address("203.0.113.1"), ip_address("203.0.113.2"), 0, 80)
        these = tuple(flow(path, port, protocol) for port, protocol in ((PORT, 6), (PORT, 17), (ECHO, 17)))
        ways: dict[str, Callable[[], AbstractContextManager[Watched]]] = {
            "nothing observed": lambda: nothing(path),
            "nothing observed, once more": lambda: nothing(path),
            "a flow of others observed": lambda: watching(path, [other]),
            "another flow of these pods observed": lambda: watching(path, [flow(path, PORT + 99)]),
            "this flow observed": lambda: watching(path, these),
            "this flow observed, every packet told": lambda: watching(path, these, EVERY),
            "all drops observed": lambda: watching(path, None),
        }
        if shutil.which("tcpdump"):
            ways["tcpdump of this flow at one interface"] = lambda: tcpdump(path)
        results = {name: Measured() for name in ways}
        for _ in range(runs):
            for name, begin in ways.items():
                _once(path, begin, results[name])
        return "\n".join([*_table(results), _flood(path)])


def _once(path: Path, begin: Callable[[], AbstractContextManager[Watched]], result: Measured) -> None:
    with begin() as watched:
        bits, trip = path.throughput()
    result.throughput.append(bits)
    result.under_load.append(trip)
    result.words = str(watched)
    with begin():
        result.round_trip.append(path.round_trip())
    with begin():
        result.lost.append(path.lost())


def _table(results: dict[str, Measured]) -> Iterator[str]:
    first = next(iter(results.values()))
    for name, one in results.items():
        bits, loaded, trip = max(one.throughput), median(one.under_load), min(one.round_trip)
        more = f" ({one.words})" if one.words else ""
        yield (
            f"  {bits / 1e9:6.2f} Gbit/s {bits / max(first.throughput):5.2f} x"
            f"  {loaded * 1e6:6.1f} us under load {loaded / median(first.under_load):5.2f} x"
            f"  {trip * 1e6:6.1f} us alone {trip / min(first.round_trip):5.2f} x"
            f"  {median(one.lost):5.2f} % lost  {name}{more}"
        )


def _flood(path: Path) -> str:
    with watching(path, None) as watched:
        rate = path.dropped(DROPS_A_SECOND)
    return f"  {rate:,.0f} drops a second, all observed: {watched}"
