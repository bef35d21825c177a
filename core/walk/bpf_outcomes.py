"""What the programs of one node make of a packet: the types that the walk and the explanation share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from calico_debug.walk.bpf_policy import PolicyProgram, PolicyRun, Verdict

if TYPE_CHECKING:
    from calico_debug.model.bytecode import Section
    from calico_debug.model.explanation import Finding
    from calico_debug.walk.bpf_state import PolicyPacket

INGRESS, EGRESS, XDP = "ingress", "egress", "xdp"
"""Hooks as tc means them: into the host from the interface, and out of the host to it; XDP is before both."""

SEEN = 0x01000000
BYPASS = 0x03000000
NAT_OUT = 0x03800000
MASQUERADE_SELF = 0x03600000
SKIP_FIB = 0x01100000
BYPASS_XDP = 0x03500000
LINUX_ESTABLISHED = 0x08000000
"""Marks of felix/bpf-gpl/bpf.h (CALI_SKB_MARK_…). Rules that Felix leaves in the host set the last one, where
Linux's own conntrack knows the connection.
"""


class Onwards(Enum):
    """How a packet leaves the program at tc ingress."""

    STACK = "stack"
    """Up into the host's own stack, where the rules that Felix leaves there run."""
    FORWARD = "forward"
    """Forwarded by the program itself, past the host's rules."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A packet that a program dropped without a policy: ``reason`` is a key of `model.explanation.REASONS`.

    ``active`` tells that the sender gets an answer.
    """

    reason: str
    detail: str
    active: bool = False


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """A policy program's run at an interface. ``direction`` is the endpoint's own view, ``host`` a host endpoint's.

    ``findings`` tell what is odd about the program that was run; ``rules`` are all rules in it, where Felix lists them.
    ``program`` and ``asked`` are what was run, and the packet as the program met it. ``untracked`` tells that it was an
    XDP program, of untracked policy.
    """

    interface: str
    direction: str
    host: bool
    run: PolicyRun
    findings: tuple[Finding, ...] = ()
    rules: tuple[Section, ...] = ()
    program: PolicyProgram | None = None
    asked: PolicyPacket | None = None
    untracked: bool = False

    @property
    def denied(self) -> bool:
        """Whether the packet is dropped."""
        return self.run.verdict not in (Verdict.ALLOWED, Verdict.PASSED)

    @property
    def accepted_untracked(self) -> bool:
        """Whether untracked policy allowed the packet: nothing remembers it, and answers need policy of their own."""
        return self.untracked and self.run.verdict is Verdict.ALLOWED


@dataclass(frozen=True, slots=True)
class Backend:
    """Where service translation sends a packet.

    ``node`` is the node it has to be tunnelled to, None when local; ``routed`` tells whether Calico's routes know it.
    ``maglev`` tells that a program of its own picked it, which asks less about the packet.
    """

    address: int
    port: int
    node: int | None
    routed: bool
    maglev: bool = False
