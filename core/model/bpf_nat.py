"""Services of Calico's eBPF dataplane. Sources: felix/bpf-gpl/nat*.h and felix/bpf/nat, v3.28 to master.

Times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns).
"""

from __future__ import annotations

from dataclasses import dataclass

from calico_debug.model.bpf_words import (
    FRONTEND_FLAGS,
    names_of_bits,
)
from calico_debug.model.routing import Address, Network

EVERY_BACKEND_BLOCKED = 0xFFFFFFFF
"""`Frontend.count` of an entry that drops."""


class _ServiceFlags:
    """What the count and the flags of a frontend say, with its key or without."""

    __slots__ = ()

    count: int
    flags: int

    @property
    def blackhole(self) -> bool:
        """Whether packets from these sources are dropped (outside of loadBalancerSourceRanges)."""
        return self.count == EVERY_BACKEND_BLOCKED

    @property
    def flag_words(self) -> tuple[str, ...]:
        """Names of the flags: "external-local", "internal-local", "nat-exclude", "maglev"."""
        return names_of_bits(self.flags, FRONTEND_FLAGS)


@dataclass(frozen=True, slots=True)
class Frontend(_ServiceFlags):
    """A service's address and port, for clients of ``sources``.

    Backends have ordinals 0 to ``count`` - 1, of which the first ``local_count`` are on this node. An address of all
    ones is the wildcard of node ports. ``affinity_timeout`` is in seconds.
    """

    address: Address
    port: int
    protocol: int
    sources: Network
    service_id: int
    count: int
    local_count: int
    affinity_timeout: int
    flags: int


@dataclass(frozen=True, slots=True)
class FrontendTarget(_ServiceFlags):
    """What a frontend's lookup yields: a `Frontend` without the key, which the kernel does not return."""

    service_id: int
    count: int
    local_count: int
    affinity_timeout: int
    flags: int


@dataclass(frozen=True, slots=True)
class NatBackend:
    """Backend number ``ordinal`` of a service. Also an entry of the Maglev table, where ``ordinal`` is a slot."""

    service_id: int
    ordinal: int
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Affinity:
    """The backend that ``client`` sticks to; a client of 0.0.0.0 or :: is the node itself at connect time."""

    address: Address
    port: int
    protocol: int
    client: Address
    backend_address: Address
    backend_port: int
    last_used: int


@dataclass(frozen=True, slots=True)
class SocketService:
    """The service that a socket's backend stands for. ``protocol`` is None in the map of reverse UDP NAT."""

    cookie: int
    backend_address: Address
    backend_port: int
    service_address: Address
    service_port: int
    protocol: int | None = None
