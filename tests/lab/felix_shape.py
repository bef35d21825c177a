"""A node's tables as Felix programs them: ``table ip calico``, ``table ip6 calico`` and ``table arp calico-arp``.

Our own rendering of the public rules of the format (felix/rules, felix/nftables of Calico v3.29 to v3.32); a test
compares it with chains that the real Felix v3.32.1 programmed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.endpoint_shape import EndpointShape
from tests.lab.policy_shape import Context
from tests.lab.rules import Chains, Marks, NftRule, chain_text
from tests.lab.sets import Sets
from tests.lab.static_shape import BASE_CHAINS, StaticShape

if TYPE_CHECKING:
    from tests.lab.model import Model, Node, Pod
    from tests.lab.topology import Topology


def felix_text(topology: Topology, model: Model, node: Node) -> str:
    """All of Felix's tables of a node, as nft text. A table that exists is replaced."""
    texts = [_calico_table(topology, model, node, version) for version in topology.versions]
    if model.felix.release == "v3.32":
        texts.append(_arp_table(topology.pods_of(node.name)))
    return "\n".join(texts)


def replaced(family: str, table: str, body: list[str]) -> str:
    """A table's text that replaces what was there, in one transaction."""
    return "\n".join(
        [f"table {family} {table}", f"delete table {family} {table}", f"table {family} {table} {{", *body, "}"]
    )


def _calico_table(topology: Topology, model: Model, node: Node, version: int) -> str:
    sets = Sets(topology, model, version)
    context = Context(sets, Marks.of(model.felix), model.felix.deny_action.lower())
    chains = Chains()
    pods = topology.pods_of(node.name)
    endpoints = EndpointShape(context, chains)
    static = StaticShape(context, chains, node)
    static.add()
    for pod in pods:
        endpoints.workload(pod)
    here = [endpoint for endpoint in model.host_endpoints if endpoint.node == node.name]
    for endpoint in here:
        endpoints.host(endpoint)
    static.workload_dispatch(pods)
    static.host_dispatch(here)

    maps = _dispatch_maps(pods) if model.felix.release != "v3.29" else []
    bodies = []
    for full in BASE_CHAINS:
        kind, hook, priority = BASE_CHAINS[full]
        header = f"type {kind} hook {hook} priority {priority}; policy accept;"
        bodies.append(chain_text(full, full.partition("-")[0], static.base_rules(full), header))
    for layer, by_name in chains.by_layer.items():
        roots = [
            rule.target
            for full in BASE_CHAINS
            if full.startswith(f"{layer}-")
            for rule in static.base_rules(full)
            if rule.target
        ]
        if layer == "filter" and maps:
            roots += [prefix + pod.interface for pod in pods for prefix in ("cali-tw-", "cali-fw-")]
        bodies += [chain_text(f"{layer}-{name}", layer, by_name[name]) for name in sorted(chains.reached(layer, roots))]
    used = "\n".join(bodies)
    members = [nft_set.text() for name, nft_set in sets.by_name.items() if f"@{name} " in used]
    return replaced(context.family, "calico", [*members, *maps, *bodies])


def _dispatch_maps(pods: list[Pod]) -> list[str]:
    return [
        _map(f"filter-cali-{way}-wl-dispatch", {p.interface: f"goto filter-cali-{prefix}-{p.interface}" for p in pods})
        for way, prefix in (("from", "fw"), ("to", "tw"))
    ]


def _map(name: str, elements: dict[str, str]) -> str:
    listed = ", ".join(f'"{key}" : {verdict}' for key, verdict in elements.items())
    content = [f"    elements = {{ {listed} }}"] if elements else []
    return "\n".join([f"  map {name} {{", "    type ifname : verdict", *content, "  }"])


def _arp_table(pods: list[Pod]) -> str:
    """v3.32: no ARP reply into a pod that claims the pod's own address."""
    name = "cali-arp-dispatch"
    bodies = [_map(f"filter-{name}", {p.interface: f"goto filter-cali-arp-{p.interface}" for p in pods})]
    header = "type filter hook output priority 0; policy accept;"
    bodies.append(chain_text("filter-OUTPUT", "filter", [NftRule("", f"jump {name}")], header))
    bodies.append(chain_text(f"filter-{name}", "filter", [NftRule(f"oifname vmap @filter-{name}")]))
    for pod in pods:
        match = f'oifname "{pod.interface}" arp operation reply arp saddr ip {pod.v4}'
        bodies.append(chain_text(f"filter-cali-arp-{pod.interface}", "filter", [NftRule(match, "drop")]))
    return replaced("arp", "calico-arp", bodies)
