"""Which of root's rights this process has (capabilities(7)), and which of them the programs need that it runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

STATUS = Path("/proc/self/status")

CAPABILITIES: Mapping[str, int] = {
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Bits by name (Linux include/uapi/linux/capability.h)."""

NEEDED: Mapping[str, str] = {
    "nft": "CAP_NET_ADMIN",
    "conntrack": "CAP_NET_ADMIN",
    "ipset": "CAP_NET_ADMIN",
    "iptables-save": "CAP_NET_ADMIN",
    "ip6tables-save": "CAP_NET_ADMIN",
    "iptables-nft-save": "CAP_NET_ADMIN",
    "ip6tables-nft-save": "CAP_NET_ADMIN",
    "iptables-legacy-save": "CAP_NET_ADMIN",
    "ip6tables-legacy-save": "CAP_NET_ADMIN",
    "bpftool": "CAP_SYS_ADMIN",
}
"""What a program cannot do its work without. Programs and maps are found by id: Linux kernel/bpf/syscall.c,
bpf_prog_get_fd_by_id and bpf_map_get_fd_by_id."""

REMEDY = "run as root on the node, or give it to the agent's container (docs/security.md)"


def lacking(program: str, status: Path = STATUS) -> str:
    """The capability that a program needs and this process does not have, "" for none."""
    needed = NEEDED.get(program, "")
    return needed if needed and not has(needed, status) else ""


def has(capability: str, status: Path = STATUS) -> bool:
    """Whether this process has a capability of `CAPABILITIES`; also when the kernel does not tell."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        held = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return True
    return bool(held >> CAPABILITIES[capability] & 1)
