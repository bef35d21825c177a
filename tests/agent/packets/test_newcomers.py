"""New interfaces are noticed, and a look is taken soon, and again later."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from calico_debug.agent.packets import newcomers
from calico_debug.agent.packets.newcomers import Newcomers
from calico_debug.errors import EvidenceError
from tests.lab import namespaces

pytestmark = pytest.mark.kernel

SECONDS = 20.0


@pytest.fixture
def node() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    (name,) = namespaces.create(["node"]).values()
    yield name
    namespaces.delete([name])


@contextmanager
def watching(node: str, look: Callable[[], None]) -> Iterator[None]:
    """Begun in the node's namespace, where the calling thread is not any more."""
    with ExitStack() as stack:
        with namespaces.entered(node):
            stack.enter_context(Newcomers(look))
        yield


def test_an_interface_that_comes_is_noticed(node: str) -> None:
    looked = threading.Semaphore(0)
    with watching(node, looked.release):
        assert not looked.acquire(timeout=0.3)
        namespaces.ip(node, ["link add cali1 type veth peer name other1"])
        begun = time.monotonic()
        assert looked.acquire(timeout=SECONDS)
        assert time.monotonic() - begun < SECONDS / 2
        # Once more: what the API says of a new pod comes later.
        assert looked.acquire(timeout=SECONDS)


def test_changes_without_an_end_do_not_put_it_off(node: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "AFTER", (0.2, 60.0))
    looked = threading.Event()
    with watching(node, looked.set):
        end = time.monotonic() + SECONDS
        number = 0
        while not looked.is_set():
            assert time.monotonic() < end
            number += 1
            namespaces.ip(node, [f"link add cali{number} type veth peer name other", f"link del cali{number}"])
        assert number > 1


def test_a_look_now_and_then_without_a_change(node: str) -> None:
    looked = threading.Semaphore(0)
    with namespaces.entered(node), Newcomers(looked.release, regular=0.05):
        assert all(looked.acquire(timeout=SECONDS) for _ in range(3))


def test_a_look_that_fails_is_told_once(node: str, caplog: pytest.LogCaptureFixture) -> None:
    looked = threading.Semaphore(0)

    def look() -> None:
        looked.release()
        raise EvidenceError("no list of pods")

    with caplog.at_level(logging.WARNING), namespaces.entered(node), Newcomers(look, regular=0.02):
        assert all(looked.acquire(timeout=SECONDS) for _ in range(4))
    assert [record.getMessage() for record in caplog.records] == ["new pods are not looked for: no list of pods"]
