"""The routing decision: rules, tables, longest prefix.

Source: Linux net/core/fib_rules.c, net/ipv4/fib_rules.c, net/ipv4/fib_trie.c, net/ipv6/route.c.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from calico_debug.model.routing import Route
from calico_debug.model.values import Partial
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from calico_debug.model.routing import Network, NextHop, RoutingRule
    from calico_debug.state.node import NodeState
    from calico_debug.walk.choices import Chooser

LOOPBACK = "lo"
MAX_RULE_STEPS = 1_000
BITS = {4: 32, 6: 128}
REFUSED_TYPES = {"blackhole", "unreachable", "prohibit"}
"""Types of routes and actions of rules that end a packet; all but blackhole answer with an ICMP error."""
LOCAL_TYPES = {"local", "broadcast", "anycast"}
"""Route types that deliver to the host itself what comes in."""
ANYWHERE: Mapping[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


@dataclass(frozen=True, slots=True)
class Question:
    """A routing lookup. Addresses are integers; ``incoming`` is "lo" for packets of the host itself."""

    family: int
    destination: int
    source: int
    mark: int | Partial
    incoming: str = LOOPBACK
    outgoing: str = ""


@dataclass(frozen=True, slots=True)
class Way:
    """A route that was found, and which of its next hops is taken (None for local and refused routes)."""

    route: Route
    hop: NextHop | None

    @property
    def type(self) -> str:
        """The route's type."""
        return self.route.type

    @property
    def is_local(self) -> bool:
        """Whether the host takes the packet for itself."""
        return self.route.type in LOCAL_TYPES

    @property
    def interface(self) -> str:
        """The outgoing interface, "" when there is none."""
        return self.hop.interface if self.hop else (self.route.hops[0].interface if self.route.hops else "")

    @property
    def next_hop(self) -> int | None:
        """The gateway as an integer, None when the destination is on the link."""
        return int(self.hop.gateway) if self.hop and self.hop.gateway is not None else None


def refusal(family: int, way: Way | None) -> str:
    """The ICMP error for a packet on its way through that has no way out, "" when it is dropped in silence.

    Source: net/ipv4/route.c (ip_error), net/ipv6/route.c (ip6_pkt_discard, ip6_pkt_prohibit).
    """
    kind = way.type if way is not None else ""
    if kind == "prohibit":
        return "admin-prohibited"
    if kind not in ("", "unreachable"):
        return ""
    if family == 6:
        return "no-route"
    # A rule's "unreachable" is ENETUNREACH, a route's EHOSTUNREACH (fib4_rule_action and fib_props).
    return "host-unreachable" if way is not None and way.route.table else "net-unreachable"


class Table:
    """Routes of one table by prefix length, so that a lookup costs one probe a length."""

    __slots__ = ("_by_length", "_lengths")

    def __init__(self, family: int, routes: Sequence[Route]) -> None:
        """``routes`` as in `Routing.tables`."""
        self._by_length: dict[int, dict[int, list[Route]]] = {}
        for route in routes:
            length = route.destination.prefixlen
            shift = BITS[family] - length
            bucket = self._by_length.setdefault(length, {})
            bucket.setdefault(int(route.destination.network_address) >> shift, []).append(route)
        self._lengths = sorted(((length, BITS[family] - length) for length in self._by_length), reverse=True)
        for bucket in self._by_length.values():
            for same in bucket.values():
                same.sort(key=lambda route: route.metric)

    def matches(self, question: Question) -> Iterator[Route]:
        """Routes that cover the destination, longest prefix first, then by metric."""
        for length, shift in self._lengths:
            for route in self._by_length[length].get(question.destination >> shift, ()):
                if route.source is None or _inside(question.source, route.source):
                    yield route

    def has_equal(self, route: Route) -> bool:
        """Whether another route has the same prefix and metric; every link has one for link-local and multicast."""
        network = route.destination.network_address
        if network.is_link_local or network.is_multicast:
            return False
        length = route.destination.prefixlen
        same = self._by_length[length][int(network) >> (route.destination.max_prefixlen - length)]
        return sum(1 for other in same if (other.metric, other.source) == (route.metric, route.source)) > 1


class Router:
    """Routing decisions of one node."""

    def __init__(self, node: NodeState) -> None:
        """Tables are read when first needed."""
        self._node = node
        self._tables: dict[int, dict[str, Table]] = {}
        self._rules: dict[int, Sequence[RoutingRule]] = {}
        self._cache: dict[Question, Way | None] = {}

    def look_up(self, question: Question, chooser: Chooser | None = None) -> Way | None:
        """The way the kernel takes, None when no table has one. Raises `Undecided`, `EvidenceError`.

        Several next hops are a question to ``chooser``; without one the first is taken (reverse-path lookups, where
        the caller looks at every hop).
        """
        if question in self._cache:
            way = self._cache[question]
        else:
            way = self._cache[question] = self._decide(question)
        if way is None or chooser is None or len(way.route.hops) < 2:
            return way
        alive = [hop for hop in way.route.hops if hop.alive] or list(way.route.hops)
        picked = chooser.choose(Kind.BACKEND, f"route {way.route.destination} has {len(alive)} next hops", len(alive))
        return Way(way.route, alive[picked])

    def _decide(self, question: Question) -> Way | None:
        rules = self._family_rules(question.family)
        position = 0
        for _ in range(MAX_RULE_STEPS):
            if position >= len(rules):
                return None
            rule = rules[position]
            position += 1
            chosen = _selects(rule, question)
            if rule.unknown and (chosen or rule.inverted):
                raise Undecided(
                    f"routing rule {rule.priority} of {self._node.name} has {', '.join(rule.unknown)}, "
                    "which is not understood"
                )
            if not chosen:
                continue
            if rule.action == "goto":
                # A goto whose target does not exist is skipped (net/core/fib_rules.c, FR_ACT_GOTO).
                position = next((i for i, other in enumerate(rules) if other.priority == rule.goto), position)
                continue
            if rule.action in REFUSED_TYPES:
                return Way(Route(ANYWHERE[question.family], "", rule.action), None)
            if rule.action != "lookup":
                continue
            way, thrown = self._in_table(rule, question)
            if way is not None and not thrown:
                return way
        return None

    def _in_table(self, rule: RoutingRule, question: Question) -> tuple[Way | None, bool]:
        table = self.tables(question.family).get(rule.table)
        if table is None:
            return None, False
        for route in table.matches(question):
            if question.family == 6 and table.has_equal(route):
                raise Undecided(
                    f"{self._node.name} has several routes to {route.destination} with metric {route.metric} in table "
                    f"{rule.table}, of which IPv6 picks one by what it knows of the neighbours"
                )
            if route.type == "throw":
                return None, True
            if question.outgoing and route.type == "unicast" and not uses(route, question.outgoing):
                continue
            if route.type not in REFUSED_TYPES and _suppressed(rule, route):
                return None, True
            if route.tos:
                raise Undecided(
                    f"route {route.destination} of {self._node.name} is for one type of service, which was not given"
                )
            if route.unknown:
                raise Undecided(
                    f"route {route.destination} of {self._node.name} has {', '.join(route.unknown)}, "
                    "which is not understood"
                )
            alive = next((hop for hop in route.hops if hop.alive), None)
            if route.type == "unicast" and route.hops and alive is None:
                continue
            return Way(route, alive if route.type == "unicast" else None), False
        return None, False

    def _family_rules(self, family: int) -> Sequence[RoutingRule]:
        if family not in self._rules:
            self._rules[family] = self._node.routing(family).rules
        return self._rules[family]

    def tables(self, family: int) -> Mapping[str, Table]:
        """The node's tables by name. Raises `EvidenceError`."""
        if family not in self._tables:
            tables = self._node.routing(family).tables
            self._tables[family] = {name: Table(family, routes) for name, routes in tables.items()}
        return self._tables[family]


def _selects(rule: RoutingRule, question: Question) -> bool:
    chosen = (
        (rule.source is None or _inside(question.source, rule.source))
        and (rule.destination is None or _inside(question.destination, rule.destination))
        and (not rule.incoming or rule.incoming == question.incoming)
        and (not rule.outgoing or rule.outgoing == question.outgoing)
        and _mark_selects(rule, question.mark)
    )
    return chosen is not rule.inverted


def _suppressed(rule: RoutingRule, route: Route) -> bool:
    return rule.suppress_prefix_length is not None and route.destination.prefixlen <= rule.suppress_prefix_length


def _mark_selects(rule: RoutingRule, mark: int | Partial) -> bool:
    if not rule.mark_mask:
        return True
    if isinstance(mark, Partial):
        if mark.known & rule.mark_mask != rule.mark_mask:
            raise Undecided(f"routing rule {rule.priority} depends on a mark that is open: {mark.why}")
        mark = mark.value
    return mark & rule.mark_mask == rule.mark


def _inside(address: int, network: Network) -> bool:
    base, length = network.network_address, network.prefixlen
    shift = network.max_prefixlen - length
    return address >> shift == int(base) >> shift


def uses(route: Route, interface: str) -> bool:
    """Whether a next hop of the route is behind the interface."""
    return any(hop.interface == interface for hop in route.hops)
