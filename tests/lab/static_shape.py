"""Chains that do not depend on policy: base chains, those of the hooks, failsafes (felix/rules/static.go)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.lab.endpoint_shape import ANY_INTERFACE, UNKNOWN_INTERFACE, dispatch_tree
from tests.lab.rules import NftRule, both, clear_mark, is_clear, is_set, set_mark
from tests.lab.topology import POOL_V4, POOL_V6, VXLAN_PORT

if TYPE_CHECKING:
    from tests.lab.model import HostEndpoint, Node, Pod
    from tests.lab.policy_shape import Context
    from tests.lab.rules import Chains

BASE_CHAINS = {
    # felix/nftables/table.go: name -> (type, hook, priority)
    "filter-INPUT": ("filter", "input", "0"),
    "filter-FORWARD": ("filter", "forward", "0"),
    "filter-OUTPUT": ("filter", "output", "0"),
    "nat-PREROUTING": ("nat", "prerouting", "-100"),
    "nat-INPUT": ("nat", "input", "-100"),
    "nat-OUTPUT": ("nat", "output", "110"),
    "nat-POSTROUTING": ("nat", "postrouting", "110"),
    "mangle-PREROUTING": ("filter", "prerouting", "-150"),
    "mangle-INPUT": ("filter", "input", "-150"),
    "mangle-FORWARD": ("filter", "forward", "-150"),
    "mangle-OUTPUT": ("route", "output", "-150"),
    "mangle-POSTROUTING": ("filter", "postrouting", "-150"),
    "raw-PREROUTING": ("filter", "prerouting", "-300"),
    "raw-OUTPUT": ("filter", "output", "-300"),
}
_EMPTY_BASE = {"nat-INPUT", "mangle-INPUT", "mangle-FORWARD", "mangle-OUTPUT"}
_NEIGHBOUR_TYPES = (130, 131, 132, 133, 135, 136)
_ACCEPTED = "Host endpoint policy accepted packet."
_HOST_DISPATCH = {
    "cali-from-host-endpoint": ("iifname", "cali-fh-"),
    "cali-to-host-endpoint": ("oifname", "cali-th-"),
    "cali-from-hep-forward": ("iifname", "cali-fhfw-"),
    "cali-to-hep-forward": ("oifname", "cali-thfw-"),
}


class StaticShape:
    """Adds the static chains of one node and address family to ``chains``."""

    def __init__(self, context: Context, chains: Chains, node: Node) -> None:
        self.context = context
        self.chains = chains
        self.node = node
        self.felix = context.sets.model.felix
        self.marks = context.marks
        self.ip = context.family
        self.vxlan = self.felix.vxlan and context.version == 4
        prefixes = sorted({pod.prefix for pod in context.sets.topology.pods})
        assert len(prefixes) == 1, "the lab has one prefix of interfaces"
        self.workloads = f"{prefixes[0]}*"

    def base_rules(self, name: str) -> list[NftRule]:
        """The rules of a base chain."""
        if name in _EMPTY_BASE:
            return []
        jump = NftRule("", f"jump cali-{name.partition('-')[2]}")
        if name != "filter-FORWARD":
            return [jump]
        accept = NftRule(is_set(self.marks.accept), self._allow(), ("Policy explicitly accepted packet.",))
        return [jump, accept, NftRule("", set_mark(self.marks.accept))]

    def add(self) -> None:
        self._raw()
        self._mangle()
        self._nat()
        self._filter()
        self._failsafes()

    def _allow(self) -> str:
        return self.felix.allow_action.lower()

    def _accepted(self, action: str, *texts: str) -> NftRule:
        return NftRule(is_set(self.marks.accept), action, texts)

    def _clear_all(self) -> NftRule:
        return NftRule("", clear_mark(self.marks.all))

    def _static(self, identity: str, elements: list[str], *, interval: bool = True) -> str:
        return self.context.sets.static(identity, elements, interval=interval)

    @property
    def _pools(self) -> str:
        return self._static("network-ip-pools", [POOL_V4 if self.context.version == 4 else POOL_V6])

    # --------------------------------------------------------------------------------------------------- hooks

    def _raw(self) -> None:
        from_workload = is_set(self.marks.scratch0)
        rpf = both(from_workload, "fib saddr . mark . iif oif 0")
        vxlan = [NftRule(f"meta l4proto 17 udp dport {{ {VXLAN_PORT} }}", "notrack")] if self.vxlan else []
        self.chains.add(
            "raw",
            "cali-PREROUTING",
            [
                self._clear_all(),
                *vxlan,
                NftRule(f'iifname "{self.workloads}"', set_mark(self.marks.scratch0)),
                NftRule(from_workload, "jump cali-rpf-skip"),
                NftRule(rpf, self.context.deny),
                NftRule(is_clear(self.marks.scratch0), "jump cali-from-host-endpoint"),
                self._accepted("accept"),
            ],
        )
        output = [self._clear_all(), NftRule("", "jump cali-to-host-endpoint"), *vxlan, self._accepted("accept")]
        self.chains.add("raw", "cali-OUTPUT", output)
        self.chains.add("raw", "cali-rpf-skip", [])

    def _mangle(self) -> None:
        self.chains.add(
            "mangle",
            "cali-PREROUTING",
            [
                NftRule("ct state related,established", "accept"),
                self._accepted("accept"),
                NftRule("", "jump cali-from-host-endpoint"),
                self._accepted("accept", _ACCEPTED),
            ],
        )
        postrouting = [
            self._accepted("return"),
            self._clear_all(),
            NftRule("ct status dnat", "jump cali-to-host-endpoint"),
            self._accepted("return", _ACCEPTED),
        ]
        if self.felix.release in {"v3.31", "v3.32"}:
            sources, here = self._static("dscp-src-net", []), self._this_host()
            outside = f"{self.ip} daddr != @{self._pools} {self.ip} daddr != @{here}"
            match = f"{self.ip} saddr @{sources} {outside}"
            text = "set dscp for traffic leaving cluster."
            postrouting.insert(0, NftRule(match, "jump cali-egress-dscp", (text,)))
            self.chains.add("mangle", "cali-egress-dscp", [])
        self.chains.add("mangle", "cali-POSTROUTING", postrouting)

    def _this_host(self) -> str:
        loopback = ["127.0.0.0", "127.0.0.1"] if self.context.version == 4 else ["::1"]
        own = [self.node.address(self.context.version)]
        if self.vxlan and self.node.tunnel:
            own.append(self.node.tunnel)
        return self._static("this-host", [*loopback, *own], interval=False)

    def _nat(self) -> None:
        for hook in ("PREROUTING", "OUTPUT"):
            self.chains.add("nat", f"cali-{hook}", [NftRule("", "jump cali-fip-dnat")])
        postrouting = [NftRule("", "jump cali-fip-snat"), NftRule("", "jump cali-nat-outgoing")]
        if self.vxlan:
            match = 'oifname "vxlan.calico" fib saddr . oif type != local fib saddr type local'
            postrouting.append(NftRule(match, "masquerade fully-random"))
        self.chains.add("nat", "cali-POSTROUTING", postrouting)
        self.chains.add("nat", "cali-fip-dnat", [])
        self.chains.add("nat", "cali-fip-snat", [])
        outgoing = []
        if self.felix.nat_outgoing:
            masqueraded = self._static("masq-ipam-pools", [POOL_V4 if self.context.version == 4 else POOL_V6])
            match = f"{self.ip} saddr @{masqueraded} {self.ip} daddr != @{self._pools}"
            outgoing.append(NftRule(match, "masquerade fully-random"))
        self.chains.add("nat", "cali-nat-outgoing", outgoing)

    def _filter(self) -> None:
        cidr_block = [
            NftRule(f"{self.ip} daddr {net}", self.context.deny)
            for net in self.felix.service_cidrs_blocked
            if (":" in net) == (self.context.version == 6)
        ]
        self.chains.add("filter", "cali-cidr-block", cidr_block)
        self.chains.add(
            "filter",
            "cali-FORWARD",
            [
                NftRule("", clear_mark(self.marks.all & ~self.marks.accept)),
                NftRule(is_clear(self.marks.accept), "jump cali-from-hep-forward"),
                NftRule(f'iifname "{self.workloads}"', "jump cali-from-wl-dispatch"),
                NftRule(f'oifname "{self.workloads}"', "jump cali-to-wl-dispatch"),
                NftRule("", "jump cali-to-hep-forward"),
                NftRule("", "jump cali-cidr-block"),
            ],
        )
        self.chains.add(
            "filter",
            "cali-INPUT",
            [
                *self._vxlan_in(),
                NftRule(f'iifname "{self.workloads}"', "goto cali-wl-to-host"),
                self._accepted(self._allow()),
                self._clear_all(),
                NftRule("", "jump cali-from-host-endpoint"),
                self._accepted(self._allow(), _ACCEPTED),
            ],
        )
        self.chains.add(
            "filter",
            "cali-OUTPUT",
            [
                self._accepted(self._allow()),
                NftRule(f'oifname "{self.workloads}"', "return"),
                *self._vxlan_out(),
                self._clear_all(),
                NftRule("ct status != dnat", "jump cali-to-host-endpoint"),
                self._accepted(self._allow(), _ACCEPTED),
            ],
        )
        neighbours = [NftRule(f"meta l4proto 58 icmpv6 type {kind}", self._allow()) for kind in _NEIGHBOUR_TYPES]
        configured = NftRule("", self.felix.endpoint_to_host.lower(), ("Configured DefaultEndpointToHostAction",))
        dispatch = NftRule("", "jump cali-from-wl-dispatch")
        self.chains.add(
            "filter", "cali-wl-to-host", [*(neighbours if self.context.version == 6 else ()), dispatch, configured]
        )

    def _vxlan_in(self) -> list[NftRule]:
        if not self.vxlan:
            return []
        port, local = f"meta l4proto 17 udp dport {{ {VXLAN_PORT} }}", "fib daddr type local"
        allowed = f"{port} {self.ip} saddr @{self._vxlan_hosts()} {local}"
        return [
            NftRule(allowed, self._allow(), ("Allow IPv4 VXLAN packets from allowed hosts",)),
            NftRule(f"{port} {local}", "drop", ("Drop IPv4 VXLAN packets from non-allowed hosts",)),
        ]

    def _vxlan_out(self) -> list[NftRule]:
        if not self.vxlan:
            return []
        match = (
            f"meta l4proto 17 udp dport {{ {VXLAN_PORT} }} fib saddr type local {self.ip} daddr @{self._vxlan_hosts()}"
        )
        return [NftRule(match, self._allow(), ("Allow IPv4 VXLAN packets to other allowed hosts",))]

    def _vxlan_hosts(self) -> str:
        others = [node.v4 for node in self.context.sets.topology.nodes if node != self.node]
        return self._static("all-vxlan-net", others)

    def _failsafes(self) -> None:
        for name, ports in (("in", self.felix.failsafe_in), ("out", self.felix.failsafe_out)):
            number = {"tcp": 6, "udp": 17}
            rules = [
                NftRule(f"meta l4proto {number[proto]} {proto} dport {{ {port} }}", "accept") for proto, port in ports
            ]
            self.chains.add("filter", f"cali-failsafe-{name}", rules)
            self.chains.add("mangle", f"cali-failsafe-{name}", rules)
            other = self.felix.failsafe_out if name == "in" else self.felix.failsafe_in
            replies = [
                NftRule(f"meta l4proto {number[proto]} {proto} sport {{ {port} }}", "accept") for proto, port in other
            ]
            self.chains.add("raw", f"cali-failsafe-{name}", rules + replies)

    # ------------------------------------------------------------------------------------------------ dispatch

    def workload_dispatch(self, pods: list[Pod]) -> None:
        """Verdict maps named like the chains; a tree of chains in v3.29."""
        unknown = NftRule("", self.context.deny, (UNKNOWN_INTERFACE,))
        for name, match, prefix in (
            ("cali-from-wl-dispatch", "iifname", "cali-fw-"),
            ("cali-to-wl-dispatch", "oifname", "cali-tw-"),
        ):
            if self.felix.release == "v3.29":
                interfaces = [pod.interface for pod in pods]
                for chain, rules in dispatch_tree(name, interfaces, match, prefix, [unknown]).items():
                    self.chains.add("filter", chain, rules)
            else:
                self.chains.add("filter", name, [NftRule(f"{match} vmap @filter-{name}"), unknown])

    def host_dispatch(self, endpoints: list[HostEndpoint]) -> None:
        for layer in ("filter", "mangle", "raw"):
            for name, (match, prefix) in _HOST_DISPATCH.items():
                if name.endswith("forward") and layer != "filter":
                    continue
                existing = self.chains.by_layer[layer]
                named = [e.interface for e in endpoints if f"{prefix}{e.interface}" in existing]
                end = []
                if f"{prefix}{ANY_INTERFACE}" in existing:
                    end.append(NftRule("", f"goto {prefix}{ANY_INTERFACE}"))
                    if name == "cali-to-host-endpoint" and layer in {"filter", "mangle"}:
                        text = "Skip egress WHEP policy for traffic to local workload"
                        end.insert(0, NftRule(f'oifname "{self.workloads}"', "return", (text,)))
                for chain, rules in dispatch_tree(name, named, match, prefix, end).items():
                    self.chains.add(layer, chain, rules)
