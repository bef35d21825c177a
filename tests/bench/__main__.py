"""Times whole processes on this machine and prints ratios; medians of several runs, in turn, nothing is asserted."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.bench.agent_load import Load, listing_memory, scrape_load, trace_load
from tests.bench.big_cluster import MATRIX, big_cluster
from tests.bench.big_node import big_node
from tests.bench.conntrack_map import full_map
from tests.bench.flows import recorded_flows
from tests.bench.iptables import crowded_bundle, crowded_node
from tests.bench.packets import measure, missing
from tests.bench.scrape import command_cpu, policed_node, scrapes
from tests.kernel.bpf_kernel import need_bpf
from tests.lab import namespaces

PROGRAM = Path(sys.executable).with_name("calico-debug")
RECORDING = Path("tests/data/v3.32.1-nft.tar.xz")
CHANGED_RECORDING = Path("tests/data/v3.32.1-stale-nft.tar.xz")
IPTABLES_RECORDING = Path("tests/data/v3.32.1-iptables.tar.xz")
BPF_RECORDING = Path("tests/data/v3.32.1-bpf.tar.xz")
ONE_POD = ("--pod", "ns7/app3-1")
RULES = 20_000
CONNECTIONS = 512_000
RUNS = 5
REPEATS = 10
COMPARED = 1_000
SCRAPED = 10_000


@dataclass(frozen=True, slots=True)
class Command:
    """A command to time; ``namespace`` "" is where the bench itself runs, ``code`` what it exits with."""

    name: str
    arguments: Sequence[str | Path]
    namespace: str = ""
    code: int = 0


def seconds(command: Command) -> float:
    """Wall time of one run. Raises `subprocess.CalledProcessError` when it fails."""
    enter = ["ip", "netns", "exec", command.namespace] if command.namespace else []
    started = time.perf_counter()
    done = subprocess.run([*enter, *command.arguments], stdout=subprocess.DEVNULL, timeout=300)
    if done.returncode != command.code:
        raise subprocess.CalledProcessError(done.returncode, done.args)
    return time.perf_counter() - started


def compare(title: str, commands: Sequence[Command], note: Callable[[Sequence[float]], str] | None = None) -> None:
    """Time commands in turn and print medians, each with its ratio to the first."""
    taken: list[list[float]] = [[] for _ in commands]
    for _ in range(RUNS):
        for times, command in zip(taken, commands, strict=True):
            times.append(seconds(command))
    medians = [median(times) for times in taken]
    print(f"\n{title}")  # noqa: T201
    for command, middle in zip(commands, medians, strict=True):
        print(f"  {middle:8.3f} s  {middle / medians[0]:7.2f} x  {command.name}")  # noqa: T201
    if note is not None:
        print(f"  {note(medians)}")  # noqa: T201


def trace(*arguments: str | Path) -> list[str | Path]:
    """A trace command line."""
    return [PROGRAM, "trace", *arguments]


def recorded(folder: Path) -> None:
    """Cold start and throughput over the recording."""
    one = trace("--bundle", RECORDING, "--from", "client/client-5f8b", "--to", "svc/stars/backend")
    flows = folder / "flows.jsonl"
    count = recorded_flows(RECORDING, flows, REPEATS)
    many = trace("--bundle", RECORDING, "--flows", flows)
    compare(
        f"One flow from a recorded bundle, cold, and {count} flows in one process",
        [
            Command("python that does nothing", [sys.executable, "-c", "pass"]),
            Command("calico-debug --help", [PROGRAM, "--help"]),
            Command("calico-debug trace, one flow", one),
            Command(f"calico-debug trace --flows, {count} flows", many),
        ],
        lambda medians: f"{count / (medians[3] - medians[2]):.0f} flows a second beyond the first",
    )


def differ(folder: Path) -> None:
    """Two recordings compared by a thousand flows, beside explaining as many in one of them."""
    flows = folder / "thousand.jsonl"
    count = recorded_flows(RECORDING, flows, REPEATS)
    lines = flows.read_text().splitlines(keepends=True)[:COMPARED]
    flows.write_text("".join(lines))
    between = [PROGRAM, "diff", RECORDING, CHANGED_RECORDING]
    compare(
        f"{len(lines)} of {count} flows compared between two bundles, and those between their pods",
        [
            Command("calico-debug trace --flows, of one bundle", trace("--bundle", RECORDING, "--flows", flows)),
            Command("calico-debug diff --flows", [*between, "--flows", flows], code=1),
            Command("calico-debug diff", between, code=1),
            Command("calico-debug matrix", [PROGRAM, "matrix", "--bundle", RECORDING]),
        ],
    )


def live() -> None:
    """One flow on a node with many rules, beside listing them."""
    reason = namespaces.supported()
    if reason:
        print(f"\nLive node: left out, {reason}")  # noqa: T201
        return
    with big_node(chains=1_000, rules=10) as node:
        asked = trace("--node", "big", "--from", node.client, "--to", f"{node.server}:80")
        compare(
            "One flow on a live node with 1,000 chains of 10 rules with anonymous sets",
            [
                Command("calico-debug trace, one flow", asked, node.namespace),
                Command("nft -j list ruleset", ["nft", "-j", "list", "ruleset"], node.namespace),
            ],
        )


def iptables(folder: Path) -> None:
    """One flow on an iptables node with 20,000 rules more, beside iptables-save itself."""
    asked = ("--from", "client/client-5f8b", "--to", "svc/stars/backend")
    bundle = crowded_bundle(IPTABLES_RECORDING, folder, RULES)
    commands = [Command("calico-debug trace, one flow", trace("--bundle", bundle, *asked))]
    reason = namespaces.supported()
    title = f"One flow on an iptables node with {RULES} rules more"
    if reason:
        compare(f"{title} (iptables-save left out: {reason})", commands)
        return
    with crowded_node(RULES) as namespace:
        compare(title, [*commands, Command("iptables-save -c", ["iptables-save", "-c"], namespace)])


def ebpf(folder: Path) -> None:
    """One flow from a recorded eBPF node, and one client's connections in a full map of connections."""
    asked = ("--from", "client/client-5f8b", "--to", "svc/stars/backend")
    flows = folder / "bpf-flows.jsonl"
    count = recorded_flows(BPF_RECORDING, flows, REPEATS)
    compare(
        f"An eBPF node: one flow from a recorded bundle, cold, and {count} flows in one process",
        [
            Command("calico-debug trace, one flow", trace("--bundle", BPF_RECORDING, *asked)),
            Command(f"calico-debug trace --flows, {count} flows", trace("--bundle", BPF_RECORDING, "--flows", flows)),
        ],
        lambda medians: f"{count / (medians[1] - medians[0]):.0f} flows a second beyond the first",
    )
    reason = bpf_unsupported()
    if reason:
        print(f"\nA full map of connections: left out, {reason}")  # noqa: T201
        return
    with full_map(CONNECTIONS) as info:
        filtered = [sys.executable, "-m", "tests.bench.conntrack_map", str(info.id), str(CONNECTIONS)]
        dump = ["bpftool", "-j", "map", "dump", "id", str(info.id)]
        compare(
            f"One client among {CONNECTIONS} connections in a map of the kernel",
            [Command("a filtered walk in batches", filtered), Command("bpftool -j map dump", dump)],
        )


def intent(folder: Path) -> None:
    """What the objects of a large cluster mean, beside reading them."""
    bundle = big_cluster(folder)
    asked = [sys.executable, "-m", "tests.bench.big_cluster", bundle]
    compare(
        "A cluster of 5,000 pods, 1,000 policies and 500 services",
        [
            Command("reading its objects", [*asked, "objects"]),
            Command("calico-debug policies --pod, of one pod", [PROGRAM, "policies", "--bundle", bundle, *ONE_POD]),
            Command("the policies that apply to every pod", [*asked, "policies"]),
            Command(f"a matrix of {MATRIX} x {MATRIX} pods", [*asked, "matrix"]),
        ],
    )


def metrics() -> None:
    """One scrape of the agent's metrics, beside listing the rules."""
    reason = namespaces.supported()
    if reason:
        print(f"\nMetrics: left out, {reason}")  # noqa: T201
        return
    for title, node, listing in (
        ("nftables", policed_node(SCRAPED), ["nft", "-j", "list", "ruleset"]),
        ("iptables", crowded_node(SCRAPED), ["iptables-save", "-c"]),
    ):
        with node as namespace:
            first, later, series = scrapes(namespace)
            listed = command_cpu(namespace, listing)
        print(f"\nA scrape of {SCRAPED} rules of {title}, {series} series: CPU")  # noqa: T201
        for name, taken in (("a scrape", later), ("the first scrape", first), (" ".join(listing), listed)):
            print(f"  {taken:8.3f} s  {taken / later:7.2f} x  {name}")  # noqa: T201


def agent(folder: Path) -> None:
    """Memory and CPU of an agent's process: what daemonset/base asks for is from these figures."""
    reason = namespaces.supported()
    if reason:
        print(f"\nThe agent's process: left out, {reason}")  # noqa: T201
        return
    figures: list[tuple[str, Sequence[Load]]] = [
        (f"scrapes of {SCRAPED} rules", scrape_load(SCRAPED, RUNS * REPEATS, folder)),
        (
            "traces on a node with 1,000 chains of 10 rules with anonymous sets",
            trace_load(1_000, RUNS * REPEATS, folder),
        ),
    ]
    for title, loads in figures:
        print(f"\nThe agent's process, {title}: CPU, and most memory so far")  # noqa: T201
        for load in loads:
            print(f"  {load.cpu:8.3f} s  {load.memory:7.1f} MiB  {load.name}")  # noqa: T201
    print(f"  {'':10}  {listing_memory(SCRAPED):7.1f} MiB  nft -j list ruleset, which makes one file of a bundle")  # noqa: T201


def packets() -> None:
    """Throughput between two pods with packets observed and not."""
    reason = missing() or bpf_unsupported()
    if reason:
        print(f"\nThroughput while packets are observed: left out, {reason}")  # noqa: T201
        return
    print("\nTCP between two pods of a node, while packets are observed")  # noqa: T201
    print(measure(RUNS))  # noqa: T201


def bpf_unsupported() -> str:
    """ "" when this machine can hold the map, else why not."""
    if namespaces.supported():
        return namespaces.supported()
    try:
        need_bpf()
    except BaseException as skipped:  # noqa: BLE001 - pytest's skip is no Exception
        return str(skipped)
    return ""


def main() -> int:
    """Everything, one part after the other."""
    with TemporaryDirectory() as folder:
        recorded(Path(folder))
        differ(Path(folder))
        iptables(Path(folder))
        ebpf(Path(folder))
        intent(Path(folder))
        agent(Path(folder))
    live()
    metrics()
    packets()
    return 0


if __name__ == "__main__":
    sys.exit(main())
