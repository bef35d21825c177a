"""The generation of a kernel's nf_tables: a number that each change to the rules of its network namespace raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.netlink_attributes import NFGENMSG_SIZE, parse
from calico_debug.decode.nft_netlink_constants import NFT_MSG_GETGEN, NLM_F_ACK
from calico_debug.errors import CalicoDebugError

if TYPE_CHECKING:
    from calico_debug.evidence.source import NodeEvidence

GENERATION_ID = 1
"""NFTA_GEN_ID (include/uapi/linux/netfilter/nf_tables.h)."""


def generation(evidence: NodeEvidence) -> int | None:
    """The generation now, None for evidence that is not live, or a kernel or an agent that does not tell."""
    try:
        ask = evidence.nftables
        answers = list(ask(NFT_MSG_GETGEN, NLM_F_ACK, 0, b"")) if ask is not None else []
        found = parse(answers[0][NFGENMSG_SIZE:]).get(GENERATION_ID) if answers else None
    except (CalicoDebugError, ValueError):
        return None
    return int.from_bytes(found) if found is not None else None
