"""What new connections would meet, reduced to what is compared."""

from __future__ import annotations

from ipaddress import ip_address

from calico_debug.switch.answers import Asker
from calico_debug.switch.model import Question, RecordedEnd, Way
from calico_debug.switch.questions import asked_question
from tests.switch.sources import engine


def test_the_address_that_the_far_end_sees() -> None:
    asker = Asker(engine("nft"))
    question = asked_question(asker, "external", "node/node2:30180", "tcp", "node2")
    answer = asker.answer(question)
    (way,) = answer.ways
    assert (answer.verdict, way.seen_as, way.seen_name) == ("allowed", "172.30.0.12", "node node2")
    assert way.backend == asker.ends.name(ip_address("10.244.1.10"), 80)
    (rewrite,) = answer.rewrites
    assert (rewrite.node, rewrite.before, rewrite.after) == ("node2", question.source.ip, "172.30.0.12")
    assert rewrite.by == "kube-proxy, table ip kube-proxy, chain masquerading"
    kept = Asker(engine("bpf"))
    assert kept.answer(question).ways[0].seen_as == question.source.ip
    assert kept.answer(question).rewrites == ()


def test_several_backends_with_a_verdict_each() -> None:
    asker = Asker(engine("nft"))
    answer = asker.answer(asked_question(asker, "node/node1", "svc/yaobank/summary", None, None))
    assert answer.verdict == "undetermined"
    assert sorted(way.verdict for way in answer.ways) == ["allowed", "denied"]
    assert {way.backend.name for way in answer.ways if way.backend} == {"summary-a-66c8", "summary-b-66c8"}


def test_without_translation() -> None:
    asker = Asker(engine("iptables"))
    answer = asker.answer(asked_question(asker, "client/client-5f8b", "stars/backend-6c9d:6379", "tcp", None))
    assert answer.ways == (Way("allowed", None, "10.244.1.30", "client/client-5f8b"),)


def test_what_cannot_be_asked_is_an_answer() -> None:
    both_outside = Question(RecordedEnd("outside", "198.51.100.1"), RecordedEnd("outside", "fd00::1", 80), 6)
    answer = Asker(engine("nft")).answer(both_outside)
    assert (answer.verdict, answer.decision) == ("undetermined", None)
    assert answer.problem
