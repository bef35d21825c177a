"""The rule that came closest, in words: what it is, and what kept it from matching."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from calico_debug.model.flow import protocol_name
from calico_debug.model.routing import address_from_int
from calico_debug.policy.wording import clauses, describe_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from calico_debug.model.cluster import PolicyObject
    from calico_debug.walk.packet import Port

CLAUSE_ORDER = ("protocol", "source", "destination", "source ports", "destination ports", "icmp", "other")
"""Kinds of clauses, in the order in which they are told."""
_MOOT = frozenset({"source ports", "destination ports", "icmp"})


@dataclass(frozen=True, slots=True)
class Unmet:
    """A clause that failed. ``wanted`` is what the dataplane compares with, "" without a short form.

    ``negated``: the rule wants anything but that. ``with_ports``: address and port were looked up together.
    """

    wanted: str = ""
    negated: bool = False
    with_ports: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """The packet that the rule was compared with. ``translated`` tells that a service changed its port."""

    family: int
    protocol: int
    source: int
    destination: int
    source_port: Port
    destination_port: Port
    icmp: tuple[int | None, int | None] = (None, None)
    translated: bool = False


Failed = TypeVar("Failed")


def by_clause(failed: Mapping[str, Failed]) -> Mapping[str, Failed]:
    """The failures that count, in order: ports of another protocol say nothing."""
    moot = _MOOT if "protocol" in failed else frozenset()
    return {kind: failed[kind] for kind in CLAUSE_ORDER if kind in failed and kind not in moot}


def rule_in_words(
    policy: PolicyObject | None,
    direction: str,
    index: int | None,
    position: int,
    action: str,
    failed: Mapping[str, Unmet],
    asked: Asked,
    name: Callable[[int, int], str],
) -> str:
    """The rule, and why it did not match. ``name`` gives (family, address) a name for people.

    ``index`` is the rule's in the object, ``position`` its place as programmed, for where the object is not known.
    """
    texts: Mapping[str, str] = {}
    if policy is None or index is None:
        rule = f"rule {position} as programmed ({action})"
    else:
        rule = f"rule {index} ({describe_rule(policy, direction, index)})"
        texts = clauses(policy, direction, index)
    whys = "; ".join(_why(kind, unmet, texts, asked, name) for kind, unmet in failed.items())
    return f"{rule}: {whys}"


def _why(kind: str, unmet: Unmet, texts: Mapping[str, str], asked: Asked, name: Callable[[int, int], str]) -> str:
    if kind == "other":
        return "a condition beyond addresses and ports does not hold"
    if unmet.with_ports and kind != "protocol":
        return _with_port(kind.removesuffix(" ports"), unmet, texts, asked, name)
    shown = _shown(kind, asked, name)
    if unmet.negated:
        wanted = texts.get(f"not {kind}") or texts.get(kind) or f"not {unmet.wanted or 'what the rule excludes'}"
        return f"{shown} is left out: {wanted}"
    wanted = texts.get(kind) or texts.get(f"not {kind}") or unmet.wanted
    if kind == "protocol" and _UNKNOWN_NAMES.get(wanted.lower()) == asked.protocol:
        return (
            f"{shown} is what the rule names, but Calico's eBPF programs do not know it by name: write the number "
            f"{asked.protocol}"
        )
    match kind:
        case "source" | "destination":
            if kind in texts and f"not {kind}" in texts:
                wanted = f"{wanted}, {texts[f'not {kind}']}"  # one IP set holds what the one selects less the other
            return f"{shown} is not {'among' if wanted.startswith(_CROWDS) else 'in'} {wanted or 'the rule'}"
        case "source ports" | "destination ports":
            wanted = wanted.removeprefix("ports ").removeprefix("port ")
            return f"{shown} is not {'one of ' if ',' in wanted or '-' in wanted else ''}{wanted or 'the rule’s'}"
    return f"{shown} is not {wanted or 'the rule’s'}"


def _shown(kind: str, asked: Asked, name: Callable[[int, int], str]) -> str:
    match kind:
        case "source" | "destination":
            address = asked.source if kind == "source" else asked.destination
            known = name(asked.family, address)
            shown = f"{kind} {address_from_int(asked.family, address)}"
            return f"{shown} ({known})" if known else shown
        case "source ports" | "destination ports":
            port = asked.source_port if kind == "source ports" else asked.destination_port
            translated = " (after service translation)" if kind == "destination ports" and asked.translated else ""
            return f"{kind.removesuffix('s')} {port if isinstance(port, int) else '(not given)'}{translated}"
        case "protocol":
            return f"protocol {protocol_name(asked.protocol)}"
    return f"ICMP type {asked.icmp[0]} code {asked.icmp[1]}"


def _with_port(side: str, unmet: Unmet, texts: Mapping[str, str], asked: Asked, name: Callable[[int, int], str]) -> str:
    """An address and a port that were looked up as one: which of the two is wrong, the look-up does not say."""
    port = asked.source_port if side == "source" else asked.destination_port
    shown = f"{_shown(side, asked, name)} with port {port if isinstance(port, int) else '(not given)'}"
    word = "not " if unmet.negated else ""
    ports = texts.get(f"{word}{side} ports", "")
    who = ", ".join(text for text in (texts.get(side), texts.get(f"not {side}")) if text)
    wanted = f"{ports} of {who}" if ports and who else ports or who or unmet.wanted or "the rule’s"
    return f"{shown} is left out: {wanted}" if unmet.negated else f"{shown} is not {wanted}"


_UNKNOWN_NAMES = {"icmpv6": 58, "udplite": 136}
"""Protocols that the API names and felix/bpf/polprog (protocolToNumber, v3.28 to v3.32) takes for none: such a
rule matches nothing.
"""
_CROWDS = ("pods", "anything", "hosts", "service")
"""Beginnings of phrases for endpoints, which one is among rather than in."""
