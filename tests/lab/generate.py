"""Hypothesis strategies: whole policy models on the fixed small cluster, and flows worth asking about.

Rules are drawn from the places, ports and networks that the cluster really has, so that they match often; what the
API or the kernel refuses is left out (ports without a transport protocol, ICMP type with code, reject in postrouting).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from tests.lab.generate_services import any_service, felix_settings
from tests.lab.model import (
    Entity,
    HostEndpoint,
    Model,
    NetworkSet,
    Pod,
    Policy,
    Rule,
    Selector,
    Service,
    Tier,
)
from tests.lab.topology import OUTSIDE, OUTSIDE_OTHER_V4, OUTSIDE_OTHER_V6, WORLD_V4, WORLD_V6
from tests.lab.traffic import SERVER_PORTS, Flow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

    from tests.lab.model import Action, PolicyKind, PortSpec
    from tests.lab.topology import Topology

HOST_LABEL = "host"
TIERS = (Tier("default", 1_000_000), Tier("security", 100), Tier("platform", 300, "Pass"), Tier("audit", 300))
_NETS = {
    4: ("10.244.0.0/16", "10.244.1.0/24", "10.244.2.12/30", "172.30.0.0/24", "172.30.0.100/32", "198.51.100.0/24"),
    6: ("fd00:244::/32", "fd00:244:1::/64", "fd00:244:2::/64", "fd00:30::/64", "fd00:30::100/128", "2001:db8::/32"),
}
_KINDS: tuple[PolicyKind, ...] = (
    "NetworkPolicy",
    "GlobalNetworkPolicy",
    "GlobalNetworkPolicy",
    "KubernetesNetworkPolicy",
)
_EVERYTHING = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class Case:
    """One model and the flows to try on it."""

    model: Model
    flows: tuple[Flow, ...]


def cases(
    topology: Topology, flows: int = 8, *, untracked: bool = False, asymmetric: bool = False
) -> SearchStrategy[Case]:
    """Models with ``flows`` flows each.

    Two things make an outcome depend on later packets than the first ones each way, so they are asked for:
    ``untracked`` adds doNotTrack policies (TCP then gets by without conntrack, with retransmissions passing that the
    first copy did not), ``asymmetric`` lets the outside client reach a node's pods through the other node.
    """

    @st.composite
    def build(draw: DrawFn) -> Case:
        model = draw(models(topology, untracked=untracked))
        each = flow(topology, model, asymmetric=asymmetric)
        tried = draw(st.lists(each, min_size=flows, max_size=flows))
        return Case(model, tuple(tried))

    return build()


@st.composite
def models(draw: DrawFn, topology: Topology, *, untracked: bool = False) -> Model:
    """A whole model: tiers, policies of every kind, services, sometimes a host endpoint, Felix's settings."""
    services = tuple(draw(any_service(topology, number)) for number in range(draw(st.integers(0, 3))))
    hosts = draw(_host_endpoints(topology))
    count = draw(st.integers(0, 6))
    policies = [draw(_pod_policy(topology, number, services)) for number in range(count)]
    if hosts:
        host_policy = st.integers(0, 3).flatmap(
            lambda n: st.tuples(*(_host_policy(100 + i, hosts[0].node, untracked) for i in range(n)))
        )
        policies += draw(host_policy)
    felix = draw(felix_settings(bool(hosts)))
    if felix.release == "v3.29":
        # No staged policies before v3.30.
        policies = [replace(policy, staged=False) for policy in policies]
    sets = (NetworkSet("world", ("198.51.100.0/24", "2001:db8:51::/48"), {"threat": "yes"}),)
    return Model(TIERS, tuple(policies), (), hosts, sets, services, felix, draw(st.booleans()))


@st.composite
def flow(draw: DrawFn, topology: Topology, model: Model, *, asymmetric: bool = False) -> Flow:
    """A flow between any two places, to a service, a node port or a load-balancer address."""
    version = draw(st.sampled_from(topology.versions))
    source = draw(st.sampled_from(list(topology.places)))
    destination, ports = draw(st.sampled_from(_targets(topology, model, source, version)))
    protocol = draw(st.sampled_from(["tcp", "tcp", "udp", "icmp"]))
    own = None if asymmetric else _symmetric_source(topology, source, destination)
    if protocol == "icmp" and not any(ports.values()):
        return Flow(source, destination, "icmp" if version == 4 else "icmpv6", source_address=own)
    wanted = ports.get(protocol) or SERVER_PORTS.get(protocol)
    if not wanted:
        protocol, wanted = "tcp", ports.get("tcp") or SERVER_PORTS["tcp"]
    port = draw(st.sampled_from(list(wanted)))
    return Flow(source, destination, protocol, port, source_address=own)  # type: ignore[arg-type]


def _symmetric_source(topology: Topology, source: str, destination: str) -> str | None:
    """The outside client's address whose route to a pod goes through the pod's own node."""
    owner = topology.places.get(topology.owner(destination) or "")
    if source != OUTSIDE or not isinstance(owner, Pod) or owner.node == topology.nodes[0].name:
        return None
    return OUTSIDE_OTHER_V6 if ":" in destination else OUTSIDE_OTHER_V4


Ports = dict[str, list[int]]


def _targets(topology: Topology, model: Model, source: str, version: int) -> list[tuple[str, Ports]]:
    """Addresses with the ports of their own that they have, {} when it is the servers'."""
    found: list[tuple[str, Ports]] = [(topology.address(p, version), {}) for p in topology.places if p != source]
    if source != OUTSIDE:
        found += [(address, {}) for address in (WORLD_V4 if version == 4 else WORLD_V6)]
    for service in model.services:
        own: Ports = {}
        node_ports: Ports = {}
        for port in service.ports:
            own.setdefault(port.protocol, []).append(port.port)
            if port.node_port:
                node_ports.setdefault(port.protocol, []).append(port.node_port)
        addresses = [service.cluster_address(version)]
        addresses += [a for a in service.load_balancer if (":" in a) == (version == 6)]
        found += [(address, own) for address in addresses if address] * 2
        if node_ports:
            found += [(node.address(version), node_ports) for node in topology.nodes]
    return found


# --------------------------------------------------------------------------------------------------------- policies


@st.composite
def _pod_policy(draw: DrawFn, topology: Topology, number: int, services: Sequence[Service]) -> Policy:
    kind: PolicyKind = draw(st.sampled_from(_KINDS))
    namespace = "" if kind == "GlobalNetworkPolicy" else draw(st.sampled_from(_namespaces(topology)))
    if kind == "KubernetesNetworkPolicy":
        return draw(_kubernetes_policy(number, namespace))
    tier = draw(st.sampled_from(["default", *(tier.name for tier in TIERS)]))
    rules = st.lists(_rule(services, bool(namespace)), max_size=4).map(tuple)
    ingress, egress = draw(_directions(rules))
    name = f"p{number}"
    return Policy(
        kind,
        f"{tier}.{name}" if draw(st.booleans()) else name,
        tier,
        namespace,
        draw(st.none() | st.integers(0, 2).map(float)),
        draw(_selected()),
        ingress,
        egress,
        staged=draw(st.integers(0, 9)) == 0,
    )


def _directions(rules: SearchStrategy[tuple[Rule, ...]]) -> SearchStrategy[tuple[Any, Any]]:
    return st.one_of(st.tuples(rules, st.none()), st.tuples(st.none(), rules), st.tuples(rules, rules))


@st.composite
def _kubernetes_policy(draw: DrawFn, number: int, namespace: str) -> Policy:
    """Allow rules only, one port, one peer, order 1000 in tier default."""

    @st.composite
    def rule(draw: DrawFn, side: str) -> Rule:
        protocol = draw(st.sampled_from(["tcp", "udp"]))
        port: PortSpec = draw(st.sampled_from(SERVER_PORTS[protocol]))
        peer = draw(st.sampled_from(["web", "db", "client"]))
        selector = draw(st.none() | st.just(Selector("app", (peer,), namespace=namespace)))
        if side == "ingress":
            return Rule("Allow", protocol, source=Entity(selector=selector), destination=Entity(ports=(port,)))
        return Rule("Allow", protocol, destination=Entity(selector=selector, ports=(port,)))

    ingress = draw(st.none() | st.lists(rule("ingress"), max_size=2).map(tuple))
    egress = draw(st.none() | st.lists(rule("egress"), max_size=2).map(tuple))
    if ingress is None and egress is None:
        ingress = ()
    app = draw(st.sampled_from(["web", "db", "client"]))
    name = f"k{number}"
    return Policy("KubernetesNetworkPolicy", name, "default", namespace, 1000, Selector("app", (app,)), ingress, egress)


@st.composite
def _host_policy(draw: DrawFn, number: int, node: str, untracked: bool) -> Policy:
    """A policy that selects the host endpoint: normal, applyOnForward, preDNAT or doNotTrack."""
    forms = ["normal", "normal", "forward", "pre-dnat", *(["untracked"] if untracked else ())]
    form = draw(st.sampled_from(forms))
    tier = draw(st.sampled_from(["default", "security"]))
    rules = st.lists(_rule((), False), max_size=3).map(tuple)
    ingress, egress = draw(_directions(rules))
    if form == "pre-dnat":
        ingress, egress = ingress or (), None
    return Policy(
        "GlobalNetworkPolicy",
        f"h{number}",
        tier,
        "",
        draw(st.none() | st.integers(0, 2).map(float)),
        Selector(HOST_LABEL, (node,)),
        ingress,
        egress,
        pre_dnat=form == "pre-dnat",
        apply_on_forward=form != "normal",
        do_not_track=form == "untracked",
    )


@st.composite
def _host_endpoints(draw: DrawFn, topology: Topology) -> tuple[HostEndpoint, ...]:
    if draw(st.integers(0, 3)):
        return ()
    node = draw(st.sampled_from(topology.nodes)).name
    interface = draw(st.sampled_from(["eth0", "eth0", "*"]))
    profiles = draw(st.sampled_from([(), ("kns.projectcalico-default-allow",)]))
    return (HostEndpoint(f"{node}-host", node, interface, {HOST_LABEL: node}, profiles),)


# ------------------------------------------------------------------------------------------------------------ rules


@st.composite
def _rule(draw: DrawFn, services: Sequence[Service], namespaced: bool) -> Rule:
    action: Action = draw(st.sampled_from(["Allow", "Allow", "Allow", "Deny", "Deny", "Pass", "Log"]))
    protocol = draw(st.sampled_from([None, "tcp", "tcp", "udp", "icmp", "icmpv6", 6, 17]))
    transport = protocol in {"tcp", "udp", 6, 17}
    version = draw(st.sampled_from([None, None, None, 4, 6]))
    source = draw(_entity(protocol if transport else None, namespaced, source=True))
    destination = draw(_entity(protocol if transport else None, namespaced, source=False))
    if services and protocol == services[0].ports[0].protocol and draw(st.integers(0, 5)) == 0:
        destination = Entity(service=(services[0].namespace, services[0].name))
    icmp_type = not_icmp_type = None
    if protocol in {"icmp", "icmpv6"}:
        version = 4 if protocol == "icmp" else 6
        echo = 8 if version == 4 else 128
        form = draw(st.sampled_from(["any", "type", "not"]))
        icmp_type = draw(st.sampled_from([echo, 3])) if form == "type" else None
        not_icmp_type = draw(st.sampled_from([echo, 3])) if form == "not" else None
    not_protocol = draw(st.sampled_from([None, "tcp", "udp", 1])) if protocol is None else None
    annotations = draw(st.sampled_from([(), (), (("team", 'blue; "quoted"'),)]))
    return Rule(
        action,
        protocol,
        not_protocol,
        source,
        destination,
        icmp_type,
        None,
        not_icmp_type,
        version,
        annotations,
    )


@st.composite
def _entity(draw: DrawFn, protocol: str | int | None, namespaced: bool, *, source: bool) -> Entity:
    """Mostly open, so that a rule with several criteria still has a chance to match."""
    form = draw(st.sampled_from(["any", "any", "nets", "selector", "selector", "both"]))
    nets: tuple[str, ...] = ()
    not_nets: tuple[str, ...] = ()
    selector = not_selector = None
    if form in {"nets", "both"}:
        nets = tuple(draw(st.lists(st.sampled_from([*_all_nets(), *_EVERYTHING]), unique=True, max_size=3)))
        not_nets = tuple(draw(st.lists(st.sampled_from(_all_nets()), unique=True, max_size=2)))
    if form in {"selector", "both"}:
        selector = draw(_peers(namespaced))
        not_selector = draw(st.none() | st.none() | _apps(st.just("")))
    ports: tuple[PortSpec, ...] = ()
    not_ports: tuple[PortSpec, ...] = ()
    if protocol is not None and not source:
        name = "udp" if protocol in {"udp", 17} else "tcp"
        choice = draw(st.sampled_from(["any", "ports", "ports", "not"]))
        listed = tuple(draw(st.lists(_port(name), min_size=1, max_size=4, unique=True)))
        ports = listed if choice == "ports" else ()
        not_ports = listed if choice == "not" else ()
        if draw(st.integers(0, 9)) == 0:  # more than 15 slots: match blocks
            ports, not_ports = tuple(range(9001, 9020)), ()
    elif protocol is not None and draw(st.integers(0, 4)) == 0:
        # Masquerading draws a port at random from 1024 up: anything narrower would be decided by chance.
        ports = ((1024, 65535),) if draw(st.booleans()) else (999,)
    return Entity(nets, not_nets, selector, not_selector, ports, not_ports)


def _port(protocol: str) -> SearchStrategy[Any]:
    numbers = SERVER_PORTS[protocol]
    return st.one_of(
        st.sampled_from(numbers),
        st.sampled_from([(1, 79), (80, 443), (8000, 9000), (1, 65535)]),
        st.just("http" if protocol == "tcp" else "dns"),
    )


def _all_nets() -> list[str]:
    return [*_NETS[4], *_NETS[6]]


def _namespaces(topology: Topology) -> list[str]:
    return sorted({pod.namespace for pod in topology.pods})


def _selected() -> SearchStrategy[Selector]:
    """What a policy selects: mostly much, so that policies meet flows."""
    apps = st.lists(st.sampled_from(["web", "db", "client"]), min_size=1, max_size=2, unique=True)
    by_app = st.builds(lambda values, negated: Selector("app", tuple(values), negated), apps, st.booleans())
    return st.one_of(st.just(Selector("projectcalico.org/orchestrator", ("k8s",))), by_app)


def _peers(namespaced: bool) -> SearchStrategy[Selector]:
    """Pods by their app; in a global policy also network sets and host endpoints, which have no namespace."""
    pods = _apps(st.sampled_from(["", "red", "blue"]))
    if namespaced:
        return pods
    return st.one_of(pods, st.just(Selector("threat", ("yes",))), st.just(Selector(HOST_LABEL, ("node1", "node2"))))


def _apps(namespace: SearchStrategy[str]) -> SearchStrategy[Selector]:
    apps = st.lists(st.sampled_from(["web", "db", "client", "nobody"]), min_size=1, max_size=2, unique=True)
    return st.builds(lambda values, where: Selector("app", tuple(values), namespace=where), apps, namespace)
