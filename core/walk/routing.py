"""The routing decision: rules, tables, longest prefix, and the checks on the way in.

Source: Linux net/core/fib_rules.c, net/ipv4/fib_rules.c, net/ipv4/fib_trie.c, net/ipv4/fib_frontend.c
(fib_validate_source), net/ipv4/route.c (ip_route_input_slow), net/ipv6/route.c; sysctls: Documentation/networking/
ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from calico_debug.model.routing import Route, address_from_int
from calico_debug.model.values import Partial
from calico_debug.walk.choices import Kind
from calico_debug.walk.context import Undecided

if TYPE_CHECKING:
    from calico_debug.model.routing import Interface, InterfaceAddress, Network, NextHop, RoutingRule
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


def unreceivable(family: int, source: int, destination: int, via: str) -> str:
    """Why the kernel discards a packet that arrived, before any hook of its protocol; "" when it does not.

    Source: net/ipv6/ip6_input.c, ip6_rcv_core (RFC 4291, 2.5.3 and 2.7). IPv4 has no such check of addresses.
    """
    if family != 6 or via == LOOPBACK:
        return ""
    for end, address in (("source", source), ("destination", destination)):
        if address == 1:
            return f"{end} ::1 is the loopback address, which no packet from outside may carry"
    shown = address_from_int(6, source)
    return f"source {shown} is a multicast address" if shown.is_multicast else ""


class _Table:
    """Routes of one table by prefix length, so that a lookup costs one probe a length."""

    __slots__ = ("_by_length", "_lengths")

    def __init__(self, family: int, routes: Sequence[Route]) -> None:
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
        self._tables: dict[int, dict[str, _Table]] = {}
        self._rules: dict[int, Sequence[RoutingRule]] = {}
        self._cache: dict[Question, Way | None] = {}

    # ------------------------------------------------------------------------------------------------- decisions

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
        table = self._family_tables(question.family).get(rule.table)
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
            if question.outgoing and route.type == "unicast" and not _uses(route, question.outgoing):
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

    def _family_tables(self, family: int) -> Mapping[str, _Table]:
        if family not in self._tables:
            tables = self._node.routing(family).tables
            self._tables[family] = {name: _Table(family, routes) for name, routes in tables.items()}
        return self._tables[family]

    # -------------------------------------------------------------------------------------------- on the way in

    def martian(self, family: int, source: int, destination: int, via: str) -> str:
        """Why addresses make the kernel discard a packet before it is routed; "" when they do not.

        Source: net/ipv4/route.c, ip_route_input_slow.
        """
        if family != 4 or via == LOOPBACK:
            return ""
        failure = self.lent_loopback(4, source, via) or self.lent_loopback(4, destination, via, "destination")
        if failure:
            return failure
        shown = address_from_int(4, source)
        return f"source {shown} is no host's address" if shown.is_multicast or source in (0, 0xFFFFFFFF) else ""

    def lent_loopback(self, family: int, address: int, interface: str, end: str = "source") -> str:
        """Why a loopback address (127.0.0.0/8) may not be used on an interface; "" when it is none, or may.

        Source: net/ipv4/route.c, ip_route_input_slow, and __mkroute_output for packets of the host itself.
        """
        if family != 4 or interface == LOOPBACK or address >> 24 != 127:
            return ""
        if any(self._setting("all", interface, "route_localnet")):
            return ""
        return f"{end} {address_from_int(4, address)} is a loopback address (route_localnet of {interface} is 0)"

    def reverse_path_failure(
        self, family: int, source: int, destination: int, mark: int | Partial, via: str, leaving: str = LOOPBACK
    ) -> str:
        """Why the kernel's own source check refuses a packet that came in through ``via``; "" when it does not.

        ``leaving`` is the interface that the packet would go on through: the check asks for the way of an answer, which
        comes in there. IPv4 only: IPv6 has no rp_filter (its checks are rules of the firewall). Source:
        net/ipv4/fib_frontend.c, fib_validate_source.
        """
        if family != 4:
            return ""
        strict = max(self._setting("all", via, "rp_filter"))
        accept_local = any(self._setting("all", via, "accept_local"))
        if strict == 0 and accept_local:
            return ""
        checked_mark = mark if any(self._setting("all", via, "src_valid_mark")) else 0
        way = self.look_up(Question(family, source, destination, checked_mark, leaving))
        shown = address_from_int(family, source)
        kind = "" if way is None or way.type in REFUSED_TYPES else way.type
        if kind == "local" and not accept_local:
            return f"source {shown} is an address of {self._node.name} itself"
        if kind in ("broadcast", "multicast"):
            return f"source {shown} is a {kind} address"
        if strict == 0 or (kind == "local" and via == LOOPBACK):
            return ""
        if way is None or not kind:
            return f"{self._node.name} has no route back to {shown} (rp_filter of {via} is {strict})"
        if _uses(way.route, via):
            return ""
        if strict == 1:
            return f"the route back to {shown} is {way.interface}, not {via} (rp_filter of {via} is 1, strict)"
        if not any(owned.interface == via and owned.address.version == 4 for owned in self._node.addresses):
            return f"the route back to {shown} is {way.interface}, and {via} has no address (rp_filter is {strict})"
        return ""

    def forwards(self, family: int, incoming: str) -> bool:
        """Whether the node forwards what comes in through this interface; an unknown setting counts as yes."""
        if family == 4:
            value = self._node.sysctl(f"net.ipv4.conf.{incoming}.forwarding") or self._node.sysctl(
                "net.ipv4.ip_forward"
            )
        else:
            value = self._node.sysctl("net.ipv6.conf.all.forwarding")
            if value == "0" and self._node.sysctl(f"net.ipv6.conf.{incoming}.force_forwarding") == "1":  # since 6.17
                return True
        return value != "0"

    def _setting(self, *keys: str) -> tuple[int, ...]:
        """A sysctl under ``conf.all`` and under the interface's own name; absent ones count as 0."""
        *scopes, name = keys
        values = (self._node.sysctl(f"net.ipv4.conf.{scope}.{name}") for scope in scopes)
        return tuple(int(value) if value and value.isdigit() else 0 for value in values)

    # ------------------------------------------------------------------------------------- answers for expressions

    def address_type(self, family: int, address: int, device: str, asked: Question) -> str:
        """What ``fib … type`` answers: local, unicast, broadcast, multicast, …; ``device`` "" is any.

        IPv4 asks table local alone (inet_addr_type_dev_table), IPv6 the whole lookup ``asked`` (nft_fib6_eval_type).
        """
        if address_from_int(family, address).is_multicast:
            return "multicast"
        if family == 6:
            return self._address_type6(address, device, asked)
        if address >> 24 == 0 or address == 0xFFFFFFFF:
            return "broadcast"
        table = self._family_tables(4).get("local")
        route = next(iter(table.matches(Question(4, address, 0, 0))), None) if table else None
        if route is None or route.type in REFUSED_TYPES or (device and not _uses(route, device)):
            return "unicast"
        return route.type

    def _address_type6(self, address: int, device: str, asked: Question) -> str:
        if device and any(int(o.address) == address for o in self._node.addresses if o.interface == device):
            return "local"
        way = self.look_up(asked)
        if way is None:
            return "unreachable"
        if way.type in REFUSED_TYPES or way.type == "anycast":
            return way.type
        return "local" if way.type == "local" and not device else "unicast"

    def source_address(self, family: int, way: Way, destination: int) -> int | None:
        """The address the kernel gives to packets of its own that leave on ``way`` (also what masquerade takes)."""
        if way.route.preferred_source is not None:
            return int(way.route.preferred_source)
        # For a route on the link the kernel does not look at the destination (fib_info_update_nhc_saddr).
        target = way.next_hop if way.next_hop is not None or family == 4 else destination
        return self.interface_address(family, way.interface, target)

    def interface_address(self, family: int, interface: str, target: int | None) -> int | None:
        """An address of ``interface``: the one on ``target``'s subnet first, then the first global one.

        Source: net/ipv4/devinet.c, inet_select_addr; net/ipv6/addrconf.c, ipv6_dev_get_saddr.
        """
        if family == 6:
            return self._interface_address6(interface, target)
        owned = [a for a in self._node.addresses if a.interface == interface and a.address.version == family]
        # Loopback's own address (scope host) and link-local ones are never lent to packets that go further.
        usable = [a for a in owned if a.scope == "global"]
        for candidate in usable:
            if target is not None and _on_subnet(candidate, target):
                return int(candidate.address)
        if usable:
            return int(usable[0].address)
        others = [a for a in self._node.addresses if a.address.version == family and a.scope == "global"]
        return int(others[0].address) if others else None

    def _interface_address6(self, interface: str, target: int | None) -> int | None:
        """RFC 6724, rules 1, 2, 5 and 8: the target itself, its scope, the interface, the longest common prefix."""
        owned = [a for a in self._node.addresses if a.address.version == 6]
        if target is not None and any(int(a.address) == target for a in owned):
            return target
        scope = "link" if target is not None and _link_local(target) else "global"
        usable = [a for a in owned if a.scope == scope and (scope == "global" or a.interface == interface)]

        def rank(candidate: InterfaceAddress) -> tuple[bool, int]:
            differing = (int(candidate.address) ^ target).bit_length() if target is not None else 0
            return candidate.interface == interface, -differing

        return int(max(usable, key=rank).address) if usable else None

    def owner_of_subnet(self, family: int, address: int) -> Interface | None:
        """The interface on whose subnet ``address`` lies, None when none."""
        for candidate in self._node.addresses:
            bits = BITS[family]
            if (
                candidate.address.version == family
                and candidate.prefix_length < bits
                and _on_subnet(candidate, address)
            ):
                return self._node.interfaces.get(candidate.interface)
        return None


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


def _uses(route: Route, interface: str) -> bool:
    return any(hop.interface == interface for hop in route.hops)


def _on_subnet(owned: InterfaceAddress, address: int) -> bool:
    shift = owned.address.max_prefixlen - owned.prefix_length
    return int(owned.peer or owned.address) >> shift == address >> shift


def _link_local(address: int) -> bool:
    return address >> 118 == 0x3FA
