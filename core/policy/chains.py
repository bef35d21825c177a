"""What the names of Calico's chains and the comments of its rules say. Tables, and small functions over them.

Names: felix/rules/rule_defs.go. The prefixes are the same from v3.28 to v3.32; what a release added is noted at its
line. Comments: felix/rules/{dispatch,endpoints,policy,static}.go of the same releases.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

IPTABLES_NAME_LIMIT: Final = 28
"""Longest chain name in iptables mode; v3.29 used it for policies and profiles in nftables mode too."""

NFTABLES_NAME_LIMIT: Final = 256
"""Longest chain name in nftables mode (knftables' NameLengthMax), without the layer's prefix."""

ANY_INTERFACE: Final = "any-interface-at-all"
"""Stands for the interface's name in the chains of a host endpoint with ``interfaceName: "*"``."""


class ChainKind(Enum):
    """What a chain of Calico is for."""

    HOOK = "hook"
    BASE = "base"
    POLICY = "policy"
    PROFILE = "profile"
    POLICY_GROUP = "policy group"
    WORKLOAD = "workload endpoint"
    HOST = "host endpoint"
    HOST_FORWARD = "host endpoint, forwarded traffic"
    WORKLOAD_DISPATCH = "workload dispatch"
    HOST_DISPATCH = "host dispatch"
    HOST_FORWARD_DISPATCH = "host dispatch, forwarded traffic"
    WORKLOAD_TO_HOST = "workload to host"
    FAILSAFE = "failsafe"
    CIDR_BLOCK = "service loop prevention"
    RPF_SKIP = "allowed spoofed sources"
    NAT = "address translation"
    ARP = "arp"
    ENDPOINT_MARK = "endpoint mark"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ChainRole:
    """What a chain's name says.

    ``layer`` is filter, nat, mangle or raw in nftables mode and "" in iptables mode, where the kernel's table says it.
    ``direction`` is "egress" or "ingress" as the endpoint sees it, or "". ``subject`` is what follows the prefix: an
    interface, or the id of a policy, profile or group; for a child chain of a dispatch tree the prefix it serves.
    """

    layer: str
    kind: ChainKind
    direction: str
    subject: str

    @property
    def hashed(self) -> bool:
        """Whether ``subject`` is a hash in place of an id that was too long."""
        return self.kind is not ChainKind.POLICY_GROUP and self.subject.startswith("_")


class _Name(NamedTuple):
    kind: ChainKind
    direction: str = ""


_PREFIXES: Final = {
    "cali-pi-": _Name(ChainKind.POLICY, "ingress"),
    "cali-po-": _Name(ChainKind.POLICY, "egress"),
    "cali-pri-": _Name(ChainKind.PROFILE, "ingress"),
    "cali-pro-": _Name(ChainKind.PROFILE, "egress"),
    "cali-gi-": _Name(ChainKind.POLICY_GROUP, "ingress"),
    "cali-go-": _Name(ChainKind.POLICY_GROUP, "egress"),
    "cali-tw-": _Name(ChainKind.WORKLOAD, "ingress"),
    "cali-fw-": _Name(ChainKind.WORKLOAD, "egress"),
    "cali-th-": _Name(ChainKind.HOST, "egress"),
    "cali-fh-": _Name(ChainKind.HOST, "ingress"),
    "cali-thfw-": _Name(ChainKind.HOST_FORWARD, "egress"),
    "cali-fhfw-": _Name(ChainKind.HOST_FORWARD, "ingress"),
    "cali-sm-": _Name(ChainKind.ENDPOINT_MARK),
    "cali-arp-": _Name(ChainKind.ARP),  # since v3.32; cali-arp-dispatch is an exact name below
}

_NAMES: Final = {
    "cali-INPUT": _Name(ChainKind.BASE),
    "cali-FORWARD": _Name(ChainKind.BASE),
    "cali-OUTPUT": _Name(ChainKind.BASE),
    "cali-PREROUTING": _Name(ChainKind.BASE),
    "cali-POSTROUTING": _Name(ChainKind.BASE),
    "cali-failsafe-in": _Name(ChainKind.FAILSAFE, "ingress"),
    "cali-failsafe-out": _Name(ChainKind.FAILSAFE, "egress"),
    "cali-wl-to-host": _Name(ChainKind.WORKLOAD_TO_HOST, "egress"),
    "cali-cidr-block": _Name(ChainKind.CIDR_BLOCK),
    "cali-rpf-skip": _Name(ChainKind.RPF_SKIP),
    "cali-nat-outgoing": _Name(ChainKind.NAT),
    "cali-fip-dnat": _Name(ChainKind.NAT),
    "cali-fip-snat": _Name(ChainKind.NAT),
    "cali-arp-dispatch": _Name(ChainKind.ARP),  # since v3.32
    "cali-forward-check": _Name(ChainKind.ENDPOINT_MARK),
    "cali-forward-endpoint-mark": _Name(ChainKind.ENDPOINT_MARK),
}

_DISPATCH: Final = {
    "cali-from-wl-dispatch": _Name(ChainKind.WORKLOAD_DISPATCH, "egress"),
    "cali-to-wl-dispatch": _Name(ChainKind.WORKLOAD_DISPATCH, "ingress"),
    "cali-from-host-endpoint": _Name(ChainKind.HOST_DISPATCH, "ingress"),
    "cali-to-host-endpoint": _Name(ChainKind.HOST_DISPATCH, "egress"),
    "cali-from-hep-forward": _Name(ChainKind.HOST_FORWARD_DISPATCH, "ingress"),
    "cali-to-hep-forward": _Name(ChainKind.HOST_FORWARD_DISPATCH, "egress"),
    "cali-set-endpoint-mark": _Name(ChainKind.ENDPOINT_MARK),
    "cali-from-endpoint-mark": _Name(ChainKind.ENDPOINT_MARK),
}
"""Chains that may be the root of a tree: a child is called ``<root>-<next character of the interfaces' names>``.
Trees: iptables mode always, nftables mode in v3.29; since v3.30 nftables dispatches workloads by verdict maps
(felix/rules/dispatch.go).
"""

_LAYER: Final = re.compile(r"(filter|nat|mangle|raw)-")
_HOOK_CHAIN: Final = re.compile(r"INPUT|FORWARD|OUTPUT|PREROUTING|POSTROUTING")
_PREFIX: Final = re.compile("|".join(re.escape(prefix) for prefix in _PREFIXES))
_CHILD: Final = re.compile("(" + "|".join(re.escape(root) for root in _DISPATCH) + ")-(.+)", re.DOTALL)


def limited_id(prefix: str, suffix: str, limit: int) -> str:
    """``prefix + suffix``, or the prefix with a hash of the suffix where that would be longer than ``limit``.

    GetLengthLimitedID of libcalico-go (lib/hash/unique_id.go; before v3.32 felix/hashutils/id.go), which panics where
    the limit leaves more room than the 43 characters of a hash: no chain has the name that this function gives then.
    Raises `ValueError` if the limit leaves no room for a hash.
    """
    suffix = suffix or "_"
    length = len(prefix.encode()) + len(suffix.encode())
    if length < limit or (length == limit and not suffix.startswith("_")):
        return prefix + suffix
    room = limit - 1 - len(prefix.encode())
    if room <= 0:
        raise ValueError(f"a name of {limit} characters has no room for the prefix {prefix!r} and a hash")
    digest = base64.urlsafe_b64encode(hashlib.sha256(suffix.encode()).digest()).decode().rstrip("=")
    return f"{prefix}_{digest[:room]}"


_HASHED_SUBJECTS: Final = {
    limited_id(prefix, ANY_INTERFACE, IPTABLES_NAME_LIMIT): ANY_INTERFACE
    for prefix, name in _PREFIXES.items()
    if name.kind in (ChainKind.HOST, ChainKind.HOST_FORWARD)
}


@lru_cache(maxsize=65536)
def chain_role(name: str) -> ChainRole | None:
    """What the chain called ``name`` is for; None if it is not Calico's. Works for nftables and iptables mode."""
    layer = ""
    if prefixed := _LAYER.match(name):
        layer, name = prefixed[1], name[prefixed.end() :]
        if _HOOK_CHAIN.fullmatch(name):
            return ChainRole(layer, ChainKind.HOOK, "", name)
    if not name.startswith("cali-"):
        return None
    if exact := _NAMES.get(name) or _DISPATCH.get(name):
        subject = name.removeprefix("cali-") if exact.kind is ChainKind.BASE else ""
        return ChainRole(layer, exact.kind, exact.direction, subject)
    if child := _CHILD.fullmatch(name):
        return ChainRole(layer, *_DISPATCH[child[1]], child[2])
    if known := _PREFIX.match(name):
        subject = _HASHED_SUBJECTS.get(name) or name[known.end() :]
        return ChainRole(layer, *_PREFIXES[known[0]], subject)
    return ChainRole(layer, ChainKind.OTHER, "", name.removeprefix("cali-"))


class CommentKind(Enum):
    """What the comment of a rule says that the rule does."""

    NONE = "no text"
    POLICY = "first rule of a policy"
    PROFILE = "first rule of a profile"
    TIER_START = "start of tier"
    TIER_END = "end of tier"
    POLICY_ACCEPTED = "return if policy accepted"
    PROFILE_ACCEPTED = "return if profile accepted"
    GROUP_VERDICT = "return on verdict of a policy group"
    NO_PROFILE = "no profiles matched"
    UNKNOWN_INTERFACE = "unknown interface"
    ADMIN_DISABLED = "endpoint admin disabled"
    HOST_ACTION = "configured action for traffic from a workload to its host"
    ACCEPTED = "policy accepted"
    HOST_ACCEPTED = "host endpoint policy accepted"
    FORWARD_DEFAULT = "forwarded traffic is allowed without policy"
    ENCAPSULATED_BY_WORKLOAD = "encapsulated packet from a workload"
    TUNNEL_REFUSED = "tunnel packet from a stranger"
    TUNNEL_ALLOWED = "tunnel packet of a node"
    PACKET_RATE = "packet rate limit"
    CONNECTION_LIMIT = "connection limit"
    BPF = "rule beside the BPF dataplane"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class RuleComment:
    """A rule's comment, read. ``hash`` is "" if Calico did not write the rule; ``text`` is the part for people.

    ``name`` is the tier, the profile, or the policy as ``<ns>/<name>`` or ``<name>`` (``Name`` of v3.28 to v3.31, where
    ``policy_kind`` is "Policy"). ``action`` is Drop or Reject where the text names one.
    """

    hash: str
    text: str
    kind: CommentKind
    name: str = ""
    policy_kind: str = ""
    direction: str = ""
    action: str = ""


_DENY = r"(?P<action>Drop|Reject)"
_DIRECTION = r"(?P<direction>ingress|egress)"
_HOSTS = r"(?:from|to other) (?:Calico|allowed) hosts"
_BPF = (
    r"Pre-approved by BPF programs\.|From workload without BPF seen mark|To workload, .*|Mark pre-established flows\."
    r"|Accept packets from flows that pre-date BPF\.|REJECT/rst packets from unknown TCP flows\.|BPF loopback SNAT"
)

_COMMENTS: Final = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        # policy.go. Annotations of the API's rule stand before it, so only its end is fixed.
        (rf"(?:.* )?Profile (?P<name>\S+) {_DIRECTION}", CommentKind.PROFILE),
        (rf"(?:.* )?(?P<policy_kind>[A-Za-z]*Policy) (?P<name>\S+) {_DIRECTION}", CommentKind.POLICY),
        # endpoints.go. v3.28 has one tier and no start of it; the end has the tier's name since v3.30.
        (r"Start of tier (?P<name>\S+)", CommentKind.TIER_START),
        (rf"(?:End of tier (?P<name>\S+)\. )?{_DENY} if no policies passed packet", CommentKind.TIER_END),
        (r"Return if policy accepted", CommentKind.POLICY_ACCEPTED),
        (r"Return if profile accepted", CommentKind.PROFILE_ACCEPTED),
        (r"Return on verdict", CommentKind.GROUP_VERDICT),
        (rf"{_DENY} if no profiles matched", CommentKind.NO_PROFILE),
        (r"Endpoint admin disabled", CommentKind.ADMIN_DISABLED),
        (r"Allow forwarded traffic by default|Return for accepted forward traffic", CommentKind.FORWARD_DEFAULT),
        (rf"{_DENY} (?:VXLAN|IPinIP) encapped packets originating in workloads", CommentKind.ENCAPSULATED_BY_WORKLOAD),
        # since v3.30
        (rf"{_DENY} packets over {_DIRECTION} packet rate limit", CommentKind.PACKET_RATE),
        (rf"(?:Clear|Mark packets within) {_DIRECTION} packet rate limit(?: mark)?", CommentKind.PACKET_RATE),
        (rf"{_DENY} connections over {_DIRECTION} connection limit", CommentKind.CONNECTION_LIMIT),
        # dispatch.go
        (r"Unknown (?:interface|endpoint)", CommentKind.UNKNOWN_INTERFACE),
        # static.go
        (r"Policy explicitly accepted packet\.", CommentKind.ACCEPTED),
        (r"Host endpoint policy accepted packet\.", CommentKind.HOST_ACCEPTED),
        (r"Configured DefaultEndpointToHostAction", CommentKind.HOST_ACTION),
        (rf"{_DENY} (?:IPIP|IPv[46] VXLAN) packets from non-(?:Calico|allowed) hosts", CommentKind.TUNNEL_REFUSED),
        (rf"Allow (?:IPIP|IPv[46] VXLAN) packets {_HOSTS}", CommentKind.TUNNEL_ALLOWED),
        (r"Allow (?:incoming|outgoing) IPv[46] Wireguard packets", CommentKind.TUNNEL_ALLOWED),
        # felix/dataplane/linux/int_dataplane.go
        (_BPF, CommentKind.BPF),
    )
)

_HASH: Final = re.compile(r"cali:([A-Za-z0-9_-]+)(?:[; ]+|$)")


@lru_cache(maxsize=65536)
def parse_comment(comment: str) -> RuleComment:
    """The comment of a rule. For iptables join the rule's comments with "; " or a space, in their order."""
    head = _HASH.match(comment)
    if head is None:
        return RuleComment("", comment, CommentKind.OTHER if comment else CommentKind.NONE)
    text = comment[head.end() :].strip()
    if not text:
        return RuleComment(head[1], "", CommentKind.NONE)
    for pattern, kind in _COMMENTS:
        if found := pattern.fullmatch(text):
            said = {key: value for key, value in found.groupdict().items() if value}
            return RuleComment(head[1], text, kind, **said)
    return RuleComment(head[1], text, CommentKind.OTHER)
