"""What can be meant, and what contradicts itself."""

from __future__ import annotations

import pytest

from calico_debug.errors import UsageError
from calico_debug.model.subject import KEYS, Subject, checked

FLOW = Subject("a", "b")


@pytest.mark.parametrize(
    "subject",
    [
        FLOW,
        Subject("a", "b", "udp", "node1"),
        Subject(pod="a/b"),
        Subject(pod="a/b", drops=True),
        Subject(policy="a/b", drops=True, namespace="c"),
        Subject(drops=True),
    ],
)
def test_meant(subject: Subject) -> None:
    assert checked(subject) is subject
    assert subject.is_flow == bool(subject.source)


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        (Subject(), "--from and --to missing"),
        (Subject("a"), "--to missing"),
        (Subject(destination="b"), "--from missing"),
        (Subject(protocol="tcp"), "--from and --to missing"),
        (Subject("a", drops=True), "--drops and --from contradict each other"),
        (Subject("a", "b", drops=True), "--drops and --from and --to contradict each other"),
        (Subject(pod="a", policy="b"), "--pod and --policy contradict each other"),
        (Subject("a", pod="a"), "--pod and --from contradict each other"),
        (Subject(policy="a", protocol="tcp"), "--policy and --protocol contradict each other"),
    ],
)
def test_contradictions(subject: Subject, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        checked(subject)


def test_as_json() -> None:
    assert Subject("a", "b", "udp").document == {"from": "a", "to": "b", "protocol": "udp"}
    assert Subject(drops=True).document == {"drops": True}
    assert KEYS.keys() == set(Subject.__dataclass_fields__)
