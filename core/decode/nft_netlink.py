"""nf_tables messages: requests for tables, chains, rules, sets and elements, and the answers decoded.

Every payload begins with a ``nfgenmsg``; the attributes behind it are those of nf_tables.h, numbered in comments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from calico_debug.decode import nft_netlink_constants as nft
from calico_debug.decode.netlink_attributes import (
    NFGENMSG_SIZE,
    attribute,
    nested,
    number,
    parse,
    parse_list,
    string_attribute,
    text,
)
from calico_debug.decode.nft_netlink_expressions import RuleMachine
from calico_debug.decode.nft_netlink_sets import comment
from calico_debug.model.nft import Chain, Hook, Rule

if TYPE_CHECKING:
    from calico_debug.decode.nft_netlink_expressions import SetAccess


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The chains of a ``dormant`` one are not attached to their hooks."""

    family: str
    name: str
    handle: int
    dormant: bool


def decode_table(message: bytes) -> Table:
    """One NFT_MSG_NEWTABLE payload. Raises ValueError or KeyError when it is malformed."""
    attributes = parse(message[NFGENMSG_SIZE:])  # NAME=1 FLAGS=2 HANDLE=4
    dormant = bool(number(attributes.get(2, b"")) & nft.TABLE_DORMANT)
    return Table(family_of(message), text(attributes[1]), number(attributes.get(4, b"")), dormant)


def decode_chain(message: bytes) -> Chain:
    """One NFT_MSG_NEWCHAIN payload. Raises ValueError or KeyError when it is malformed."""
    attributes = parse(message[NFGENMSG_SIZE:])  # TABLE=1 HANDLE=2 NAME=3 HOOK=4 POLICY=5 TYPE=7
    family = family_of(message)
    hook = None
    if 4 in attributes:
        policy = "drop" if 5 in attributes and number(attributes[5]) == 0 else "accept"
        hook = _decode_hook(attributes[4], family, text(attributes.get(7, b"filter")), policy)
    return Chain(family, text(attributes[1]), text(attributes[3]), number(attributes[2]), hook)


def _decode_hook(data: bytes, family: str, kind: str, policy: str) -> Hook:
    attributes = parse(data)  # HOOKNUM=1 PRIORITY=2 DEV=3 DEVS=4
    hook = number(attributes[1])
    names = nft.HOOKS[family]
    if hook == nft.INET_INGRESS and family == "inet":
        name = "ingress"
    else:
        name = names[hook] if hook < len(names) else f"hook {hook}"
    devices = [text(attributes[3])] if 3 in attributes else []
    if 4 in attributes:
        devices = [text(device) for _, device in parse_list(attributes[4])]
    return Hook(kind, name, int.from_bytes(attributes[2], signed=True), policy, tuple(devices))


def decode_rule(message: bytes, sets: SetAccess) -> Rule:
    """One NFT_MSG_NEWRULE payload. Raises ValueError or KeyError when the rule's frame is malformed.

    What is not understood within the rule is an `UnknownStatement` of it.
    """
    attributes = parse(message[NFGENMSG_SIZE:])  # TABLE=1 CHAIN=2 HANDLE=3 EXPRESSIONS=4 USERDATA=7
    family = family_of(message)
    machine = RuleMachine(family, sets)
    machine.run([body for _, body in parse_list(attributes.get(4, b""))])
    return Rule(
        family,
        text(attributes[1]),
        text(attributes[2]),
        number(attributes[3]),
        tuple(machine.statements),
        comment(attributes.get(7, b"")),
    )


@dataclass(frozen=True, slots=True)
class RegisteredHook:
    """A function at a hook; ``chain`` is (family, table, name) when it is a base chain's."""

    priority: int
    function: str
    chain: tuple[str, str, str] | None


def decode_registered_hook(message: bytes) -> RegisteredHook:
    """One NFNL_MSG_HOOK_GET answer (include/uapi/linux/netfilter/nfnetlink_hook.h). Raises ValueError or KeyError."""
    attributes = parse(message[NFGENMSG_SIZE:])  # PRIORITY=2 FUNCTION_NAME=4 CHAIN_INFO=6
    chain = None
    description = parse(parse(attributes.get(6, b"")).get(1, b""))  # TABLE=1 FAMILY=2 NAME=3
    if description:
        chain = (nft.FAMILIES[number(description[2])], text(description[1]), text(description[3]))
    return RegisteredHook(int.from_bytes(attributes[2], signed=True), text(attributes.get(4, b"")), chain)


def family_of(message: bytes) -> str:
    """The family in a payload's ``nfgenmsg``, by nft's name. Raises ValueError for one that has none."""
    if len(message) < NFGENMSG_SIZE or message[0] not in nft.FAMILIES:
        raise ValueError("a message without a known family")
    return nft.FAMILIES[message[0]]


# ------------------------------------------------------------------------------------------------------- requests


def hook_request(hook: int, device: str = "") -> bytes:
    """Attributes that name a hook by its number: NFNLA_HOOK_HOOKNUM=1, NFNLA_HOOK_DEV=3 (family netdev)."""
    return attribute(1, hook.to_bytes(4)) + (string_attribute(3, device) if device else b"")


def rules_request(table: str, chain: str) -> bytes:
    """Attributes that restrict a dump of rules to one chain: NFTA_RULE_TABLE=1, NFTA_RULE_CHAIN=2."""
    return string_attribute(1, table) + string_attribute(2, chain)


def set_request(table: str, name: str) -> bytes:
    """Attributes that name a set: NFTA_SET_TABLE=1, NFTA_SET_NAME=2."""
    return string_attribute(1, table) + string_attribute(2, name)


def elements_request(table: str, name: str) -> bytes:
    """Attributes that name a set whose elements are wanted: NFTA_SET_ELEM_LIST_TABLE=1, …_SET=2."""
    return string_attribute(1, table) + string_attribute(2, name)


def element_request(table: str, name: str, key: bytes | None) -> bytes:
    """Attributes for one element, by its key, or for the catch-all element (None).

    NFTA_SET_ELEM_LIST_ELEMENTS=3 holds NFTA_LIST_ELEM=1 with NFTA_SET_ELEM_KEY=1 (NFTA_DATA_VALUE=1) or
    NFTA_SET_ELEM_FLAGS=3.
    """
    catch_all = attribute(3, nft.ELEMENT_CATCHALL.to_bytes(4))
    element = catch_all if key is None else nested(1, attribute(1, key))
    return elements_request(table, name) + nested(3, nested(1, element))
