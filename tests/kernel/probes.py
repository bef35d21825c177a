"""Probes: one packet each, as the kernel meets it and as the walk does, and the comparison of the two."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from calico_debug.model.nft import Rule
from calico_debug.model.values import Partial
from calico_debug.walk.choices import Alternative, Chooser, Kind, explore
from calico_debug.walk.connections import ConnectionTable
from calico_debug.walk.context import Unrouted
from calico_debug.walk.node import NodeWalker
from calico_debug.walk.packet import ECHO_REPLY, ECHO_REPLY_V6, ECHO_REQUEST, ECHO_REQUEST_V6, Packet
from calico_debug.walk.passage import DELIVERED, DENIED, LOST, SENT, UNDECIDED, Pass
from tests.kernel.frames import ICMP, ICMPV6, TCP, UDP, Datagram
from tests.kernel.matches import V4, V6
from tests.kernel.router import PORTS, ROUTER, Router, Seen, counters, moved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RuleKey = tuple[str, str, str, int]
MOST = 64
"""Alternatives explored for one packet; more count as not compared."""
SYN, ACK, RST, FIN = 2, 16, 4, 1

_UNREACHABLE = {ICMP: 3, ICMPV6: 1}
_CODES = {
    "icmp": {
        "net-unreachable": 0,
        "host-unreachable": 1,
        "prot-unreachable": 2,
        "port-unreachable": 3,
        "net-prohibited": 9,
        "host-prohibited": 10,
        "admin-prohibited": 13,
    },
    "icmpv6": {"no-route": 0, "admin-prohibited": 1, "addr-unreachable": 3, "port-unreachable": 4},
}
"""nft(8), REJECT STATEMENT, and RFC 792, RFC 1812, RFC 4443."""
_ICMPX = {
    4: {"no-route": 0, "port-unreachable": 3, "host-unreachable": 1, "admin-prohibited": 13},
    6: {"no-route": 0, "port-unreachable": 4, "host-unreachable": 3, "admin-prohibited": 1},
}
"""nft_reject.c, icmp_code_v4 and icmp_code_v6."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One packet: in through ``link``, or out of the router itself when that is ""."""

    link: str
    datagram: Datagram
    mark: int = 0

    def send(self, router: Router) -> list[Seen]:
        """Send it; everything that came out because of it."""
        return router.inject(self.link, self.datagram) if self.link else router.emit(self.datagram, self.mark)

    def step(self) -> Step:
        """It, for the walk, as the first of its connection or one of the same direction."""
        return Step(lambda _arrived: self.packet(), self.link)

    def packet(self) -> Packet:
        """It, for the walk."""
        d = self.datagram
        icmp = (d.sport, d.dport) if d.protocol in (ICMP, ICMPV6) else None
        ports = (None, None) if icmp else (d.sport, d.dport)
        flags = d.flags if d.protocol == TCP else None
        made = Packet(d.source.version, d.protocol, int(d.source), int(d.destination), *ports, icmp, flags)
        made.mark = self.mark
        return made


@dataclass(frozen=True, slots=True)
class Reality:
    """What a probe did: rules and counter objects that counted, the packet where it came out, and answers."""

    rules: Counter[RuleKey]
    objects: Counter[tuple[str, str, str]]
    arrivals: tuple[Seen, ...]
    answers: tuple[Seen, ...]


def watch(router: Router, before: str, probe: Probe) -> tuple[Reality, str]:
    """Send a probe; ``before`` is the listing before it, the one behind it is returned."""
    seen = probe.send(router)
    after = router.listing()
    (rules0, objects0), (rules1, objects1) = counters(before), counters(after)
    token = probe.datagram.payload
    own = tuple(s for s in seen if s.datagram.payload == token and not s.datagram.is_error)
    others = tuple(s for s in seen if s not in own)
    return Reality(Counter(moved(rules0, rules1)), Counter(moved(objects0, objects1)), own, others), after


@dataclass(frozen=True, slots=True)
class Step:
    """One packet of a connection: made from those before it as they arrived, in through ``link`` or "" for the host.

    ``script`` answers the questions of its walk as reality did.
    """

    make: Callable[[Sequence[Packet]], Packet]
    link: str
    script: tuple[int, ...] = ()


def predict(walker: NodeWalker, steps: Sequence[Step]) -> list[Alternative[Pass]]:
    """Everything the walk thinks possible for the last step, after the others."""

    def run(chooser: Chooser) -> Pass:
        table = ConnectionTable(walker.state, ask_evidence=False)
        arrived: list[Packet] = []
        for step in steps[:-1]:
            arrived.append(_walk(walker, step, arrived, table, Chooser(step.script)).packet)
        return _walk(walker, steps[-1], arrived, table, chooser)

    return list(explore(run, MOST + 1))


def _walk(walker: NodeWalker, step: Step, arrived: Sequence[Packet], table: ConnectionTable, chooser: Chooser) -> Pass:
    packet = step.make(arrived)
    if step.link:
        return walker.receive(packet, step.link, table.track, chooser)
    return walker.send(packet, table.track, chooser)


def told(alternatives: Sequence[Alternative[Pass]]) -> list[tuple[object, ...]]:
    """Alternatives in a form that compares: two decoders must give the same walk, whatever the order of a map."""
    return sorted(
        (
            (
                alternative.result.ending,
                alternative.result.interface,
                alternative.result.packet.ends(),
                alternative.result.packet.mark,
                [_key(rule) for rule in alternative.result.trace.counted],
                [(d.rule and _key(d.rule), d.hook, d.stack, d.reject) for d in alternative.result.trace.denials],
                alternative.result.trace.undecided,
                [(c.kind, c.why) for c in alternative.choices],
            )
            for alternative in alternatives
        ),
        key=repr,
    )


def _key(rule: Rule) -> RuleKey:
    return (rule.family, rule.table, rule.chain, rule.handle)


def _counted(made: Pass) -> tuple[Counter[RuleKey], Counter[tuple[str, str, str]]]:
    rules: Counter[RuleKey] = Counter()
    objects: Counter[tuple[str, str, str]] = Counter()
    for rule in made.trace.counted:
        counter = rule.counter
        assert counter is not None
        if counter.name:
            objects[rule.family, rule.table, counter.name] += 1
        else:
            rules[_key(rule)] += 1
    return rules, objects


def differs(made: Pass, real: Reality, probe: Probe) -> str:
    """How an alternative differs from reality, "" when it is what happened."""
    rules, objects = _counted(made)
    if made.ending == UNDECIDED:
        return "" if not rules - real.rules else f"counted before it stopped: {rules - real.rules}"
    if rules != real.rules:
        return f"counters: walk alone {dict(rules - real.rules)}, kernel alone {dict(real.rules - rules)}"
    if objects != real.objects:
        return f"counter objects: walk {dict(objects)}, kernel {dict(real.objects)}"
    if made.ending in (SENT, DELIVERED):
        return _arrival(made, real)
    if real.arrivals:
        return f"the walk says {made.ending}, but it arrived: {real.arrivals}"
    if made.ending == DENIED:
        return _refusal(made, real, probe)
    assert made.ending == LOST, made.ending
    return _lost(made, real)


def _arrival(made: Pass, real: Reality) -> str:
    place = made.interface if made.ending == SENT else ROUTER
    if len(real.arrivals) != 1:
        return f"the walk says {made.ending}, the kernel: {len(real.arrivals)} arrivals"
    seen = real.arrivals[0]
    ends = made.packet.ends()
    if (
        seen.place != place
        or int(seen.datagram.source) != ends.source
        or int(seen.datagram.destination) != ends.destination
    ):
        return f"arrival: walk {place} {ends}, kernel {seen}"
    for name, port, real_port in (
        ("source", ends.source_port, seen.datagram.sport),
        ("destination", ends.destination_port, seen.datagram.dport),
    ):
        if isinstance(port, Partial) and not port.may_equal(real_port):
            return f"{name} port: walk {port}, kernel {real_port}"
        if isinstance(port, int) and port != real_port:
            return f"{name} port: walk {port}, kernel {real_port}"
    if seen.place == ROUTER and seen.datagram.dport not in PORTS:
        return ""  # an answer to the router: no socket waits for it there, and the router says so
    return "" if not real.answers else f"answers to a packet that arrived: {real.answers}"


def _refusal(made: Pass, real: Reality, probe: Probe) -> str:
    reject = made.trace.denials[-1].reject
    datagram = probe.datagram
    answered = [s.datagram for s in real.answers]
    if made.packet.source != int(datagram.source):
        return ""  # the answer goes to where the source was translated to
    if reject is None or datagram.flags & RST:
        return "" if not answered else f"the walk says silence, the kernel answered {answered}"
    if len(answered) != 1:
        return f"the walk says {reject}, the kernel answered {answered}"
    if reject.kind == "tcp reset":
        return "" if answered[0].flags & RST else f"the walk says a reset, the kernel {answered}"
    version = datagram.source.version
    code = _ICMPX[version][reject.code] if reject.kind == "icmpx" else _CODES[reject.kind][reject.code]
    got = (answered[0].protocol, answered[0].sport, answered[0].dport)
    protocol = ICMP if version == 4 else ICMPV6
    wanted = (protocol, _UNREACHABLE[protocol], code)
    return "" if got == wanted else f"the walk says {reject}, the kernel sent {got}"


def _lost(made: Pass, real: Reality) -> str:
    """The kernel's own answer to a packet without a way out."""
    event = made.trace.events[-1]
    assert isinstance(event, Unrouted)
    got = [(s.datagram.protocol, s.datagram.sport, s.datagram.dport) for s in real.answers]
    if not got or made.packet.local:
        return ""  # nothing to the sender within; and an answer may find no way back itself
    if not event.answer:
        return f"the walk says silence, the kernel sent {got}"
    protocol = ICMP if made.packet.family == 4 else ICMPV6
    code = _CODES["icmp" if protocol == ICMP else "icmpv6"][event.answer]
    return "" if got == [(protocol, _UNREACHABLE[protocol], code)] else f"the walk says {event}, the kernel sent {got}"


def matching(alternatives: Sequence[Alternative[Pass]], real: Reality, probe: Probe) -> list[Alternative[Pass]]:
    """The alternatives that are what happened."""
    return [a for a in alternatives if a.result.ending != UNDECIDED and not differs(a.result, real, probe)]


def answer(arrived: Datagram) -> Datagram:
    """What the destination says to a packet: SYN/ACK, a datagram, an echo reply; the payload stays."""
    source, destination, protocol = arrived.destination, arrived.source, arrived.protocol
    if protocol in (ICMP, ICMPV6):
        kind = ECHO_REPLY if protocol == ICMP else ECHO_REPLY_V6
        return Datagram(source, destination, protocol, kind, 0, 0, arrived.payload)
    flags = SYN | ACK if protocol == TCP else 0
    return Datagram(source, destination, protocol, arrived.dport, arrived.sport, flags, arrived.payload)


def answer_step(link: str, script: tuple[int, ...]) -> Step:
    """The answer to the first packet, for the walk: open ports stay as they are."""

    def make(arrived: Sequence[Packet]) -> Packet:
        first = arrived[0]
        icmp = {ICMP: (ECHO_REPLY, 0), ICMPV6: (ECHO_REPLY_V6, 0)}.get(first.protocol)
        flags = SYN | ACK if first.protocol == TCP else None
        ends = (first.destination, first.source, first.dport, first.sport)
        return Packet(first.family, first.protocol, *ends, icmp, flags)

    return Step(make, link, script)


def judge(alternatives: Sequence[Alternative[Pass]], real: Reality, probe: Probe) -> str:
    """ "" when one alternative is what happened; else how each differs. Too many alternatives are not judged."""
    if len(alternatives) > MOST:
        return ""
    differences = [differs(alternative.result, real, probe) for alternative in alternatives]
    if "" in differences:
        return ""
    lines = [
        f"  {a.result.ending} after {[(c.why, c.taken) for c in a.choices]}: {difference}"
        for a, difference in zip(alternatives, differences, strict=True)
    ]
    return "\n".join([f"{probe} did {real}", *lines[:8]])


def is_open(alternatives: Sequence[Alternative[Pass]]) -> str:
    """Why the walk has no answer, "" when it has one, or several that the kernel chooses between."""
    for alternative in alternatives:
        if alternative.result.ending == UNDECIDED:
            return alternative.result.trace.undecided
        for choice in alternative.choices:
            if choice.kind is Kind.UNKNOWN:
                return choice.why
    return ""


# ------------------------------------------------------------------------------------------------------ generation

_numbers = iter(range(20_000, 10_000_000))


def _unused(number: int) -> int:
    """A port or ICMP identifier that no earlier probe of this process had lately."""
    return 20_000 + number % 40_000


@st.composite
def probes(draw: Callable[[st.SearchStrategy[object]], object], reasonable: bool = False) -> Probe:
    """Probes of every kind: through the router, to it, from it, and within it."""
    family: int = draw(st.sampled_from((4, 4, 6)))  # type: ignore[assignment]
    every = V4 if family == 4 else V6
    clients, servers, own, service = every[:2], every[2:4], every[4:6], every[6]
    path = draw(st.sampled_from(("forward", "forward", "forward", "back", "input", "out", "loop")))
    link, mark = "", 0
    if path == "forward":
        link, source = "eth-c", draw(st.sampled_from(clients))
        destination = draw(st.sampled_from((*servers, service)))
    elif path == "back":
        link, source, destination = "eth-s", draw(st.sampled_from(servers)), draw(st.sampled_from(clients))
    elif path == "input":
        link, source, destination = "eth-c", draw(st.sampled_from(clients)), draw(st.sampled_from(own))
    elif path == "out":
        source = draw(st.sampled_from(own))
        destination = draw(st.sampled_from((*clients, *servers, service)))
    else:
        source = draw(st.sampled_from((*own, every[7])))
        destination = every[7] if source == every[7] else draw(st.sampled_from((*own, every[7])))
    if not link:
        mark = draw(st.sampled_from((0, 1, 0x10)))  # type: ignore[assignment]
    protocol = draw(st.sampled_from((TCP, TCP, UDP, ICMP if family == 4 else ICMPV6)))
    flags = draw(st.sampled_from((SYN,) if reasonable else (SYN, SYN, SYN, SYN, ACK, RST, SYN | ACK, FIN | ACK)))
    port = draw(st.sampled_from(PORTS))
    if protocol in (ICMP, ICMPV6):
        kind = ECHO_REQUEST if protocol == ICMP else ECHO_REQUEST_V6
        datagram = Datagram(ip_address(source), ip_address(destination), protocol, kind, 0)  # type: ignore[arg-type]
    else:
        flags = flags if protocol == TCP else 0
        datagram = Datagram(ip_address(source), ip_address(destination), protocol, 20_000, port, flags)  # type: ignore[arg-type]
    return Probe(link, datagram, mark)  # type: ignore[arg-type]


def fresh(probe: Probe) -> Probe:
    """The probe with a source port (or ICMP identifier) and a payload that no earlier one had."""
    number = next(_numbers)
    token = number.to_bytes(8, "big")
    datagram = probe.datagram
    if datagram.protocol in (ICMP, ICMPV6):
        return replace(probe, datagram=replace(datagram, payload=_unused(number).to_bytes(2, "big") + token))
    return replace(probe, datagram=replace(datagram, sport=_unused(number), payload=token))
