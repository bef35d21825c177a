"""``make demo``: explain flows of a recorded cluster, then of one that is brought up here, with real packets."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab import namespaces
from tests.lab.lab import Lab
from tests.lab.model import Entity, Model, Policy, Rule, Selector, Service, ServicePort, Tier

PROGRAM = Path(sys.executable).with_name("calico-debug")
RECORDING = Path("tests/data/v3.32.1-nft.tar.xz")

RECORDED_FLOWS = (
    ("client/client-5f8b", "svc/management-ui/management-ui"),
    ("client/client-5f8b", "svc/stars/backend"),
    ("yaobank/database-0", "svc/yaobank/ghost"),
)

WEB = Selector("app", ("web",))
MODEL = Model(
    tiers=(Tier("default", 1_000_000), Tier("platform", 300)),
    policies=(
        Policy(
            "NetworkPolicy",
            "platform.client-egress",
            "platform",
            "red",
            10,
            Selector("app", ("client",)),
            egress=(Rule("Allow", "tcp", destination=Entity(selector=WEB, ports=(80,))),),
        ),
        Policy(
            "GlobalNetworkPolicy",
            "platform.web",
            "platform",
            order=20,
            selector=WEB,
            ingress=(Rule("Deny", "udp"), Rule("Allow", "tcp", destination=Entity(ports=(80,)))),
        ),
    ),
    services=(
        Service("blue", "shop", (ServicePort(80, 80),), "10.96.1.1", "fd00:96::1", ("blue/web2",)),
        Service("red", "store", (ServicePort(80, 8080),), "10.96.1.2", "fd00:96::2", ("red/db2",)),
        Service("red", "ghost", (ServicePort(80, 80),), "10.96.1.3", "fd00:96::3"),
    ),
)


@dataclass(frozen=True, slots=True)
class Try:
    """A flow of the live part: to a service, or to a place of the lab."""

    source: str
    target: str
    protocol: str = "tcp"
    port: int = 80


LIVE_FLOWS = (
    Try("red/cli1", "svc/blue/shop"),
    Try("red/cli1", "svc/red/store"),
    Try("blue/cli2", "blue/web2", "udp", 53),
    Try("blue/db1", "svc/red/ghost"),
)


def main() -> int:
    """Run both parts; exit 1 when an explanation and the kernel disagree."""
    print("A recorded two-node cluster, Calico v3.32.1 in nftables mode")  # noqa: T201
    for source, target in RECORDED_FLOWS:
        explain("--bundle", str(RECORDING), "--from", source, "--to", target)
    reason = namespaces.supported()
    if reason:
        print(f"\nThe live part is left out: {reason}")  # noqa: T201
        return 0
    return live()


def live() -> int:
    """Bring up two nodes with six pods in network namespaces, send packets, and explain what became of them."""
    print("\nTwo nodes in network namespaces of this kernel, rules of Calico's shape, real packets")  # noqa: T201
    disagreements = 0
    with Lab() as lab, TemporaryDirectory() as folder:
        lab.program(MODEL)
        bundle = Path(folder) / "lab"
        lab.evidence(bundle)
        for one in LIVE_FLOWS:
            target = address(one.target)
            outcome = lab.send(lab.flow(one.source, target, one.protocol, one.port))
            asked = one.target if one.target.startswith("svc/") else f"{one.target}:{one.port}"
            arguments = ("--from", one.source, "--to", asked, "-p", one.protocol)
            verdict = explain("--bundle", str(bundle), *arguments, shown=("--bundle", "lab", *arguments))
            agrees = verdict == outcome.verdict
            disagreements += not agrees
            detail = f" ({outcome.detail})" if outcome.detail else ""
            mark = "as explained" if agrees else "NOT as explained"
            print(f"  => the packet that was sent was {outcome.verdict}{detail}: {mark}")  # noqa: T201
        node = lab.topology.nodes[0]
        client, web = lab.topology.address("red/cli1", 4), lab.topology.address("red/web1", 4)
        print(f"\nThe same on a live node: rules read from the kernel of {node.name}, only those on the path")  # noqa: T201
        with namespaces.entered(lab.namespace(node.name)):
            explain("--node", node.name, "--from", client, "--to", f"{web}:80")
            print("\nThree witnesses: predicted, counted, and a packet sent and followed from rule to rule")  # noqa: T201
            explain("--node", node.name, "--from", client, "--to", f"{web}:443", "--probe", "--observe", "0.5")
    return 1 if disagreements else 0


def address(target: str) -> str:
    """What the lab sends to: a service's address, or the place itself."""
    if not target.startswith("svc/"):
        return target
    _, namespace, name = target.split("/")
    service = next(s for s in MODEL.services if (s.namespace, s.name) == (namespace, name))
    return service.cluster_address(4)


def explain(*arguments: str, shown: tuple[str, ...] = ()) -> str:
    """Run the installed command, show it with its answer, and return the verdict."""
    print(f"\n$ calico-debug trace {shlex.join(shown or arguments)}", flush=True)  # noqa: T201
    done = subprocess.run([PROGRAM, "trace", *arguments], capture_output=True, text=True, check=False, timeout=60)
    print(done.stdout or done.stderr, end="", flush=True)  # noqa: T201
    return done.stdout.split(maxsplit=1)[0].lower() if done.stdout else "failed"


if __name__ == "__main__":
    sys.exit(main())
