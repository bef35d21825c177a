"""What the network made of a probe, read from its outcome and from the counters that moved. Knows nothing of the walk.

The rules are read from the recorded listing with nothing but json: a denial is a rule that drops and counted. Silence
alone proves nothing where nobody would answer, and a refusal by a closed port is an answer that the network let pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.recordings import Recording

NOBODY = ("198.51.100.", "203.0.113.", "2001:db8:")
"""Documentation addresses: nothing answers there."""
WITHOUT_ENDPOINTS = "ghost"
"""The service of the recorded cluster that has none: a refusal is kube-proxy's."""

NODE2 = ("172.30.0.12", "fd00:30::12")
"""Its own addresses in the recorded cluster."""

KINDS = {"np": "NetworkPolicy", "gnp": "GlobalNetworkPolicy", "knp": "KubernetesNetworkPolicy"}

_POLICY_CHAIN = re.compile(r"(?:filter|mangle|raw)-cali-p[io]-(\w+)/(.+)")
_TIER = re.compile(r"Start of tier (\S+)")


EBPF = "ebpf"


class RuleKey(NamedTuple):
    """A rule of one node. Table families are left out: the recordings have one table of each name that counts.

    A rule of an eBPF program has the table EBPF, no chain, and its id for a handle.
    """

    node: str
    table: str
    chain: str
    handle: int


class PolicyKey(NamedTuple):
    """A policy as its chain names it since v3.32."""

    kind: str
    namespace: str
    name: str


@dataclass(frozen=True)
class Happened:
    """One probe. ``verdict`` is None where the outcome says nothing about the rules (no route, an answer lost)."""

    probe: Mapping[str, Any]
    verdict: str | None
    dropped: frozenset[RuleKey]
    policies: frozenset[PolicyKey]
    tier: str

    @cached_property
    def moved(self) -> frozenset[RuleKey]:
        """Every rule that counted."""
        return frozenset(moved(self.probe))

    def __str__(self) -> str:
        p = self.probe
        return f"{p['src']} -> {p['dst']} ({p['dst_ip']}) {p['dport']}/{p['proto']}: {p['outcome']}"

    @property
    def question(self) -> dict[str, str]:
        """The flow as the command line takes it, by addresses."""
        p = self.probe
        address = p["dst_ip"]
        shown = f"[{address}]" if ":" in address else address
        target = address if p["proto"] == "icmp" else f"{shown}:{p['dport']}"
        protocol = "icmpv6" if (p["proto"], ":" in address) == ("icmp", True) else p["proto"]
        asked = {"source": p["src_ip"], "destination": target, "protocol": protocol}
        if p["src"] == "host/external-client":  # its default route is node1, node2's own address it reaches directly
            asked["via"] = "node2" if address in NODE2 else "node1"
        return asked


class Rules:
    """The recorded rules: which of them drop, and which tier the end of a tier belongs to."""

    def __init__(self, recording: Recording) -> None:
        self.drops: set[RuleKey] = set()
        self.tiers: dict[RuleKey, str] = {}
        for node in recording.source.nodes():
            tier: dict[str, str] = {}
            for entry in recording.json(f"nodes/{node}/nft-ruleset.json")["nftables"]:
                if (rule := entry.get("rule")) is None:
                    continue
                key = RuleKey(node, rule["table"], rule["chain"], rule["handle"])
                if start := _TIER.search(rule.get("comment", "")):
                    tier[rule["chain"]] = start[1]
                if any("drop" in statement for statement in rule["expr"]):
                    self.drops.add(key)
                if "no policies passed" in rule.get("comment", ""):
                    self.tiers[key] = tier[rule["chain"]]


def moved(probe: Mapping[str, Any]) -> Iterator[RuleKey]:
    """The rules that counted while the probe was tried, of the tables that IP packets meet."""
    for node, delta in probe["delta"].items():
        for text in delta:
            kind, place, *more = text.split("|", 3)
            if kind == "rule":
                yield RuleKey(node, EBPF, "", int(place, 16))
            elif kind not in ("calico-arp", "ctr"):
                yield RuleKey(node, kind, place, int(more[0]))


def what_happened(recording: Recording) -> list[Happened]:
    """Every probe of a recording."""
    rules = Rules(recording)
    found = []
    for probe in recording.json("probes.json"):
        dropped = frozenset(key for key in moved(probe) if key in rules.drops)
        policies = frozenset(policy for key in dropped if (policy := _policy(key.chain)) is not None)
        tier = next((rules.tiers[key] for key in dropped if key in rules.tiers), "")
        found.append(Happened(probe, verdict_of(probe, bool(dropped)), dropped, policies, tier))
    return found


def verdict_of(probe: Mapping[str, Any], dropped: bool) -> str | None:
    """What a probe's outcome tells of the rules, where ``dropped`` is whether a denial counted."""
    outcome, ghost = probe["outcome"], WITHOUT_ENDPOINTS in probe["dst"]
    if outcome == "ok":
        return "allowed"
    if outcome == "refused":
        return "rejected" if ghost else "allowed"
    if outcome != "timeout" or (ghost and not dropped):
        return None  # no way there from the source itself; or the refusal was lost, which looks like silence
    if probe["dst_ip"].startswith(NOBODY):
        return "denied" if dropped else "allowed"
    return "denied"


def _policy(chain: str) -> PolicyKey | None:
    if (found := _POLICY_CHAIN.fullmatch(chain)) is None:
        return None
    namespace, _, name = found[2].rpartition("/")
    return PolicyKey(KINDS[found[1]], namespace, name)
