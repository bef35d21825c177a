"""One packet through one node."""

from __future__ import annotations

from calico_debug.model.nft import Constant, Hook, Match, Meta, Nat, Payload, Reject, Rule, SetMeta, Verdict
from calico_debug.walk.choices import Chooser
from calico_debug.walk.connections import ConnectionTable
from calico_debug.walk.context import Routed, Translated, Unrouted
from calico_debug.walk.packet import Packet
from calico_debug.walk.passage import DELIVERED, DENIED, LOST, SENT, UNDECIDED, Pass
from tests.walk.worlds import CLIENT, COUNT, OWN, SERVER, SERVICE, Rules, packet, walker

DESTINATION = Payload("network", 128, 32)
DROP = Verdict("drop")


def _hook(hook: str, priority: int = 0, kind: str = "filter") -> Hook:
    return Hook(kind, hook, priority)


def _receive(chains: Rules, about: Packet | None = None, link: str = "eth-c", **given: object) -> Pass:
    node = walker(chains, **given)
    return node.receive(about or packet(), link, ConnectionTable(node.state, ask_evidence=False).track, Chooser())


def _send(chains: Rules, about: Packet, **given: object) -> Pass:
    node = walker(chains, **given)
    return node.send(about, ConnectionTable(node.state, ask_evidence=False).track, Chooser())


def _everywhere() -> Rules:
    rules = Rules()
    for hook in ("prerouting", "input", "forward", "output", "postrouting"):
        rules.chain(hook, (COUNT,), hook=_hook(hook))
    return rules


def _chains(made: Pass) -> list[str]:
    return [rule.chain for rule in made.trace.counted]


def test_the_hooks_of_each_path() -> None:
    through, to_it = _receive(_everywhere()), _receive(_everywhere(), packet(destination=OWN))
    assert (through.ending, through.interface, _chains(through)) == (
        SENT,
        "eth-s",
        ["prerouting", "forward", "postrouting"],
    )
    assert (to_it.ending, _chains(to_it)) == (DELIVERED, ["prerouting", "input"])
    out = _send(_everywhere(), packet(source=OWN))
    assert (out.ending, _chains(out)) == (SENT, ["output", "postrouting"])
    itself = _send(_everywhere(), packet(source=OWN, destination=OWN))
    assert (itself.ending, _chains(itself)) == (DELIVERED, ["output", "postrouting", "prerouting", "input"])


def test_the_gateway_is_the_next_hop() -> None:
    made = _receive(Rules(), packet(destination=SERVICE))
    assert made.next_hop == 0x0A0200FE
    assert _receive(Rules()).next_hop is None


def test_a_service_is_translated_before_it_is_routed() -> None:
    target = (Match(DESTINATION, "==", SERVICE), Nat("dnat", Constant(OWN), None, Constant(22), None, 4))
    made = _receive(Rules().chain("nat", target, hook=_hook("prerouting", -100, "nat")), packet(destination=SERVICE))
    translated = next(event for event in made.trace.events if isinstance(event, Translated))
    assert (made.ending, made.packet.destination, made.packet.dport) == (DELIVERED, OWN, 22)
    assert (translated.side, isinstance(translated.rule, Rule)) == ("dst", True)


def test_output_keeps_its_device_and_the_packet_leaves_by_the_new_route() -> None:
    rules = Rules().chain("nat", (Nat("dnat", Constant(CLIENT)),), hook=_hook("output", -100, "nat"))
    rules.chain("after", (Match(Meta("oifname"), "==", "eth-s"), COUNT), hook=_hook("output"))
    rules.chain("post", (Match(Meta("oifname"), "==", "eth-c"), COUNT), hook=_hook("postrouting"))
    made = _send(rules, packet(source=OWN, destination=SERVER))
    assert (made.interface, _chains(made)) == ("eth-c", ["after", "post"])


def test_only_route_chains_move_a_marked_packet() -> None:
    given = {
        "rules": [{"priority": 5, "src": "all", "fwmark": "0x1", "table": "100"}],
        "routes": [{"dst": "default", "dev": "eth-c", "table": "100"}],
    }
    for kind, interface in (("filter", "eth-s"), ("route", "eth-c")):
        rules = Rules().chain("mark", (SetMeta("mark", Constant(1)),), hook=_hook("output", -150, kind))
        assert _send(rules, packet(source=OWN), **given).interface == interface


def test_denials_and_refusals_end_it() -> None:
    made = _receive(Rules().chain("f", (Reject("icmp", "port-unreachable"),), hook=_hook("forward")))
    assert (made.ending, made.trace.denials[-1].hook) == (DENIED, "forward")


def test_packets_without_a_way_are_lost_with_the_reason() -> None:
    def lost(made: Pass) -> tuple[str, str, str]:
        event = made.trace.events[-1]
        assert isinstance(event, Unrouted)
        return made.ending, event.reason, event.answer

    assert lost(
        _receive(Rules(), packet(destination=SERVICE), rules=[{"priority": 1, "src": "all", "action": "prohibit"}])
    ) == (
        LOST,
        "no-route",
        "admin-prohibited",
    )
    assert lost(_receive(Rules(), sysctl="net.ipv4.conf.eth-c.forwarding = 0\n")) == (LOST, "not-forwarding", "")
    assert lost(_receive(Rules(), packet(source=OWN))) == (LOST, "rpf", "")
    assert lost(_receive(Rules(), packet(source=0x7F000001))) == (LOST, "rpf", "")
    assert lost(
        _receive(Rules(), packet(destination=0x0B000001), routes=[{"type": "unreachable", "dst": "11.0.0.0/8"}])
    ) == (
        LOST,
        "no-route",
        "host-unreachable",
    )


def test_a_loopback_address_is_not_lent_to_the_network() -> None:
    rules = Rules().chain("nat", (Nat("dnat", Constant(SERVER)),), hook=_hook("output", -100, "nat"))
    made = _send(rules, packet(source=0x7F000001, destination=0x7F000001))
    assert made.ending == LOST
    allowed = _send(
        rules, packet(source=0x7F000001, destination=0x7F000001), sysctl="net.ipv4.conf.all.route_localnet = 1\n"
    )
    assert allowed.ending == SENT


def test_broadcasts_are_for_the_host_itself() -> None:
    assert _receive(Rules(), packet(destination=0x0A0100FF)).ending == DELIVERED


def test_what_cannot_be_decided_says_why() -> None:
    made = _receive(Rules().chain("f", (Verdict("jump", "gone"),), hook=_hook("forward")))
    assert (made.ending, made.trace.missing) == (UNDECIDED, True)
    assert "chain gone" in made.trace.undecided


def test_routes_are_told() -> None:
    made = _receive(Rules())
    routed = next(event for event in made.trace.events if isinstance(event, Routed))
    assert (routed.interface, routed.local) == ("eth-s", False)
