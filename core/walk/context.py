"""What one packet leaves behind on one node: the context of the walk and the trace that explanations are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from calico_debug.model.nft import Chain, Reject, Rule, Verdict
    from calico_debug.model.routing import Route
    from calico_debug.model.values import Partial, Value
    from calico_debug.walk.bpf_outcomes import PolicyResult
    from calico_debug.walk.choices import Chooser
    from calico_debug.walk.packet import Ends, Packet, Tracking


class Matched:
    """A rule whose statements all ran. Marks are the packet's before and after; ``verdict`` is None when it goes on."""

    __slots__ = ("hook", "hypothetical", "mark_after", "mark_before", "rule", "verdict")

    def __init__(
        self,
        rule: Rule,
        verdict: Verdict | Reject | None,
        mark_before: int | Partial,
        mark_after: int | Partial,
        hook: str,
        hypothetical: bool,
    ) -> None:
        """One of these is made for every matching rule: a plain class, since thousands are made a second."""
        self.rule = rule
        self.verdict = verdict
        self.mark_before = mark_before
        self.mark_after = mark_after
        self.hook = hook
        self.hypothetical = hypothetical


@dataclass(frozen=True, slots=True)
class Tracked:
    """What conntrack made of the packet."""

    tracking: Tracking
    state: int


@dataclass(frozen=True, slots=True)
class Translated:
    """Addresses were rewritten: ``side`` is "src" or "dst"; ``rule`` is None when an earlier decision is applied.

    ``service`` tells that Calico's own NAT maps did it, ``at_connect`` that they did it when a process
    connected, before there was a packet.
    """

    side: str
    before: Ends
    after: Ends
    rule: Rule | None
    hypothetical: bool
    service: bool = False
    at_connect: bool = False


@dataclass(frozen=True, slots=True)
class Routed:
    """A routing decision: ``local`` delivery, or out of ``interface``. ``route`` is None when there is no way."""

    route: Route | None
    interface: str
    local: bool
    hypothetical: bool


@dataclass(frozen=True, slots=True)
class Unrouted:
    """The kernel discarded the packet outside nftables: ``reason`` is a key of `model.explanation.REASONS`.

    ``answer`` is the ICMP error that it sends back, under nft's name for it ("host-unreachable"), or
    "connect-refused" for a system call that fails; "" for silence.
    """

    reason: str
    detail: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class PolicyRan:
    """A policy program of the eBPF dataplane ran; a denial in it ends the packet."""

    result: PolicyResult
    hypothetical: bool


@dataclass(frozen=True, slots=True)
class PassedUnasked:
    """A program of the eBPF dataplane let the packet on without policy, for a ``reason`` of `REASONS`."""

    reason: str
    direction: str


@dataclass(frozen=True, slots=True)
class Tunnelled:
    """A program of the eBPF dataplane wraps the packet itself and sends it to the node with this address."""

    node: int
    hypothetical: bool


Event = Matched | Tracked | Translated | Routed | Unrouted | PolicyRan | PassedUnasked | Tunnelled


@dataclass(frozen=True, slots=True)
class Denial:
    """The rule, or the policy of a base chain when ``rule`` is None, that ended the packet.

    ``stack`` names the chains on the way, base chain first. ``reject`` is set for an active refusal. ``position`` is
    the number of events of the trace so far, ``counted`` that of counters moved so far, ``ends`` the addresses at that
    moment. ``hypothetical`` tells that an earlier denial had ended the packet already.
    """

    rule: Rule | None
    chain: Chain
    hook: str
    stack: tuple[str, ...]
    reject: Reject | None
    position: int
    counted: int
    ends: Ends
    hypothetical: bool


@dataclass(frozen=True, slots=True)
class Onward:
    """How the walk pretends that a denied packet went on: leave ``chain`` as if it had returned, with ``mark`` set."""

    chain: str
    mark: int


class Trace:
    """Everything that happened to one packet on one node, in order.

    ``undecided`` says why the walk stopped short of an answer, and ``missing`` that evidence was lacking for it.
    """

    __slots__ = ("counted", "denials", "events", "hypothetical", "missing", "undecided")

    def __init__(self, hypothetical: bool = False) -> None:
        """An empty trace; ``hypothetical`` when an earlier denial is being overlooked already."""
        self.events: list[Event] = []
        self.counted: list[Rule] = []
        self.denials: list[Denial] = []
        self.hypothetical = hypothetical
        self.undecided: str = ""
        self.missing = False


class Undecided(Exception):  # noqa: N818 - an answer, not a fault
    """The walk cannot go on without guessing; the text says what stopped it."""


class Surroundings(Protocol):
    """What rules ask the node for."""

    def fib(self, packet: Packet, hook: str, result: str, selectors: frozenset[str], present: bool) -> Value | None:
        """The value of a fib expression."""

    def masquerade_address(self, packet: Packet) -> int:
        """The address that source translation takes from the outgoing interface."""

    def redirect_address(self, packet: Packet) -> int:
        """The host's own address that ``redirect`` sends the packet to."""


class Context:
    """The state of the walk that compiled rules read and change."""

    __slots__ = ("added", "chooser", "hook", "nat_rule", "packet", "surroundings", "trace")

    def __init__(self, packet: Packet, chooser: Chooser, trace: Trace, surroundings: Surroundings) -> None:
        """One context for one packet on one node."""
        self.packet = packet
        self.chooser = chooser
        self.trace = trace
        self.surroundings = surroundings
        self.hook = ""
        self.nat_rule: Rule | None = None
        self.added: set[tuple[str, str, str, object]] = set()

    def fib(self, result: str, selectors: frozenset[str], present: bool) -> Value | None:
        """The value of a fib expression for the packet as it is now."""
        return self.surroundings.fib(self.packet, self.hook, result, selectors, present)
