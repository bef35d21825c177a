"""Which base chains run at a hook, and in which order.

Two facts of the kernel shape this (seen on Linux 6.18, source net/netfilter/core.c and nf_nat_core.c): of chains with
equal priority the one registered last runs first; and chains of type nat run inside one hook of the NAT core, whose
priority is fixed, so that their own priority orders them only among themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from calico_debug.walk.choices import Kind, Unsure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.model.nft import Chain
    from calico_debug.walk.compare import Answer

INGRESS, PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING, EGRESS = (
    "ingress",
    "prerouting",
    "input",
    "forward",
    "output",
    "postrouting",
    "egress",
)

CONNTRACK_PRIORITY = -200
"""NF_IP_PRI_CONNTRACK, at prerouting and output."""

NAT_PRIORITY = {PREROUTING: -100, INPUT: 100, OUTPUT: -100, POSTROUTING: 100}
"""NF_IP_PRI_NAT_DST and NF_IP_PRI_NAT_SRC: where the NAT core sits (include/uapi/linux/netfilter_ipv4.h)."""

NAT_SIDE = {PREROUTING: "dst", OUTPUT: "dst", POSTROUTING: "src", INPUT: "src"}
"""Which side of the connection each NAT hook may translate (HOOK2MANIP)."""

FAMILIES = {4: ("ip", "inet", "netdev"), 6: ("ip6", "inet", "netdev")}
DEVICE_HOOKS = frozenset({INGRESS, EGRESS})


WRITTEN_WITH = {("ip", "calico"): ("arp", "calico-arp"), ("ip6", "calico"): ("arp", "calico-arp")}
"""Felix creates table calico with its sets, and in a later transaction its chains, together with table calico-arp
(v3.32, felix/dataplane/linux/int_dataplane.go, apply). The younger of the two tables tells when the chains came.
"""


class Builtin(Enum):
    """Parts of the kernel that sit between base chains."""

    CONNTRACK = "conntrack"
    NAT = "nat"


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing that runs at a hook: a base chain, or a built-in part with the chains it runs itself."""

    chain: Chain | None
    builtin: Builtin | None = None
    nat_chains: tuple[Chain, ...] = ()


def by_registration(chains: Sequence[Chain], tables: Sequence[tuple[str, str]]) -> list[Chain]:
    """Base chains in the order in which they were most likely registered, oldest first.

    ``tables`` is in order of creation, ``chains`` in order of creation within each table. Across tables nothing records
    when a chain was registered: this is inferred from the tables, and only the kernel's own list of hooks is certain.
    """
    age = {table: number for number, table in enumerate(tables)}

    def written(chain: Chain) -> int:
        table = (chain.family, chain.table)
        return max(age.get(table, len(age)), age.get(WRITTEN_WITH.get(table, table), -1))

    return sorted(chains, key=written)


def stages(chains: Sequence[Chain], family: int, hook: str) -> tuple[Stage, ...]:
    """What runs at ``hook`` for packets of ``family`` 4 or 6, first to last. ``chains`` is in order of registration."""
    here = [
        (age, chain)
        for age, chain in enumerate(chains)
        if chain.hook is not None and chain.hook.hook == hook and chain.family in FAMILIES[family]
    ]
    plan: list[tuple[int, int, Stage]] = []
    nat: list[tuple[int, int, Chain]] = []
    # The NAT core joins all of its hooks with the first chain of type nat at any of them (nf_nat_register_fn).
    oldest = min(
        (age for age, c in enumerate(chains) if c.hook and c.hook.type == "nat" and c.family in FAMILIES[family]),
        default=-1,
    )
    for age, chain in here:
        assert chain.hook is not None
        if chain.hook.type == "nat":
            nat.append((chain.hook.priority, -age, chain))
        else:
            plan.append((chain.hook.priority, -age, Stage(chain)))
    if hook in (PREROUTING, OUTPUT):
        plan.append((CONNTRACK_PRIORITY, 1, Stage(None, Builtin.CONNTRACK)))
    if hook in NAT_PRIORITY:
        ordered = tuple(chain for _, _, chain in sorted(nat, key=lambda entry: entry[:2]))
        plan.append((NAT_PRIORITY[hook], -oldest, Stage(None, Builtin.NAT, ordered)))
    return tuple(stage for _, _, stage in sorted(plan, key=lambda entry: entry[:2]))


def applies_to(chain: Chain, device: str) -> Answer:
    """Whether a chain of a device hook is attached to ``device``; others apply everywhere."""
    assert chain.hook is not None
    if chain.hook.hook not in DEVICE_HOOKS or device in chain.hook.devices:
        return True
    if chain.hook.devices:
        return False
    return Unsure(
        Kind.UNKNOWN,
        f"chain {chain.name} of table {chain.family} {chain.table} is attached to a device that the listing leaves out",
    )
