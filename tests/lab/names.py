"""How Calico names things: chains, sets, rule hashes, NFLOG prefixes. One function a rule of the naming.

Source: felix/rules/rule_defs.go, endpoints.go (PolicyGroup), nflogprefix.go, libcalico-go/lib/hash/id.go,
felix/nftables/table.go and renderer.go; releases as given where they differ.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.lab.model import Direction, Policy, Release

SHORT_KINDS = {
    "NetworkPolicy": "np",
    "GlobalNetworkPolicy": "gnp",
    "KubernetesNetworkPolicy": "knp",
    "KubernetesClusterNetworkPolicy": "kcnp",
}
IPTABLES_LIMIT, NFTABLES_LIMIT = 28, 256
SET_NAME_LIMIT = 31
COMMENT_LIMIT = 128
_UNSAFE = re.compile(r"[^A-Za-z0-9_ @%+=:,./-]")


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def limited(prefix: str, suffix: str, limit: int) -> str:
    """GetLengthLimitedID: too long a name keeps its prefix and hashes the rest."""
    whole = prefix + suffix
    if len(whole) > limit or (len(whole) == limit and suffix.startswith("_")):
        return f"{prefix}_{_base64(hashlib.sha256(suffix.encode()).digest())}"[:limit]
    return whole if suffix else prefix + "_"


def model_name(policy: Policy) -> str:
    """The name string that identified a policy before v3.32: ``ns/tier.name``, ``ns/knp.default.name``."""
    name = policy.name
    if policy.kind == "KubernetesNetworkPolicy":
        name = f"knp.default.{name}"
    elif policy.kind == "KubernetesClusterNetworkPolicy":
        name = f"kanp.adminnetworkpolicy.{name}"
    elif not name.startswith(f"{policy.tier}."):
        name = f"{policy.tier}.{name}"
    return f"{policy.namespace}/{name}" if policy.namespace else name


def policy_id(policy: Policy, release: Release) -> str:
    """What NFLOG prefixes call a policy, and v3.32's chains too."""
    if release != "v3.32":
        return model_name(policy)
    place = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    return f"{SHORT_KINDS[policy.kind]}/{place}"


def policy_chain(policy: Policy, direction: Direction, release: Release) -> str:
    prefix = "cali-pi-" if direction == "ingress" else "cali-po-"
    if release == "v3.32":
        return limited(prefix, policy_id(policy, release), NFTABLES_LIMIT)
    limit = IPTABLES_LIMIT if release == "v3.29" else NFTABLES_LIMIT
    return limited(prefix, f"{policy.tier}/{model_name(policy)}", limit)


def policy_comment(policy: Policy, direction: Direction, release: Release) -> str:
    if release != "v3.32":
        return f"Policy {model_name(policy)} {direction}"
    place = f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name
    return f"{policy.kind} {place} {direction}"


def profile_chain(profile: str, direction: Direction, release: Release) -> str:
    prefix = "cali-pri-" if direction == "ingress" else "cali-pro-"
    return limited(prefix, profile, IPTABLES_LIMIT if release == "v3.29" else NFTABLES_LIMIT)


def group_chain(policies: Sequence[Policy], direction: Direction, release: Release) -> str:
    """PolicyGroup.UniqueID: one line a fact, the tier among them before v3.32. Cut to 28 characters everywhere."""
    lines = [policies[0].full_selector(), "inbound" if direction == "ingress" else "outbound", str(len(policies))]
    if release == "v3.32":
        lines += [f"{{Name: {p.name}, Namespace: {p.namespace}, Kind: {p.kind}}}" for p in policies]
    else:
        lines = [policies[0].tier, *lines, *(model_name(p) for p in policies)]
    digest = hashlib.sha3_224("".join(f"{line}\n" for line in lines).encode()).digest()
    prefix = "cali-gi-" if direction == "ingress" else "cali-go-"
    return prefix + _base64(digest)[: IPTABLES_LIMIT - len(prefix)]


def set_id(kind: str, content: str) -> str:
    """MakeUniqueID: ``s`` selector, ``n`` named port, ``svc``/``svcnoport`` service."""
    return f"{kind}:{_base64(hashlib.sha224(f'{kind}:{content}'.encode()).digest())}"


def set_name(identity: str, version: int) -> str:
    """A set's name in the kernel: ``cali40``/``cali60`` and the id, cut to 31, with nft's restrictions."""
    return f"cali{version}0{identity}"[:SET_NAME_LIMIT].replace(":", "-")


def nflog_prefix(action: str, owner: str, direction: Direction, index: int | None, identity: str | None) -> str:
    """``API0|np/ns/name``: action, owner (Policy or pRofile), direction, rule index, who; hashed from 63 on."""
    prefix = f"{action[0].upper()}{owner}{direction[0].upper()}{'' if index is None else index}"
    if identity is not None:
        prefix += f"|{identity}"
    if len(prefix) >= 63:
        middle = limited("", prefix, 42)
        prefix = f"{prefix[:10]}{middle}_{prefix[-10:]}"
    return prefix


def rule_hashes(chain: str, rendered: Sequence[str]) -> list[str]:
    """Each rule's hash covers the one before: a hash identifies chain, position and content."""
    previous = hashlib.sha224(chain.encode()).digest()
    hashes = []
    for text in rendered:
        previous = hashlib.sha224(previous + text.encode()).digest()
        hashes.append(_base64(previous)[:16])
    return hashes


def comment(rule_hash: str, texts: Sequence[str]) -> str:
    """``cali:<hash>; <text> <text>``, each text cut so that the whole stays within nft's 128 characters."""
    head = f"cali:{rule_hash};"
    if not texts:
        return head
    room = (COMMENT_LIMIT - len(head)) // len(texts) - 1
    return " ".join([head, *(_UNSAFE.sub("_", text)[:room] for text in texts)])
