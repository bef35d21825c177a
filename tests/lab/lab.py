"""The lab's front door.

with Lab() as lab:
    lab.program(model)
    before = lab.counters()
    outcome = lab.send(lab.flow("red/web1", "red/db2", "tcp", 80))
    hits = lab.moved(before)
    lab.evidence(directory)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from tests.lab import counters, namespaces
from tests.lab.evidence import write_bundle
from tests.lab.felix_shape import felix_text
from tests.lab.kube_proxy_shape import kube_proxy_text
from tests.lab.model import Model, Node
from tests.lab.topology import OUTSIDE, OUTSIDE_OTHER_V4, OUTSIDE_OTHER_V6, Topology, Wiring, small_cluster
from tests.lab.traffic import SILENCE, Flow, Outcome, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from tests.lab.counters import RuleKey

Counters = dict[str, dict["RuleKey", int]]
"""{node: {rule: packets}}"""


class Lab:
    """A wired cluster whose rules can be replaced at will. Building takes about 50 ms, programming 30 ms a node."""

    def __init__(self, topology: Topology | None = None, ports: Mapping[str, tuple[int, ...]] | None = None) -> None:
        self.topology = topology or small_cluster()
        self.model = Model()
        self.wiring = Wiring(self.topology)
        try:
            self.traffic = Traffic(self.topology, self.wiring.names, *([ports] if ports else []))
        except BaseException:
            self.wiring.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.traffic.close()
        self.wiring.close()

    def namespace(self, place: str) -> str:
        """The namespace of a node, a pod or the outside client."""
        return self.wiring.names[place]

    def program(self, model: Model, *, forget: bool = True) -> None:
        """Put a model's rules on every node, in place of what was there; ``forget`` flushes tracked connections."""
        self.model = model
        for node in self.topology.nodes:
            namespaces.nft(self.namespace(node.name), ruleset(self.topology, model, node.name))
            if forget:
                self.forget_connections(node.name)

    def forget_connections(self, node: str) -> None:
        """Flush a node's conntrack table."""
        namespaces.run(self.namespace(node), ["conntrack", "-F"])

    def flow(self, source: str, target: str, protocol: str = "tcp", port: int | None = None, version: int = 4) -> Flow:
        """A flow between places; ``target`` may also be an address. ICMP is of the address's family."""
        destination = self.topology.address(target, version) if target in self.topology.places else target
        kind = ("icmpv6" if ":" in destination else "icmp") if protocol.startswith("icmp") else protocol
        if kind not in {"tcp", "udp", "icmp", "icmpv6"}:
            raise ValueError(f"the lab cannot send protocol {protocol!r}; it sends tcp, udp, icmp and icmpv6")
        return Flow(source, destination, kind, port)  # type: ignore[arg-type]

    def via(self, flow: Flow) -> str | None:
        """The node that a flow of the outside client arrives at first; None for other sources."""
        if flow.source != OUTSIDE:
            return None
        owner = self.topology.places.get(self.topology.owner(flow.destination) or "")
        if isinstance(owner, Node):
            return owner.name
        first, last = self.topology.nodes[0].name, self.topology.nodes[-1].name
        return last if flow.source_address in {OUTSIDE_OTHER_V4, OUTSIDE_OTHER_V6} else first

    def question(self, flow: Flow) -> dict[str, str]:
        """The flow as one line of ``calico-debug trace --flows``, by addresses."""
        source = flow.source_address or self.topology.address(flow.source, flow.version)
        target = flow.destination
        if flow.port is not None:
            target = f"[{target}]:{flow.port}" if flow.version == 6 else f"{target}:{flow.port}"
        asked = {"from": source, "to": target, "protocol": flow.protocol}
        node = self.via(flow)
        return asked if node is None else asked | {"via": node}

    def send(self, flow: Flow, silence: float = SILENCE) -> Outcome:
        return self.traffic.send(flow, silence)

    def send_all(self, flows: Iterable[Flow], silence: float = SILENCE) -> list[Outcome]:
        return self.traffic.send_all(flows, silence)

    def counters(self) -> Counters:
        return {node.name: counters.read(self.namespace(node.name)) for node in self.topology.nodes}

    def moved(self, before: Counters) -> Counters:
        """The rules that counted packets since ``before``, by node."""
        after = self.counters()
        return {node: counters.moved(before[node], after[node]) for node in after}

    def evidence(self, directory: Path, *, complete: bool = True) -> None:
        """Write the cluster as a bundle that the product reads."""
        write_bundle(directory, self.wiring, self.model, complete=complete)


def ruleset(topology: Topology, model: Model, node: str) -> str:
    """Everything that is programmed on a node, as one nft transaction.

    Chains of equal priority on one hook run in an order that depends on which was registered first, so both orders
    can be asked for (``model.kube_proxy_first``).
    """
    found = topology.node(node)
    texts = [felix_text(topology, model, found), kube_proxy_text(topology, model, found)]
    return "\n".join(reversed(texts) if model.kube_proxy_first else texts) + "\n"
