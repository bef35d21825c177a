"""Services as kube-proxy has programmed them, row by row: nodes in nftables and iptables mode.

Source: Kubernetes pkg/proxy/nftables/proxier.go and pkg/proxy/iptables/proxier.go, v1.29 to v1.35.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from calico_debug.errors import EvidenceError
from calico_debug.explain.kube_proxy import NFTABLES_TABLE
from calico_debug.explain.listing.endpoints import FAMILIES, targets
from calico_debug.explain.listing.names import Names, address_words, end_words, protocol_word
from calico_debug.explain.listing.rows import Listing, Row
from calico_debug.model.nft import (
    Concat,
    Constant,
    Match,
    Meta,
    Nat,
    Payload,
    Reject,
    SetContent,
    Verdict,
    VerdictMap,
)
from calico_debug.model.routing import address_from_int

if TYPE_CHECKING:
    from calico_debug.model.nft import Expression, Rule, Ruleset
    from calico_debug.model.routing import Address
    from calico_debug.state.connection_filter import ConnectionFilter

HEADINGS = ("SERVICE", "CLIENTS", "PROTO", "BACKENDS", "LOCAL", "FLAGS", "NAME")
MORE = ("PORT NAME", "CHAIN")

DESTINATIONS: Final = {"ip": Payload("network", 128, 32), "ip6": Payload("network", 192, 128)}
PORT: Final = Payload("transport", 16, 16)
PROTOCOL: Final = Meta("l4proto")

ENTRIES: Final = frozenset({"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES"})
"""Chains of iptables mode whose rules stand for one service port each."""
LOCAL_CHAINS: Final = ("local-", "KUBE-SVL-", "KUBE-XLB-")
"""Chains that have the backends of this node alone."""
LIMITED_CHAINS: Final = ("firewall-", "KUBE-FW-")
"""Chains that admit only the load balancer's source ranges."""
OFF_PATH: Final = ("KUBE-MARK-", "mark-for-masquerade")

_CHAIN: Final = re.compile(r"(?:service|external|local|firewall)-[A-Z2-7]{8}-([^/]+/[^/]+)/[^/]+/(.*)")
_COMMENT: Final = re.compile(r"(?P<name>[a-z0-9.-]+/[a-z0-9.-]+?)(?::(?P<port>[a-z0-9-]+))?(?: .*)?")
_FARTHEST: Final = 6
"""Chains from a service's entry to its backends; kube-proxy needs four."""


@dataclass(slots=True)
class _Service:
    """One address or node port, while it is put together from the chains."""

    family: str
    address: Address | None
    protocol: int
    port: int
    chain: str = ""
    name: str = ""
    port_name: str = ""
    backends: dict[tuple[Address, int], None] = field(default_factory=dict)
    local: set[tuple[Address, int]] = field(default_factory=set)
    flags: dict[str, None] = field(default_factory=dict)
    refuses: bool = False
    drops: bool = False


def services(ruleset: Ruleset, names: Names, wanted: ConnectionFilter, node: str) -> Listing:
    """Services by address and port. Raises `EvidenceError`, also when kube-proxy has no rules on the node."""
    if not _has_kube_proxy(ruleset):
        raise EvidenceError(
            f"{node} has no rules of kube-proxy in nftables or iptables mode: what else translates services there "
            "(IPVS, another proxy) is not listed; look at `ipvsadm -Ln`"
        )
    return Listing(HEADINGS, _rows(ruleset, names, wanted), MORE)


def _has_kube_proxy(ruleset: Ruleset) -> bool:
    if any(table == NFTABLES_TABLE for _, table in ruleset.tables()):
        return True
    return any(
        ruleset.rules(family, table, "KUBE-SERVICES") is not None
        for family, table in ruleset.tables()
        if family in FAMILIES
    )


def _rows(ruleset: Ruleset, names: Names, wanted: ConnectionFilter) -> Iterator[Row]:
    found: dict[tuple[str, Address | None, int, int], _Service] = {}
    for base in ruleset.base_chains():
        if base.family not in FAMILIES:
            continue
        place = (base.family, base.table)
        for rule in _entry_rules(ruleset, place, base.name):
            for key, verdict, comment in _frontends(ruleset, rule):
                one = found.setdefault((base.family, *key), _Service(base.family, *key))
                _name(one, verdict, comment or rule.comment)
                _follow(ruleset, place, verdict, one)
    for one in sorted(found.values(), key=_order):
        if _admits(wanted, one):
            yield _row(one, names)


def _entry_rules(ruleset: Ruleset, place: tuple[str, str], base: str) -> Iterator[Rule]:
    """Rules in which a service's address and port may stand: in kube-proxy's own chains, before its services'."""
    seen: set[str] = set()
    waiting = [base]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        rules = ruleset.rules(*place, name) or ()
        if place[1] == NFTABLES_TABLE:
            yield from rules
            waiting += [
                one.chain for rule in rules for one in rule.statements if isinstance(one, Verdict) and one.chain
            ]
            continue
        if name in ENTRIES:
            yield from rules
        waiting += [target for target in targets(ruleset, rules) if target in ENTRIES]


Key = tuple["Address | None", int, int]


def _frontends(ruleset: Ruleset, rule: Rule) -> Iterator[tuple[Key, Verdict | Reject, str]]:
    """Address (None: every address of the node), protocol and port that a rule stands for, and what follows."""
    for statement in rule.statements:
        if isinstance(statement, VerdictMap) and isinstance(statement.key, Concat):
            source = statement.source
            content = source if isinstance(source, SetContent) else ruleset.elements(rule.family, rule.table, source)
            yield from _of_map(content, statement.key.parts, rule.family)
            return
    matches = {s.left: s.right for s in rule.statements if isinstance(s, Match) and s.operator == "=="}
    if set(matches) - {DESTINATIONS[rule.family], PORT, PROTOCOL}:
        return
    protocol, port = matches.get(PROTOCOL), matches.get(PORT)
    address = matches.get(DESTINATIONS[rule.family])
    if not (isinstance(protocol, int) and isinstance(port, int)) or not isinstance(address, int | None):
        return
    verdict = next((s for s in rule.statements if isinstance(s, Verdict | Reject)), None)
    if verdict is None or (isinstance(verdict, Verdict) and not verdict.chain and verdict.kind != "drop"):
        return
    yield (_address(rule.family, address), protocol, port), verdict, ""


def _of_map(
    content: SetContent | None, parts: Sequence[Expression], family: str
) -> Iterator[tuple[Key, Verdict | Reject, str]]:
    fields = list(parts)
    if content is None or PORT not in fields or PROTOCOL not in fields:
        return
    for element in content.exact.values():
        if isinstance(element.key, tuple) and isinstance(element.data, Verdict):
            by_field: Mapping[Expression, Any] = dict(zip(fields, element.key, strict=False))
            key = (_address(family, by_field.get(DESTINATIONS[family])), by_field[PROTOCOL], by_field[PORT])
            yield key, element.data, element.comment


def _address(family: str, number: int | None) -> Address | None:
    return address_from_int(FAMILIES[family], number) if number is not None else None


def _name(one: _Service, verdict: Verdict | Reject, comment: str) -> None:
    chain = verdict.chain if isinstance(verdict, Verdict) else ""
    one.chain = one.chain or chain
    if (found := _CHAIN.fullmatch(chain)) is not None:
        one.name, one.port_name = found[1], found[2]
    elif not one.name and (found := _COMMENT.fullmatch(comment)) is not None:
        one.name, one.port_name = found["name"], found["port"] or ""


def _follow(ruleset: Ruleset, place: tuple[str, str], first: Verdict | Reject, one: _Service) -> None:
    """Collect what the chains behind an entry do."""
    if isinstance(first, Reject):
        one.refuses = True
        return
    if not first.chain:
        one.drops = one.drops or first.kind == "drop"
        return
    seen: set[tuple[str, bool]] = set()
    waiting = [(first.chain, False, 0)]
    while waiting:
        chain, local, depth = waiting.pop(0)
        if chain.startswith(LOCAL_CHAINS):
            local = True
            one.flags.setdefault("local-only")
        if (chain, local) in seen or depth > _FARTHEST or chain.startswith(OFF_PATH):
            continue
        seen.add((chain, local))
        if chain.startswith(LIMITED_CHAINS):
            one.flags.setdefault("source-ranges")
        rules = ruleset.rules(*place, chain) or ()
        for rule in rules:
            for statement in rule.statements:
                if isinstance(statement, Nat) and statement.kind == "dnat":
                    _backend(one, statement, local)
                elif isinstance(statement, Reject):
                    one.refuses = True
        waiting += [(target, local, depth + 1) for target in targets(ruleset, rules)]


def _backend(one: _Service, nat: Nat, local: bool) -> None:
    if not isinstance(nat.address, Constant) or not isinstance(nat.address.value, int):
        return
    port = nat.port.value if isinstance(nat.port, Constant) else one.port
    if isinstance(port, int):
        backend = (address_from_int(FAMILIES[one.family], nat.address.value), port)
        one.backends.setdefault(backend)
        if local:
            one.local.add(backend)


def _admits(wanted: ConnectionFilter, one: _Service) -> bool:
    return (
        (wanted.servers is None or one.address in wanted.servers)
        and wanted.port in (None, one.port)
        and wanted.protocol in (None, one.protocol)
    )


def _order(one: _Service) -> tuple[str, bool, int, int, int]:
    return one.family, one.address is None, int(one.address) if one.address is not None else 0, one.port, one.protocol


def _row(one: _Service, names: Names) -> Row:
    backends = [names.end(*backend) for backend in sorted(one.backends, key=lambda pair: (int(pair[0]), pair[1]))]
    end = names.end(one.address, one.port, one.protocol) if one.address is not None else {"port": one.port}
    name = one.name or str(end.get("service", ""))
    flags = list(one.flags)
    document: dict[str, Any] = {
        **end,
        **({"service": name} if name else {}),
        "protocol": protocol_word(one.protocol),
        "ipVersion": FAMILIES[one.family],
        "nodePort": one.address is None,
        "count": len(backends),
        **({"local": len(one.local)} if "local-only" in one.flags else {}),
        "flags": flags,
        **({"portName": one.port_name} if one.port_name else {}),
        **({"chain": one.chain} if one.chain else {}),
        "refuses": one.refuses and not backends,
        "backends": backends,
    }
    nothing = "none: refuses" if one.refuses else "drops" if one.drops else "none"
    cells = (
        f"node port {one.port}" if one.address is None else address_words(end),
        "some" if "source-ranges" in one.flags else "any",
        protocol_word(one.protocol),
        ", ".join(map(end_words, backends)) or nothing,
        str(len(one.local)) if "local-only" in one.flags else "-",
        " ".join(flags) or "-",
        name or "-",
    )
    return Row(cells, document, (one.port_name or "-", one.chain or "-"))
