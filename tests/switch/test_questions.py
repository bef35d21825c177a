"""Which flows are asked about."""

from __future__ import annotations

from collections import Counter

import pytest

from calico_debug.errors import UsageError
from calico_debug.explain.live_connections import Tally, open_connections
from calico_debug.switch.answers import Asker
from calico_debug.switch.model import Question
from calico_debug.switch.questions import asked_question, matrix, of_connections, question_key
from tests.explain.world import Node, World
from tests.switch.sources import engine


def kinds(question: Question) -> tuple[str, str]:
    return question.source.kind, question.destination.kind


def test_the_matrix_of_a_recording() -> None:
    made = list(matrix(engine("nft")))
    assert Counter(map(kinds, made)).keys() == {
        ("pod", "service"),
        ("pod", "node"),
        ("pod", "outside"),
        ("node", "service"),
        ("node", "pod"),
        ("outside", "node"),
        ("outside", "service"),
    }
    assert len({question_key(one) for one in made}) == len(made)
    ports = {(one.destination.port, one.via) for one in made if kinds(one) == ("outside", "node")}
    assert ports == {(port, node) for port in (30002, 30180, 32735) for node in ("node1", "node2")}
    assert all(one.via for one in made if one.source.kind == "outside")
    assert {one.protocol for one in made if one.destination.port == 53} == {6, 17}


def connection(sport: int, pod: int = 1) -> str:
    return (
        f"tcp 6 100 ESTABLISHED src=10.244.1.{pod} dst=10.244.2.1 sport={sport} dport=80 "
        f"src=10.244.2.1 dst=10.244.1.{pod} sport=80 dport={sport} [ASSURED] use=1\n"
    )


def test_connections_that_policy_cannot_tell_apart_are_one_question() -> None:
    world = World(Node(1, conntrack="".join(map(connection, (1000, 1001, 1002))) + connection(1003, 2)), Node(2))
    states = list(world.engine.states.values())
    live = open_connections(states, world.engine.cluster, Tally(), passing=True)
    questions = of_connections(Asker(world.engine), live)
    assert sum(one.connections for one in questions) == 4
    assert questions[0].connections >= 3
    assert {one.origin for one in questions} == {"connection"}
    assert [one.destination.port for one in questions] == [80] * len(questions)


def test_a_flow_that_somebody_names() -> None:
    asker = Asker(engine("nft"))
    made = asked_question(asker, "client/client-5f8b", "svc/stars/backend", None, None)
    assert (made.source.name, made.destination.name, made.destination.port) == ("client-5f8b", "backend", 6379)
    assert (made.protocol, made.origin) == (6, "asked")
    outside = asked_question(asker, "external", "node/node1:30002", "tcp", "node1")
    assert (outside.source.kind, outside.via, outside.destination.port) == ("outside", "node1", 30002)
    with pytest.raises(UsageError):
        asked_question(asker, "client/nobody", "svc/stars/backend", None, None)
