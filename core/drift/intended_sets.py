"""The IP sets that a node needs for its policies, with the members that the API's objects give them.

Names in the dataplane (v3.28 to v3.32): NameForMainIPSet in felix/ipsets/ipset_defs.go, LegalizeSetName in
felix/nftables/ipsets.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from calico_debug.intent.ip_sets import NAME_LIMIT, IpSet, ip_sets, members, set_number
from calico_debug.intent.model import Endpoint

if TYPE_CHECKING:
    from calico_debug.intent.applies import Applicability
    from calico_debug.intent.ip_sets import Member

Span = tuple[int, int]
"""First and last address."""

Port = tuple[int, int, int]
"""Address, protocol and port."""


@dataclass(slots=True)
class IntendedSet:
    """A set. ``what`` says of what, ``users`` are the policies that need it. Members by IP version, with their owners.

    ``doubt`` says why members cannot be told, "" where they can.
    """

    id: str
    what: str
    users: dict[str, None] = field(default_factory=dict)
    spans: dict[int, dict[Span, str]] = field(default_factory=lambda: {4: {}, 6: {}})
    ports: dict[int, dict[Port, str]] = field(default_factory=lambda: {4: {}, 6: {}})
    has_ports: bool = False
    doubt: str = ""

    def names(self, family: int) -> tuple[str, str]:
        """What the set is called in iptables mode and in nftables mode."""
        name = f"cali{family}0{self.id}"[:NAME_LIMIT]
        return name, name.replace(":", "-")

    @property
    def number(self) -> int:
        """What the set is called in eBPF mode, as a rule (`set_number`)."""
        return set_number(self.id)


def intended_sets(applicability: Applicability, node: str) -> Mapping[str, IntendedSet]:
    """The sets that the rules of policies need which select an endpoint of the node, by Felix's id."""
    local = [endpoint for endpoint in applicability.endpoints if endpoint.node == node]
    found: dict[str, IntendedSet] = {}
    for policy in applicability.policies:
        if policy.staged or not any(applicability.selects(policy, endpoint) for endpoint in local):
            continue
        for rule in (*policy.ingress, *policy.egress):
            for one in ip_sets(rule):
                if one.id not in found:
                    found[one.id] = _intended(applicability, one)
                found[one.id].users.setdefault(str(policy.key))
    return found


def _intended(applicability: Applicability, one: IpSet) -> IntendedSet:
    has_ports = bool(one.named_port) or one.id.startswith("svc:")
    intended = IntendedSet(one.id, _what(one), has_ports=has_ports)
    should = members(applicability, one)
    intended.doubt = "; ".join(should.doubts)
    for member in should.found:
        label = _label(applicability, member)
        if isinstance(member, tuple):
            address, protocol, port = member
            intended.ports[address.version][int(address), protocol, port] = label
        else:
            span = int(member.network_address), int(member.broadcast_address)
            intended.spans[member.version][span] = label
    return intended


def _what(one: IpSet) -> str:
    if one.service is not None:
        return f"backends of service {'/'.join(one.service)}"
    selected = f"everything with {one.selector}"
    return f"port {one.named_port} of {selected}" if one.named_port else selected


def _label(applicability: Applicability, member: Member) -> str:
    """Whose a member is, "" where nobody is known."""
    address = member[0] if isinstance(member, tuple) else member.network_address
    owners = applicability.owners.of(address)
    single = isinstance(member, tuple) or member.prefixlen == member.max_prefixlen
    for owner in owners:
        if isinstance(owner, Endpoint):
            if single:
                return str(owner)
        elif isinstance(member, tuple) or member in owner.nets:
            return f"network set {owner.namespace}/{owner.name}" if owner.namespace else f"network set {owner.name}"
    return ""
