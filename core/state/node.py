"""One node's state: its evidence decoded as far as a question needs it, and no further."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from ipaddress import ip_network
from typing import TYPE_CHECKING, TypeVar

from calico_debug.decode.conntrack import decode_connections, lines_between, lines_from
from calico_debug.decode.environment import decode_environment
from calico_debug.decode.iproute import (
    decode_addresses,
    decode_interfaces,
    decode_neighbours,
    decode_routes,
    decode_rules,
)
from calico_debug.decode.sysctl import decode_sysctl
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.bpf import pins_calico_maps
from calico_debug.evidence.contents import IPTABLES_FILES, IPTABLES_LEGACY_FILES, IPTABLES_TABLES
from calico_debug.evidence.source import NodeEvidence, PointLookups, Recorded
from calico_debug.model.conntrack import TAKEN, Connection, Tuple
from calico_debug.model.nft import Ruleset
from calico_debug.model.routing import Address, Interface, InterfaceAddress, NextHop, Route, Routing, RoutingRule
from calico_debug.state.cni import plugin_hint
from calico_debug.state.generation import generation

if TYPE_CHECKING:
    from calico_debug.model.bytecode import PolicyDebug
    from calico_debug.state.bpf import BpfState

Decoded = TypeVar("Decoded")

TCP = 6
CONNTRACK_FILES = {4: "conntrack.txt", 6: "conntrack6.txt"}
AT_TC = frozenset({"clsact", "tcx", "netkit"})
"""Mechanisms of attachments that meet the packets of an interface, but for XDP."""

POLICY_DEBUG_FOLDER = "var-run-calico-bpf/policy/"
RULE_FILES = {4: "ip-rule.json", 6: "ip6-rule.json"}

INTERFACE_KEY = re.compile(r"(net\.ipv[46]\.conf\.)(.+)(\.[^.]+)")
"""Sysctls of one interface: what stands before its name, the name, and the setting, which has no dot."""

SCAN_FROM = 1 << 20
"""Listings of this many bytes are searched for a connection; shorter ones are decoded and indexed at once."""

SCANS = 16
"""Connections that are searched for before a long listing is indexed after all: a search of 20 MB takes 10 ms, decoding
them 1.4 s.
"""

DEFAULT_RULES: Mapping[int, tuple[tuple[int, str], ...]] = {
    4: ((0, "local"), (32766, "main"), (32767, "default")),
    6: ((0, "local"), (32766, "main")),
}
"""(priority, table) that the kernel starts with (net/ipv4/fib_rules.c, fib_default_rules_init; net/ipv6/fib6_rules.c,
fib6_rules_net_init_net).
"""


class NodeState:
    """What a node holds, typed, each part read and decoded once, when first asked for.

    Interfaces, addresses, routes and rules of the firewall raise `EvidenceError` when they cannot be had: nothing can
    be said without them. Sysctls, connections and Felix's settings are then absent (None or empty), and `notes`, which
    grows as parts are read, says so.
    """

    def __init__(self, evidence: NodeEvidence) -> None:
        """Nothing is read yet."""
        self._evidence = evidence
        self._lookups = evidence if isinstance(evidence, PointLookups) else None
        self._notes: dict[str, None] = {}
        self._found: dict[Tuple, Connection | None] = {}
        self._connections: dict[int, Sequence[Connection]] = {}
        self._listings: dict[str, bytes] = {}
        self._index: dict[int, Mapping[Tuple, Connection]] = {}
        self._routing: dict[int, Routing] = {}
        self._policy_debug: dict[str, PolicyDebug] = {}
        self._generation: int | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return self._evidence.name

    @property
    def origin(self) -> str:
        """Where its evidence is from, for messages."""
        return self._evidence.origin

    @property
    def taken_at(self) -> str:
        """When its evidence was taken, RFC 3339 UTC; "" when unknown."""
        return self._evidence.taken_at

    @property
    def live(self) -> bool:
        """Whether its rules are read from a kernel, as they are now."""
        return not isinstance(self._evidence, Recorded) and self._evidence.nftables is not None

    @property
    def rules_changed(self) -> bool:
        """Whether the rules changed while the evidence was recorded or, live, since the first of them was read here."""
        if isinstance(self._evidence, Recorded):
            return self._evidence.rules_changed
        return self._generation is not None and generation(self._evidence) != self._generation

    @property
    def addresses_replaced(self) -> bool:
        """Whether addresses in the evidence stand for others: what is computed of them is not what the kernel does."""
        return isinstance(self._evidence, Recorded) and self._evidence.addresses_replaced

    @property
    def notes(self) -> tuple[str, ...]:
        """Evidence found missing or undecodable so far, and what is assumed instead. One sentence each."""
        return tuple(self._notes)

    @cached_property
    def ruleset(self) -> Ruleset:
        """The node's rules: nf_tables, asked for rule by rule where evidence is live, else from ``nft-ruleset.json``,
        with those of iptables where it has any.
        """
        # The decoders of rules are the heaviest import of all; questions about names and routes do without.
        from calico_debug.state.ruleset import KernelRuleset, RecordedRuleset

        self._generation = generation(self._evidence)
        native: Ruleset | None = None
        missing: MissingEvidence | None = None
        if self._evidence.nftables is not None:
            native = KernelRuleset(self._evidence.nftables)
        else:
            try:
                native = self._decoded("nft-ruleset.json", RecordedRuleset.read)
            except MissingEvidence as error:
                missing = error
        if native is not None and not self._may_have_iptables(native):
            return native
        from calico_debug.state.combined import with_iptables

        return with_iptables(native, self._evidence, self._note, missing)

    def _may_have_iptables(self, native: Ruleset) -> bool:
        """Whether iptables files are there; of a live node, whether its kernel has such tables, whoever made them."""
        if self._evidence.nftables is None:
            return any(file in self._evidence.files() for file in (*IPTABLES_FILES, *IPTABLES_LEGACY_FILES))
        return any(table in IPTABLES_TABLES for _, table in native.tables()) or any(
            self._evidence.read(file) for file in IPTABLES_LEGACY_FILES
        )

    @cached_property
    def interfaces(self) -> Mapping[str, Interface]:
        """Interfaces by name. Raises `EvidenceError`."""
        try:
            return {link.name: link for link in self._decoded("ip-link.json", decode_interfaces)}
        except MissingEvidence:
            return {link.name: link for link in self._decoded("ip-addr.json", decode_interfaces)}

    @cached_property
    def interfaces_by_index(self) -> Mapping[int, Interface]:
        """Interfaces by their number in this node. Raises `EvidenceError`."""
        return {link.index: link for link in self.interfaces.values()}

    @cached_property
    def addresses(self) -> Sequence[InterfaceAddress]:
        """The node's own addresses, in the order of its interfaces. Raises `EvidenceError`."""
        return self._decoded("ip-addr.json", decode_addresses)

    def is_local(self, address: Address) -> bool:
        """Whether the node takes packets to ``address`` for itself: a local route covers it. Raises `EvidenceError`."""
        local = self.routing(address.version).tables.get("local", ())
        covering = [route for route in local if address in route.destination]
        if not covering:
            return False
        return max(covering, key=lambda route: route.destination.prefixlen).type == "local"

    def routing(self, family: int) -> Routing:
        """Policy-routing rules and routes of ``family`` 4 or 6. Raises `EvidenceError`."""
        if family not in self._routing:
            tables: dict[str, list[Route]] = {}
            for route in self._routes(family):
                tables.setdefault(route.table, []).append(route)
            self._routing[family] = Routing(self._rules(family), tables)
        return self._routing[family]

    def sysctl(self, key: str) -> str | None:
        """A sysctl's value as text ("1"), None when evidence does not have it.

        An interface in the key may be written as it is called (net.ipv4.conf.vxlan.calico.rp_filter).
        """
        match = INTERFACE_KEY.fullmatch(key)
        if match is not None:
            # sysctl(8) writes a dot in a name as a slash: net.ipv4.conf.vxlan/calico.rp_filter.
            key = f"{match[1]}{match[2].replace('.', '/')}{match[3]}"
        if self._lookups is not None:
            return self._lookups.read_sysctl(key)
        return self._sysctls.get(key)

    def interface_sysctl(self, family: int, interface: str, key: str) -> str | None:
        """``net.ipv4.conf.INTERFACE.KEY`` or its IPv6 twin; "all" and "default" are interfaces here, too."""
        return self.sysctl(f"net.ipv{family}.conf.{interface}.{key}")

    def connections(self, family: int) -> Sequence[Connection]:
        """Every tracked connection of ``family`` 4 or 6, in the order of the listing."""
        if family not in self._connections:
            found = self._decode_listing(self._listing(family), family)
            self._connections[family] = [c for c in found if c.original.source.version == family]
        return self._connections[family]

    def listed_connections(self, family: int) -> Sequence[Connection]:
        """As `connections`, but raises `EvidenceError` where there is no listing."""
        file = self._listing_file(family)
        if file not in self._listings:
            self._listings[file] = self._evidence.read(file)
        return self.connections(family)

    def connection(self, wanted: Tuple) -> Connection | None:
        """The connection that has ``wanted`` as its original or its reply direction, None when none is known."""
        if self._lookups is not None:
            return self._look_up(self._lookups, wanted)
        if wanted not in self._found:
            self._found[wanted] = self._recorded_connection(wanted)
        return self._found[wanted]

    def taken(self, address: Address, port: int) -> Connection | None:
        """A recorded TCP connection that something took at a port of an address, as the node with it sees them.

        None when none is known, and on a live node, where it would take the whole table to find one.
        """
        if self._lookups is not None:
            return None
        family = address.version
        found = self._decode_listing(lines_from(self._listing(family), address, port), family)
        wanted = (TCP, address, port)
        ends = ((c, (c.reply.protocol, c.reply.source, c.reply.source_port)) for c in found)
        return next((c for c, end in ends if end == wanted and (c.assured or c.state in TAKEN)), None)

    @cached_property
    def neighbours(self) -> frozenset[tuple[str, Address]]:
        """(interface, address) of neighbours whose link address the node knows; empty when evidence has none."""
        if "ip-neigh.json" not in self._evidence.files():
            return frozenset()
        return self._decoded("ip-neigh.json", decode_neighbours)

    @cached_property
    def dataplane(self) -> str:
        """Which of Calico's dataplanes runs here (`calico_debug.state.dataplane`), "" for none. Raises `EvidenceError`.

        A table of Calico's without endpoint chains is nftables mode that Felix has not programmed. Programs at
        interfaces meet packets before endpoint chains that another mode has left behind.
        """
        from calico_debug.state.dataplane import CALICO_TABLES, EBPF, NFTABLES, rules_dataplane

        found = rules_dataplane(self.ruleset)
        if found and not self._has_bpf_pins():
            return found
        if self._runs_bpf_programs():
            return EBPF
        return found or (NFTABLES if CALICO_TABLES & set(self.ruleset.tables()) else "")

    @cached_property
    def bpf(self) -> BpfState:
        """The node's eBPF programs and maps; reading them raises `EvidenceError` where there are none."""
        from calico_debug.state.bpf import BpfState

        return BpfState(self._evidence)

    def policy_debug(self, name: str) -> PolicyDebug:
        """One of Felix's policy debug files. Raises `EvidenceError`."""
        from calico_debug.decode.policy_debug import decode_policy_debug

        if name not in self._policy_debug:
            data = self._evidence.read(f"{POLICY_DEBUG_FOLDER}{name}")
            self._policy_debug[name] = decode_policy_debug(data, f"{name} of {self.name}")
        return self._policy_debug[name]

    @property
    def policy_debug_files(self) -> Sequence[str]:
        """Names for `policy_debug`."""
        return [
            file.removeprefix(POLICY_DEBUG_FOLDER)
            for file in sorted(self._evidence.files())
            if file.startswith(POLICY_DEBUG_FOLDER)
        ]

    def _has_bpf_pins(self) -> bool:
        try:
            return pins_calico_maps(self._evidence)
        except EvidenceError:
            return False

    def _runs_bpf_programs(self) -> bool:
        if "bpf/prog-show.json" not in self._evidence.files():
            return False
        try:
            # Without tc's hooks it is but Felix's XDP program in other modes, or what is left of services' cgroups.
            return any(one.mechanism in AT_TC for one in self.bpf.reach.attachments)
        except EvidenceError as error:
            self._note(f"whether eBPF programs of Calico run is not known: {error}")
            return False

    @cached_property
    def felix(self) -> Mapping[str, str]:
        """Felix's environment: FELIX_… name to value; empty when evidence does not have it."""
        return self._optional("felix-env.txt", decode_environment, {}, "Felix's settings are not known")

    def cni_hint(self) -> str:
        """For a node without Calico: what seems to be there instead ("interface cilium_host looks like Cilium")."""
        try:
            interfaces = tuple(self.interfaces)
        except EvidenceError:
            interfaces = ()
        try:
            tables = tuple(table for _, table in self.ruleset.tables())
        except EvidenceError:
            tables = ()
        return plugin_hint(interfaces, tables)

    # ------------------------------------------------------------------------------------------------------ internals

    @cached_property
    def _sysctls(self) -> Mapping[str, str]:
        return self._optional("sysctl.txt", decode_sysctl, {}, "the kernel's settings are not known")

    def _listing_file(self, family: int) -> str:
        file = CONNTRACK_FILES[family]
        # conntrack -L without -f lists both families since 1.4.7.
        return file if file in self._evidence.files() else CONNTRACK_FILES[4]

    def _listing(self, family: int) -> bytes:
        file = self._listing_file(family)
        if file not in self._listings:
            self._listings[file] = self._optional(file, bytes, b"", "no connection is known")
        return self._listings[file]

    def _decode_listing(self, listing: bytes, family: int) -> Sequence[Connection]:
        decoded = decode_connections(listing)
        if decoded.undecodable:
            self._note(
                f"{decoded.undecodable} lines of {self._listing_file(family)} of {self.origin} cannot be decoded, "
                f"the first is {decoded.example}"
            )
        return decoded.connections

    def _recorded_connection(self, wanted: Tuple) -> Connection | None:
        family = wanted.source.version
        listing = self._listing(family)
        if len(listing) >= SCAN_FROM and len(self._found) < SCANS and family not in self._index:
            return _index(self._decode_listing(lines_between(listing, wanted.source, wanted.destination), family)).get(
                wanted
            )
        if family not in self._index:
            self._index[family] = _index(self.connections(family))
        return self._index[family].get(wanted)

    def _note(self, text: str) -> None:
        self._notes.setdefault(text)

    def _what(self, file: str) -> str:
        return f"{file} of {self.origin}"

    def _decoded(self, file: str, decode: Callable[[bytes, str], Decoded]) -> Decoded:
        return decode(self._evidence.read(file), self._what(file))

    def _optional(self, file: str, decode: Callable[[bytes], Decoded], absent: Decoded, consequence: str) -> Decoded:
        try:
            data = self._evidence.read(file)
        except EvidenceError as error:
            self._note(f"{consequence}: {error}")
            return absent
        return decode(data)

    def _look_up(self, evidence: PointLookups, wanted: Tuple) -> Connection | None:
        if wanted not in self._found:
            try:
                decoded = decode_connections(evidence.find_connection(wanted))
            except EvidenceError as error:
                self._note(f"no connection is known: {error}")
                return None
            self._found[wanted] = next((c for c in decoded.connections if wanted in (c.original, c.reply)), None)
        return self._found[wanted]

    def _rules(self, family: int) -> Sequence[RoutingRule]:
        file = RULE_FILES[family]
        try:
            rules = decode_rules(self._evidence.read(file), self._what(file), family)
        except MissingEvidence as error:
            self._note(f"the kernel's default routing rules are assumed: {error}")
            return [RoutingRule(priority, family, table=table) for priority, table in DEFAULT_RULES[family]]
        if any("l3mdev" in rule.unknown for rule in rules) and not self._has_vrf():
            # The kernel adds this rule with the first VRF and never takes it away; it matches only in a VRF
            # (net/core/fib_rules.c, fib_rule_match, and net/l3mdev/l3mdev.c, l3mdev_fib_rule_match).
            return [rule for rule in rules if "l3mdev" not in rule.unknown]
        return rules

    def _has_vrf(self) -> bool:
        return any(link.kind == "vrf" for link in self.interfaces.values())

    def _routes(self, family: int) -> Sequence[Route]:
        if family == 6 and "ip6-route-all.json" in self._evidence.files():
            return self._all_routes("ip6-route-all.json", 6)
        try:
            routes = self._all_routes("ip-route-all.json", None)
        except MissingEvidence as error:
            if family == 6:
                raise
            return self._main_routes(error)
        return [route for route in routes if route.destination.version == family]

    def _all_routes(self, file: str, family: int | None) -> Sequence[Route]:
        return decode_routes(self._evidence.read(file), self._what(file), family)

    def _main_routes(self, missing: MissingEvidence) -> Sequence[Route]:
        """Table main alone, and the table local that follows from the node's addresses."""
        try:
            main = self._all_routes("ip-route.json", 4)
        except MissingEvidence:
            raise missing from None
        self._note(f"only routes of the tables main and local are known: {missing}")
        local = [
            Route(ip_network(owned.address), "local", "local", (NextHop(owned.interface),), scope="host")
            for owned in self.addresses
            if owned.address.version == 4
        ]
        loopback = Route(ip_network("127.0.0.0/8"), "local", "local", (NextHop("lo"),), scope="host")
        return [*main, *local, loopback]


def _index(connections: Sequence[Connection]) -> Mapping[Tuple, Connection]:
    """Connections by both directions; the first that has a tuple counts, and an original direction before a reply."""
    index: dict[Tuple, Connection] = {}
    for connection in connections:
        index.setdefault(connection.reply, connection)
    index.update((connection.original, connection) for connection in reversed(connections))
    return index
