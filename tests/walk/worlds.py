"""Nodes made up in a test: a ruleset of model objects, interfaces, addresses and routes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.model.conntrack import STATE_BITS
from calico_debug.model.nft import Chain, Counter, Element, Hook, Rule, SetContent
from calico_debug.state.node import NodeState
from calico_debug.state.ruleset import ElementIndex
from calico_debug.walk.choices import Chooser
from calico_debug.walk.context import Context, Trace
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import TCP, Packet, Tracking
from calico_debug.walk.routing import Router
from calico_debug.walk.statements import StatementCompiler
from calico_debug.walk.surroundings import NodeSurroundings
from tests.evidence.memory import MemoryNode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calico_debug.model.nft import Statement

CLIENT, SERVER, OWN, SERVICE = 0x0A010002, 0x0A020002, 0x0A010001, 0x0A600001
"""10.1.0.2, 10.2.0.2, 10.1.0.1 and 10.96.0.1."""

LINKS = [{"ifname": name, "ifindex": index, "flags": ["UP"]} for index, name in enumerate(("lo", "eth-c", "eth-s"), 1)]
ADDRESSES = [
    {
        "ifname": "lo",
        "ifindex": 1,
        "addr_info": [{"family": "inet", "local": "127.0.0.1", "prefixlen": 8, "scope": "host"}],
    },
    {
        "ifname": "eth-c",
        "ifindex": 2,
        "addr_info": [{"family": "inet", "local": "10.1.0.1", "prefixlen": 24, "scope": "global"}],
    },
    {
        "ifname": "eth-s",
        "ifindex": 3,
        "addr_info": [{"family": "inet", "local": "10.2.0.1", "prefixlen": 24, "scope": "global"}],
    },
]
ROUTES = [
    {"dst": "default", "gateway": "10.2.0.254", "dev": "eth-s"},
    {"dst": "10.1.0.0/24", "dev": "eth-c", "scope": "link", "prefsrc": "10.1.0.1"},
    {"dst": "10.2.0.0/24", "dev": "eth-s", "scope": "link", "prefsrc": "10.2.0.1"},
    {"type": "local", "dst": "127.0.0.0/8", "dev": "lo", "table": "local", "scope": "host"},
    {"type": "local", "dst": "10.1.0.1", "dev": "eth-c", "table": "local", "scope": "host"},
    {"type": "local", "dst": "10.2.0.1", "dev": "eth-s", "table": "local", "scope": "host"},
    {"type": "broadcast", "dst": "10.1.0.255", "dev": "eth-c", "table": "local", "scope": "link"},
]


@dataclass
class Rules:
    """Implements `calico_debug.model.nft.Ruleset` over chains added one by one."""

    chains: dict[tuple[str, str, str], Chain] = field(default_factory=dict)
    content: dict[tuple[str, str, str], list[Rule]] = field(default_factory=dict)
    sets: dict[tuple[str, str, str], SetContent] = field(default_factory=dict)

    def chain(
        self, name: str, *rules: Sequence[Statement], hook: Hook | None = None, family: str = "ip", table: str = "t"
    ) -> Rules:
        """Add a chain; each rule is its statements."""
        key = (family, table, name)
        self.chains[key] = Chain(family, table, name, len(self.chains) + 1, hook)
        self.content[key] = [Rule(family, table, name, n, tuple(r)) for n, r in enumerate(rules, 1)]
        return self

    def tables(self) -> Sequence[tuple[str, str]]:
        return list(dict.fromkeys((family, table) for family, table, _ in self.chains))

    def base_chains(self) -> Sequence[Chain]:
        return [chain for chain in self.chains.values() if chain.hook is not None]

    def rules(self, family: str, table: str, chain: str) -> Sequence[Rule] | None:
        return self.content.get((family, table, chain))

    def elements(self, family: str, table: str, name: str) -> SetContent | None:
        return self.sets.get((family, table, name))

    def find(self, family: str, table: str, name: str, key: object) -> Element | None:
        return ElementIndex(self.sets[family, table, name]).find(key)  # type: ignore[arg-type]


def files(
    routes: Sequence[Mapping[str, object]] = (), rules: Sequence[Mapping[str, object]] = (), sysctl: str = ""
) -> dict[str, str]:
    """Evidence of a router between two networks; ``routes`` and ``rules`` come on top of its own."""
    defaults = [{"priority": 0, "src": "all", "table": "local"}, {"priority": 32766, "src": "all", "table": "main"}]
    return {
        "ip-link.json": json.dumps(LINKS),
        "ip-addr.json": json.dumps(ADDRESSES),
        "ip-route-all.json": json.dumps([*ROUTES, *routes]),
        "ip-rule.json": json.dumps([*defaults, *rules]),
        "sysctl.txt": f"net.ipv4.ip_forward = 1\n{sysctl}",
        "nft-ruleset.json": '{"nftables": [{"metainfo": {"json_schema_version": 1}}]}',
    }


def state(**given: object) -> NodeState:
    """The router's state; arguments as for `files`."""
    return NodeState(MemoryNode(files(**given), "node1"))  # type: ignore[arg-type]


def walker(ruleset: Rules, **given: object) -> NodeWalker:
    """The router with these rules."""
    made = state(**given)
    made.__dict__["ruleset"] = ruleset
    return NodeWalker(made)


def packet(source: int = CLIENT, destination: int = SERVER, protocol: int = TCP, dport: int = 80) -> Packet:
    """A packet with ports."""
    return Packet(4, protocol, source, destination, 20_000, dport)


def context(about: Packet | None = None, chooser: Chooser | None = None) -> Context:
    """What compiled rules run in."""
    made = state()
    return Context(about or packet(), chooser or Chooser(), Trace(), NodeSurroundings(made, Router(made)))


def counted(rules: Sequence[Rule]) -> Iterator[tuple[str, int]]:
    """Chain and handle of rules, in order."""
    return ((rule.chain, rule.handle) for rule in rules)


COUNT = Counter()


def run(statement: object, about: Context | None = None, rules: Rules | None = None, family: str = "ip") -> object:
    """What one statement makes of a packet."""
    rule = Rule("ip", "t", "c", 1, ())
    return StatementCompiler(rules or Rules(), family, "t").compile(statement, rule)(about or context())  # type: ignore[arg-type]


def tracked() -> Context:
    """A packet of a connection that is new."""
    about = context()
    ends = about.packet.ends()
    about.packet.tracking = Tracking(STATE_BITS["new"], ends, type(ends)(SERVER, CLIENT, 80, 20_000))
    return about


def elements(*keys: int, data: object = None) -> SetContent:
    """A set of these, or with ``data`` a map."""
    return SetContent((32,), {key: Element(key, data) for key in keys}, is_map=data is not None)  # type: ignore[arg-type]
