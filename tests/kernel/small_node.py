"""One real node with two pods, programmed with the small rules of tests/explain."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.evidence import LiveSource
from tests.explain.world import Node
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "n1"
PODS = (1, 2)


class SmallNode:
    """Network namespaces of the node and its pods; ``source`` is its live evidence, to be used inside of `entered`."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    @property
    def host(self) -> str:
        return self.names["node"]

    def pod(self, number: int) -> str:
        return self.names[f"pod{number}"]

    def program(self, node: Node) -> None:
        """Replace every rule by those of a made-up node."""
        rules = node.evidence().read("nft-ruleset.json").decode()
        namespaces.nft(self.host, "flush ruleset\n")
        namespaces.run(self.host, ["nft", "-j", "-f", "-"], rules)

    def source(self) -> LiveSource:
        return LiveSource(NAME)


@contextmanager
def small_node() -> Iterator[SmallNode]:
    """Skips where the machine cannot."""
    if why := namespaces.supported():
        pytest.skip(why)
    names = namespaces.create(["node", "wire", *(f"pod{number}" for number in PODS)])
    made = SmallNode(names)
    try:
        namespaces.ip(made.host, ["link set lo up", f"link add eth0 type veth peer name eth0 netns {names['wire']}"])
        namespaces.ip(names["wire"], ["link set eth0 up"])
        namespaces.ip(made.host, ["link set eth0 up", "addr add 172.30.0.1/24 dev eth0"])
        namespaces.ip(made.host, ["route add default via 172.30.0.254"])
        namespaces.sysctl(made.host, {"net/ipv4/ip_forward": "1"})
        for number in PODS:
            pod, device = made.pod(number), f"cali{number}"
            address = f"10.244.1.{number}"
            namespaces.ip(made.host, [f"link add {device} type veth peer name eth0 netns {pod}"])
            namespaces.ip(
                pod,
                [
                    "link set lo up",
                    "link set eth0 up",
                    f"addr add {address}/32 dev eth0",
                    "route add 169.254.1.1 dev eth0 scope link",
                    "route add default via 169.254.1.1 dev eth0",
                ],
            )
            namespaces.ip(made.host, [f"link set {device} up", f"route add {address} dev {device} scope link"])
            namespaces.sysctl(made.host, {f"net/ipv4/conf/{device}/proxy_arp": "1"})
            namespaces.sysctl(made.host, {f"net/ipv4/neigh/{device}/proxy_delay": "0"})
        yield made
    finally:
        namespaces.delete(names.values())
