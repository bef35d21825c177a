"""Policy programs, IP sets and probes of recorded eBPF nodes, read as simply as possible."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest

from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.evidence.source import NodeEvidence
from calico_debug.model.bytecode import PolicyDebug, Program
from calico_debug.state.cluster import load_cluster
from calico_debug.walk.bpf_policy import PolicyProgram, Verdict, policy_of_debug
from calico_debug.walk.bpf_sets import KEY_BYTES, PrefixTrie
from calico_debug.walk.bpf_state import PolicyPacket
from calico_debug.walk.choices import Chooser, Unsure
from tests.recordings import Recording, recordings

NONE_HERE = "no recordings of eBPF nodes: set CALICO_DEBUG_RECORDINGS to their directory"
RECORDED = pytest.mark.parametrize(
    "recording",
    recordings("-bpf") or [pytest.param(None, marks=pytest.mark.skip(reason=NONE_HERE))],
    ids=lambda recording: recording.name if recording else "none",
)
FOLDER = "var-run-calico-bpf/policy/"
ICMP_ECHO = {4: (1, 8), 6: (58, 128)}
ACCEPTED, DROPPED = "2", "4"
"""Cells of cali_counters6: accepted and dropped by policy."""


def octets(words: list[str]) -> bytes:
    return bytes(int(word, 16) for word in words)


class RecordedNode:
    """One node's policy programs and what they look up."""

    def __init__(self, evidence: NodeEvidence) -> None:
        self.evidence = evidence
        self._programs: dict[tuple[str, str, int], PolicyProgram] = {}

    def json(self, file: str) -> Any:
        return json.loads(self.evidence.read(file))

    def debug_files(self) -> Iterator[tuple[str, PolicyDebug]]:
        for file in self.evidence.files():
            if file.startswith(FOLDER):
                yield (
                    file.removeprefix(FOLDER).removesuffix(".json"),
                    decode_policy_debug(self.evidence.read(file), file),
                )

    def program(self, interface: str, direction: str, version: int) -> PolicyProgram:
        key = (interface, direction, version)
        if key not in self._programs:
            file = f"{FOLDER}{interface}_{direction}_v{version}.json"
            debug = decode_policy_debug(self.evidence.read(file), file)
            self._programs[key] = policy_of_debug(debug, version)
        return self._programs[key]

    @cached_property
    def tries(self) -> dict[int, PrefixTrie]:
        found = {}
        for version, size in KEY_BYTES.items():
            file = f"bpf/map-cali_v{version}_ip_sets.json"
            if file in self.evidence.files():
                found[version] = PrefixTrie(size, [octets(entry["key"]) for entry in self.json(file)])
        return found

    def in_ip_set(self, version: int, key: bytes, known: bytes) -> bool | Unsure:
        return self.tries[version].contains(key, known)

    def sub_program(self, index: int) -> Program | None:
        raise AssertionError(index)

    @cached_property
    def names(self) -> dict[int, str]:
        return {link["ifindex"]: link["ifname"] for link in self.json("ip-link.json")}

    @cached_property
    def pod_addresses(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for file in ("ip-route-all.json", "ip6-route-all.json"):
            for route in self.json(file) if file in self.evidence.files() else ():
                if (
                    route.get("dev", "").startswith("cali")
                    and route.get("type", "unicast") == "unicast"
                    and "/" not in route["dst"]
                ):
                    found.setdefault(route["dev"], set()).add(int(ip_address(route["dst"])))
        return found

    @cached_property
    def addresses(self) -> tuple[str, ...]:
        listed = [
            entry["local"]
            for link in self.json("ip-addr.json")
            if link["ifname"] != "lo"
            for entry in link["addr_info"]
        ]
        return tuple(address for address in listed if not address.startswith("fe80"))


@dataclass(frozen=True)
class Moved:
    """What one probe moved on one node: rule counters, and (interface index, tc hook, accepted, packets)."""

    rules: Counter[int]
    hooks: tuple[tuple[int, int, bool, int], ...]


class RecordedCluster:
    def __init__(self, recording: Recording) -> None:
        self.version = 6 if "-v6-" in recording.name else 4
        self.nodes = {name: RecordedNode(recording.source.node(name)) for name in recording.source.nodes()}
        self.state = load_cluster(recording.source)
        self.probes: list[dict[str, Any]] = recording.json("probes.json")

    def moved(self, probe: dict[str, Any], node: str) -> Moved:
        rules: Counter[int] = Counter()
        hooks = []
        for key, count in probe["delta"].get(node, {}).items():
            kind, *rest = key.split("|")
            if kind == "rule":
                rules[int(rest[0], 16)] += count
            elif rest[2] in (ACCEPTED, DROPPED):
                hooks.append((int(rest[0][2:]), int(rest[1][4:]), rest[2] == ACCEPTED, count))
        return Moved(rules, tuple(hooks))

    def packets(self, probe: dict[str, Any], node: str) -> Iterator[PolicyPacket]:
        """What the packet can look like where policy met it: with each backend of a service, masqueraded or not."""
        protocol, port = {"tcp": (6, probe["dport"]), "udp": (17, probe["dport"])}.get(
            probe["proto"], ICMP_ECHO[self.version]
        )
        here = self.nodes[node].addresses
        sources = [probe["src_ip"], *(address for other in self.nodes.values() for address in other.addresses)]
        for source, (address, backend_port) in product(sources, self._ends(probe["dst_ip"], port, probe["proto"])):
            if (":" in source) != (self.version == 6) or (":" in address) != (self.version == 6):
                continue
            yield PolicyPacket(
                self.version,
                protocol,
                int(ip_address(source)),
                int(ip_address(address)),
                probe["sport"] or 0,
                backend_port,
                int(ip_address(probe["dst_ip"])),
                port,
                source in here,
                address in here,
            )

    def _ends(self, address: str, port: int, protocol: str) -> list[tuple[str, int]]:
        named = protocol.upper()
        found = self.state.service_by_address(ip_address(address), port, named)
        service, service_port = found or self.state.service_by_node_port(port, named) or (None, None)
        if service is None or service_port is None:
            return [(address, port)]
        backends = [one for one in service.backends if one.port_name == service_port.name]
        return [(str(backend.address), backend.port) for backend in backends] or [(address, port)]

    def own_hooks(self, node: str, packets: list[PolicyPacket], moved: Moved) -> tuple[tuple[int, int, bool, int], ...]:
        """Those hooks that are not another pod's: now and then another flow was under way during a probe."""
        ends = {address for packet in packets for address in (packet.source, packet.destination)}
        pods, names = self.nodes[node].pod_addresses, self.nodes[node].names
        return tuple(hook for hook in moved.hooks if names[hook[0]] not in pods or pods[names[hook[0]]] & ends)

    def predicted(
        self, node: str, packet: PolicyPacket, hook: tuple[int, int, bool, int]
    ) -> tuple[bool, tuple[int, ...]]:
        """Whether the interface's program lets the packet pass, and the ids it notes."""
        index, tc_hook, _, _ = hook
        interface = self.nodes[node].names[index]
        inward = tc_hook == 1 if interface.startswith("cali") else tc_hook == 0
        program = self.nodes[node].program(interface, "ingress" if inward else "egress", self.version)
        run = program.run(packet, self.nodes[node], Chooser())
        return run.verdict is Verdict.ALLOWED, run.rule_ids

    def agrees(
        self, node: str, packet: PolicyPacket, moved: Moved, hooks: tuple[tuple[int, int, bool, int], ...]
    ) -> bool:
        """Whether the programs at ``hooks`` give the recorded verdicts and move the recorded counters and no others."""
        total: Counter[int] = Counter()
        for hook in hooks:
            accepted, ids = self.predicted(node, packet, hook)
            if accepted != hook[2]:
                return False
            for one in ids:
                total[one] += hook[3]
        return total == moved.rules if hooks == moved.hooks else total <= moved.rules
