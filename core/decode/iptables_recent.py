"""``-m recent``: lists of addresses that rules fill and ask.

Semantics: Linux net/netfilter/xt_recent.c (recent_mt). Options: iptables-extensions(8), libxt_recent.c (recent_save) of
iptables 1.8.9. kube-proxy keeps a client at its backend with it (Kubernetes pkg/proxy/iptables/proxier.go, ClientIP).
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.decode.iptables_extensions import Extension, Option, Setting
from calico_debug.decode.iptables_sets import ADDRESSES
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import Bitwise, Recent, Statement

if TYPE_CHECKING:
    from collections.abc import Sequence

OPERATIONS = {"--set": "set", "--rcheck": "check", "--update": "update", "--remove": "remove"}
DEFAULT_LIST = "DEFAULT"
"""What a list without a name is called (libxt_recent.c, recent_init)."""


def decode_recent(options: Sequence[Option], setting: Setting) -> list[Statement]:
    """The match of one rule; ``--reap`` only makes the kernel forget sooner."""
    given = {option.name: option for option in options}
    operations = [option for option in options if option.name in OPERATIONS]
    if len(operations) != 1:
        raise NotUnderstoodError("without an operation")
    field = ADDRESSES[setting.family, "dst" if "--rdest" in given else "src"]
    full = (1 << field.width) - 1
    mask = int(ip_address(given["--mask"].value)) if "--mask" in given else full
    return [
        Recent(
            given["--name"].value if "--name" in given else DEFAULT_LIST,
            OPERATIONS[operations[0].name],
            field if mask == full else Bitwise(field, mask, 0),
            operations[0].negated,
            number(given["--seconds"].value) if "--seconds" in given else 0,
            number(given["--hitcount"].value) if "--hitcount" in given else 0,
            "--rttl" in given,
        )
    ]


RECENT = Extension(
    {
        **dict.fromkeys((*OPERATIONS, "--reap", "--rttl", "--rsource", "--rdest"), 0),
        **dict.fromkeys(("--name", "--mask", "--seconds", "--hitcount"), 1),
    },
    decode_recent,
)
