"""What ``ip -j`` prints of links, addresses, rules and routes.

Keys and their meaning: iproute2 6.1, ip/ipaddress.c (print_linkinfo, print_addrinfo), ip/iproute.c (print_route),
ip/iprule.c (print_rule), checked against the kernel by the tests. A file that is damaged in any place is refused
as a whole, since a route that cannot be read could be the one that decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from calico_debug.decode.json_text import first_wins, parse_objects
from calico_debug.errors import EvidenceError
from calico_debug.model.routing import Address, Interface, InterfaceAddress, Network, NextHop, Route, RoutingRule

ANYWHERE: Mapping[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

ROUTE_KEYS = frozenset(
    {"type", "dst", "from", "tos", "nhid", "gateway", "via", "dev", "table", "scope", "prefsrc", "metric", "flags"}
    | {"nexthops"}
    # These change what is sent or accounted, not where it goes: who made the route, realms, path metrics, lifetimes,
    # the errno of an unreachable route, details of the nexthop object that gateway and nexthops already show.
    | {"protocol", "flow", "metrics", "pref", "expires", "error", "cache", "ttl-propagate", "nh_info", "age", "used"}
    | {"users"}
)
"""Keys of a route that are understood, or that cannot change the decision."""

RULE_KEYS = frozenset(
    {"priority", "not", "src", "srclen", "dst", "dstlen", "fwmark", "fwmask", "iif", "oif", "table", "action", "goto"}
    | {"nop", "suppress_prefixlen"}
    # A detached interface does not exist, so its name matches nothing; "unresolved" is a goto without a target, which
    # the walk sees for itself; the others say who made the rule and the realms that it sets.
    | {"iif_detached", "oif_detached", "unresolved", "protocol", "flow_from", "flow_to", "flow"}
)
"""Keys of a policy-routing rule that are understood, or that cannot change the decision."""

RULE_ACTIONS = ("blackhole", "unreachable", "prohibit", "nop")


def decode_interfaces(data: bytes, what: str) -> Sequence[Interface]:
    """Interfaces from ``ip -j -d link`` or ``ip -j -d addr``. Raises `EvidenceError` naming ``what``."""
    return [_guarded(_interface, entry, what, "interface") for entry in parse_objects(data, what)]


def decode_addresses(data: bytes, what: str) -> Sequence[InterfaceAddress]:
    """Addresses from ``ip -j -d addr`` in its order. Raises `EvidenceError` naming ``what``."""
    found: list[InterfaceAddress] = []
    for entry in parse_objects(data, what):
        found.extend(_guarded(_addresses, entry, what, "address"))
    return found


def decode_routes(data: bytes, what: str, family: int | None = None) -> Sequence[Route]:
    """Routes of every table from ``ip -j route show table all``, in its order. Routes of other families than IPv4 and
    IPv6 (MPLS labels) are left out.

    ``family`` is 4 or 6 when the listing was asked for one family; None lets each route show its own. Raises
    `EvidenceError` naming ``what``.
    """
    routes = []
    for entry in parse_objects(data, what, object_pairs_hook=first_wins):
        if str(entry.get("dst", "")).isdigit():
            continue  # an MPLS label: never looked up for an IP packet that arrives unlabelled
        routes.append(_guarded(lambda e: _route(e, family), entry, what, "route"))
    return routes


def decode_rules(data: bytes, what: str, family: int) -> Sequence[RoutingRule]:
    """Policy-routing rules from ``ip -j rule`` (``ip -6 -j rule``), by priority. Raises `EvidenceError`."""
    rules = [_guarded(lambda e: _rule(e, family), entry, what, "rule") for entry in parse_objects(data, what)]
    return sorted(rules, key=lambda rule: rule.priority)


USABLE_NEIGHBOURS = frozenset({"REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "NOARP"})
"""States of a neighbour in which the kernel sends to it at once (NUD_CONNECTED and NUD_STALE ones, ip-neighbour(8))."""


def decode_neighbours(data: bytes, what: str) -> frozenset[tuple[str, Address]]:
    """(interface, address) of each neighbour whose link address is known. Raises `EvidenceError`."""
    found = [_guarded(_neighbour, entry, what, "neighbour") for entry in parse_objects(data, what)]
    return frozenset(neighbour for neighbour in found if neighbour is not None)


def _neighbour(entry: Mapping[str, Any]) -> tuple[str, Address] | None:
    usable = USABLE_NEIGHBOURS.intersection(entry.get("state", ()))
    return (str(entry["dev"]), ip_address(entry["dst"])) if usable else None


def _guarded(decode: Any, entry: Mapping[str, Any], what: str, kind: str) -> Any:
    try:
        return decode(entry)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        shown = str(dict(entry))
        shown = shown if len(shown) <= 160 else shown[:157] + "..."
        raise EvidenceError(
            f"{what}: cannot decode the {kind} {shown!r}: {reason}; record the file again with ip -j"
        ) from error


def _interface(entry: Mapping[str, Any]) -> Interface:
    link = entry.get("linkinfo") or {}
    attributes = link.get("info_data")
    return Interface(
        name=_text(entry["ifname"]),
        index=int(entry["ifindex"]),
        kind=str(link.get("info_kind") or ""),
        up="UP" in entry.get("flags", ()),
        mtu=int(entry.get("mtu", 0)),
        master=str(entry.get("master") or ""),
        attributes=dict(attributes) if attributes else None,
        xdp=_xdp(entry.get("xdp") or {}),
    )


def _xdp(entry: Mapping[str, Any]) -> str:
    """The names of programs, as ip/iplink_xdp.c prints them; their numbers where they have none."""
    programs = [one.get("prog") for one in (entry, *entry.get("attached", ()))]
    return ", ".join(dict.fromkeys(str(one.get("name") or f"id {one['id']}") for one in programs if one))


def _addresses(entry: Mapping[str, Any]) -> list[InterfaceAddress]:
    found = []
    for info in entry.get("addr_info") or ():
        if not info:
            continue
        if info.get("family") not in ("inet", "inet6"):
            continue
        found.append(
            InterfaceAddress(
                interface=_text(entry["ifname"]),
                address=ip_address(_text(info["local"])),
                prefix_length=int(info["prefixlen"]),
                peer=ip_address(_text(info["address"])) if info.get("address") else None,
                scope=str(info.get("scope", "global")),
            )
        )
    return found


def _route(entry: Mapping[str, Any], family: int | None) -> Route:
    family = family or _route_family(entry)
    kind = str(entry.get("type", "unicast"))
    hops = _hops(entry)
    unknown = [f"{key} {entry[key]}" for key in entry if key not in ROUTE_KEYS]
    if "nhid" in entry and not hops and kind == "unicast":
        unknown.append(f"nhid {entry['nhid']}")
    tos = 0
    if "tos" in entry:
        try:
            tos = int(str(entry["tos"]), 16)  # iproute2 prints hexadecimal, or a name of /etc/iproute2/rt_dsfield
        except ValueError:
            unknown.append(f"tos {entry['tos']}")
    return Route(
        destination=_network(entry["dst"], family),
        table=str(entry.get("table", "main")),
        type=kind,
        hops=hops,
        metric=int(entry.get("metric", 0)),
        tos=tos,
        source=_network(entry["from"], family) if "from" in entry else None,
        preferred_source=ip_address(_text(entry["prefsrc"])) if "prefsrc" in entry else None,
        scope=str(entry.get("scope", "global")),
        unknown=tuple(unknown),
    )


def _route_family(entry: Mapping[str, Any]) -> int:
    destination = str(entry["dst"])
    if destination not in ("default", "all"):
        return 6 if ":" in destination else 4
    # RTA_PREF is an IPv6 attribute that the kernel always dumps since 4.1; "gateway" is of the route's own family
    # (another family's is "via").
    for key in ("gateway", "prefsrc", "from"):
        if key in entry:
            return 6 if ":" in str(entry[key]) else 4
    return 6 if "pref" in entry else 4


def _hops(entry: Mapping[str, Any]) -> tuple[NextHop, ...]:
    if entry.get("nexthops"):
        return tuple(_hop(hop) for hop in entry["nexthops"])
    return (_hop(entry),) if "dev" in entry or "gateway" in entry or "via" in entry else ()


def _hop(entry: Mapping[str, Any]) -> NextHop:
    gateway: Address | None = None
    if "gateway" in entry:
        gateway = ip_address(_text(entry["gateway"]))
    elif "via" in entry:
        gateway = ip_address(_text(entry["via"]["host"]))
    return NextHop(
        interface=str(entry.get("dev", "")),
        gateway=gateway,
        weight=int(entry.get("weight", 1)),
        # The kernel sets "dead" itself on a next hop without carrier where ignore_routes_with_linkdown says so
        # (net/ipv4/fib_semantics.c, fib_nexthop_info), so "linkdown" alone does not exclude it.
        alive="dead" not in (entry.get("flags") or ()),
    )


def _rule(entry: Mapping[str, Any], family: int) -> RoutingRule:
    mark = _number(entry.get("fwmark", 0))
    mask = _number(entry["fwmask"]) if "fwmask" in entry else (0xFFFFFFFF if "fwmark" in entry else 0)
    action, goto = "lookup", None
    if "goto" in entry:
        action, goto = "goto", int(entry["goto"])
    elif "nop" in entry:
        action = "nop"
    elif "action" in entry:
        action = str(entry["action"])
    unknown = [_shown(key, entry[key]) for key in entry if key not in RULE_KEYS]
    if action not in (*RULE_ACTIONS, "lookup", "goto"):
        unknown.append(f"action {action}")
    if action == "lookup" and "table" not in entry and "l3mdev" not in entry:
        unknown.append("no table")
    return RoutingRule(
        priority=int(entry["priority"]),
        family=family,
        action=action,
        table=str(entry.get("table", "")),
        source=_prefix(entry, "src", "srclen", family),
        destination=_prefix(entry, "dst", "dstlen", family),
        mark=mark,
        mark_mask=mask,
        incoming=str(entry.get("iif", "")),
        outgoing=str(entry.get("oif", "")),
        inverted="not" in entry,
        suppress_prefix_length=int(entry["suppress_prefixlen"]) if "suppress_prefixlen" in entry else None,
        goto=goto,
        unknown=tuple(unknown),
    )


def _shown(key: str, value: object) -> str:
    return key if value is None else f"{key} {value}"


def _prefix(entry: Mapping[str, Any], key: str, length: str, family: int) -> Network | None:
    text = str(entry.get(key, "all"))
    if text in ("all", "default", "any"):
        return None
    return _network(f"{text}/{entry[length]}" if length in entry else text, family)


def _network(text: object, family: int) -> Network:
    if text in ("default", "all"):
        return ANYWHERE[family]
    network = ip_network(_text(text), strict=False)
    if network.version != family:
        raise ValueError(f"{text} is not of IPv{family}")
    return network


def _number(value: object) -> int:
    return int(str(value), 0)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} where a text is expected")
    return value
