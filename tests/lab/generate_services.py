"""Hypothesis strategies for what surrounds policy: services with their backends, and Felix's settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import strategies as st

from tests.lab.model import Felix, Pod, Service, ServicePort
from tests.lab.topology import BALANCED_V4, BALANCED_V6

if TYPE_CHECKING:
    from hypothesis.strategies import DrawFn

    from tests.lab.topology import Topology

NODE_PORTS = (30080, 30081, 30082)


@st.composite
def any_service(draw: DrawFn, topology: Topology, number: int) -> Service:
    pods = [place for place, thing in topology.places.items() if isinstance(thing, Pod)]
    places = [*pods, topology.nodes[0].name]
    exposed = draw(st.sampled_from(["no", "node port", "balanced"]))
    target = draw(st.sampled_from([80, 8080, 9001]))
    ports = [ServicePort(80, target, "tcp", "http", NODE_PORTS[number] if exposed != "no" else 0)]
    if draw(st.booleans()):
        ports.append(ServicePort(53, 53, "udp", "dns"))
    balanced = (BALANCED_V4, BALANCED_V6) if exposed == "balanced" and number == 0 else ()
    return Service(
        draw(st.sampled_from(sorted({pod.namespace for pod in topology.pods}))),
        f"s{number}",
        tuple(ports),
        f"10.96.1.{number + 1}",
        f"fd00:96::1:{number + 1}" if topology.ipv6 else "",
        tuple(draw(st.lists(st.sampled_from(places), max_size=3, unique=True))),
        (),
        balanced if topology.ipv6 else balanced[:1],
        draw(st.sampled_from([(), ("172.30.0.0/24", "fd00:30::/64"), ("10.0.0.0/8",)])) if balanced else (),
        draw(st.sampled_from(["Cluster", "Cluster", "Local"])) if exposed != "no" else "Cluster",
        draw(st.sampled_from(["Cluster", "Cluster", "Local"])),
    )


@st.composite
def felix_settings(draw: DrawFn, has_hosts: bool) -> Felix:
    """Deny as Reject only without host endpoints: nft refuses reject in postrouting, where mangle's chains are."""
    return Felix(
        draw(st.sampled_from(["v3.32", "v3.32", "v3.32", "v3.31", "v3.30", "v3.29"])),
        draw(st.sampled_from([0xFFFF0000, 0xFFFF0000, 0xFFF00000, 0x1F0F0000])),
        "Drop" if has_hosts else draw(st.sampled_from(["Drop", "Drop", "Drop", "Reject"])),
        draw(st.sampled_from(["Accept", "Accept", "Return"])),
        draw(st.sampled_from(["Accept", "Accept", "Return", "Drop"])),
        draw(st.booleans()),
        draw(st.booleans()),
        nat_outgoing=draw(st.sampled_from([True, True, False])),
        drop_invalid=draw(st.sampled_from([True, True, False])),
    )
