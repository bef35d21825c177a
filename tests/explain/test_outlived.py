"""Open connections that the current policy would refuse: the recorded case, and made-up ones."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from calico_debug.explain import outlived
from calico_debug.explain.engine import Engine
from calico_debug.explain.outlived import StaleReport, find_outlived
from calico_debug.model.explanation import FlowExplanation
from calico_debug.model.flow import Flow
from tests.explain.world import Node, Tier, World, deny, endpoint, policy
from tests.recordings import Recording, recordings
from tests.walk.recorded_bpf import RecordedCluster


def report(source: Recording) -> StaleReport:
    return find_outlived(Engine(source.source), source.source.nodes())


@pytest.mark.parametrize("recording", recordings("-stale-nft"), ids=lambda one: one.name)
def test_what_really_happened(recording: Recording) -> None:
    """A connection was opened, then a policy denied it: it lived on, and a new one met silence."""
    truth = recording.json("stale.json")
    found = report(recording)
    (flow,) = found.refused
    assert found.undetermined == ()
    assert (str(flow.client), str(flow.server[0]), flow.server[1]) == (truth["src_ip"], truth["dst_ip"], truth["dport"])
    (connection,) = flow.connections
    assert (connection.client[1], connection.nodes) == (truth["sport"], ("node1", "node2"))
    assert (flow.answer.verdict, truth["new"].split()[0]) == ("denied", "timeout")
    decision = flow.answer.decision
    assert decision is not None
    assert decision.policy is not None
    assert decision.policy.name == truth["policy"]
    assert flow.change is not None
    assert flow.change.exact


@pytest.mark.parametrize(
    "recording",
    [one for ending in ("-nft", "-iptables", "-bpf") for one in recordings(ending) if "stale" not in one.name],
    ids=lambda one: one.name,
)
def test_no_policy_changed_in_other_recordings(recording: Recording) -> None:
    found = report(recording)
    assert found.live > 0
    assert (found.refused, found.undetermined) == ((), ())


def conntrack(*ports: int, destination: str = "10.244.1.2", service: str = "") -> str:
    return "".join(
        f"tcp 6 100 ESTABLISHED src=10.244.1.1 dst={service or destination} sport={port} dport=80 "
        f"src={destination} dst=10.244.1.1 sport=80 dport={port} [ASSURED] use=1\n"
        for port in ports
    )


def world(lines: str, *rules: tuple[str, ...]) -> World:
    chains = {
        **endpoint("cali-tw-cali2", [Tier("default", ["gnp/p"])]),
        **policy("gnp", "p", "ingress", *rules),
    }
    return World(Node(1, conntrack=lines, chains=chains))


def _recording(asked: list[Flow], explain: Callable[..., FlowExplanation]) -> Callable[..., FlowExplanation]:
    def ask(flow: Flow, *, as_new: bool = False) -> FlowExplanation:
        asked.append(flow)
        return explain(flow, as_new=as_new)

    return ask


def test_connections_of_one_pair_are_one_question() -> None:
    made = world(conntrack(40000, 40001, 40002), deny("dport=80"))
    asked: list[Flow] = []
    explain = made.engine.explain
    made.engine.explain = _recording(asked, explain)  # type: ignore[method-assign]
    found = find_outlived(made.engine, ["n1"])
    (flow,) = found.refused
    assert ([one.client[1] for one in flow.connections], len(asked)) == ([40000, 40001, 40002], 1)
    assert flow.change is None


def test_a_rule_on_the_source_port_is_asked_one_by_one() -> None:
    made = world(conntrack(40000, 40001), deny("sport=40001"), deny("sport=50000"), (" mark|10000",))
    found = find_outlived(made.engine, ["n1"])
    (flow,) = found.refused
    assert [one.client[1] for one in flow.connections] == [40001]
    assert (found.live, found.undetermined) == (2, ())


def test_what_is_allowed_is_not_listed() -> None:
    found = find_outlived(world(conntrack(40000), (" mark|10000", "return")).engine, ["n1"])
    assert (found.live, found.refused, found.undetermined) == (1, (), ())


def test_a_backend_that_the_service_no_longer_has() -> None:
    tables = {"ip nat": {"p@prerouting:-100:accept:nat": ["daddr=10.96.0.9 dnat:10.244.1.3|80"]}}
    lines = conntrack(40000, service="10.96.0.9")
    made = World(Node(1, pods=[1, 2, 3], conntrack=lines, tables=tables))
    (flow,) = find_outlived(made.engine, ["n1"]).undetermined
    assert flow.answer.why == "the service no longer sends connections to 10.244.1.2:80"


def test_too_many_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlived, "MOST_QUESTIONS", 1)
    lines = conntrack(40000) + conntrack(40000, destination="10.244.1.3")
    found = find_outlived(World(Node(1, pods=[1, 2, 3], conntrack=lines)).engine, ["n1"])
    (flow,) = found.undetermined
    assert flow.answer.why == outlived.NOT_ASKED


def test_a_client_from_outside_came_in_by_the_other_node() -> None:
    """Both nodes track it; only n1 sent it on, so it is asked about from there."""
    line = (
        "tcp 6 100 ESTABLISHED src=198.51.100.7 dst=10.244.2.1 sport=40000 dport=80 "
        "src=10.244.2.1 dst=198.51.100.7 sport=80 dport=40000 [ASSURED] use=1\n"
    )
    made = World(Node(1, conntrack=line), Node(2, conntrack=line))
    asked: list[Flow] = []
    explain = made.engine.explain
    made.engine.explain = _recording(asked, explain)  # type: ignore[method-assign]
    assert find_outlived(made.engine, ["n2"]).live == 1
    assert [flow.via for flow in asked] == ["n2"]
    asked.clear()
    find_outlived(made.engine, ["n1", "n2"])
    assert len(asked) == 1


def test_ebpf_connections_whose_policy_was_replaced() -> None:
    """The recorded DNS server's interface gets Felix's program that denies: its old connections are found, and who
    approved them.
    """
    healthy = RecordedCluster()
    state = healthy.engine.states["node2"]
    routes = state.routing(4).tables["main"]
    device = next(one.hops[0].interface for one in routes if str(one.destination) == "10.244.2.53/32")
    attached = next(one for one in state.bpf.calico_attachments(device) if one.hook == "egress")
    (program, *_) = state.bpf.reach.policy(attached, 4).programs

    def deny_all(files: dict[str, bytes]) -> None:
        listed = json.loads(files["bpf/prog-show.json"])
        for one in listed:
            one["name"] = "calico_tc_deny" if one["id"] == program else one["name"]
        files["bpf/prog-show.json"] = json.dumps(listed).encode()

    found = find_outlived(RecordedCluster(deny_all).engine, ["node1", "node2"])
    assert {str(flow.server[0]) for flow in found.refused} == {"10.244.2.53"}
    assert {flow.answer.verdict for flow in found.refused} == {"denied"}
    connections = [one for flow in found.refused for one in flow.connections]
    assert len(connections) == 10
    assert all(one.approved_by == ("client side", "server side") and one.idle is not None for one in connections)
