from __future__ import annotations

import threading
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import names as names_module
from calico_debug.agent.names import Names, read_names
from calico_debug.errors import EvidenceError
from calico_debug.policy.identity import PolicyIdentity
from tests.evidence.memory import MemorySource
from tests.recordings import recordings

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

POLICY = PolicyIdentity("GlobalNetworkPolicy", "", "security.quarantine", "security")


def recorded() -> EvidenceSource:
    return recordings("1-nft")[0].source


def test_policies_and_on_request_pods() -> None:
    known = read_names(recorded(), pods=True)
    assert known.problem == ""
    assert known.index.find(POLICY) is not None
    assert known.pods[ip_address("10.244.1.30")] == ("client", "client-5f8b")
    assert read_names(recorded(), pods=False).pods == {}


def test_without_a_cluster_nothing_is_missing() -> None:
    known = read_names(MemorySource({}), pods=True)
    assert (known.problem, dict(known.pods)) == ("", {})


def test_a_cluster_that_cannot_be_read_says_why() -> None:
    assert "not complete JSON" in read_names(MemorySource({"namespaces.json": "{"}), pods=True).problem


def test_the_same_is_known_until_it_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(recorded, pods=False)
    first = names.known()
    assert first.index.find(POLICY) is not None
    assert names.known() is first


def test_what_was_known_stays_when_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "FRESH_SECONDS", -1.0)
    sources: list[EvidenceSource | EvidenceError] = [recorded(), EvidenceError("nobody there")]
    done = threading.Event()

    def opened() -> EvidenceSource:
        found = sources.pop(0)
        if isinstance(found, EvidenceError):
            done.set()
            raise found
        return found

    names = Names(opened, pods=False)
    first = names.known()
    names.known()
    assert done.wait(5)
    monkeypatch.setattr(names_module, "FRESH_SECONDS", 1000.0)
    for thread in threading.enumerate():
        if thread.name == "names":
            thread.join(5)
    after = names.known()
    assert after.problem == "nobody there"
    assert after.index is first.index


def test_a_server_that_hangs_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "FIRST_SECONDS", 0.05)
    release = threading.Event()

    def hanging() -> EvidenceSource:
        assert release.wait(10)
        return recorded()

    names = Names(hanging, pods=False)
    assert names.known().index.find(POLICY) is None
    threads = [thread for thread in threading.enumerate() if thread.name == "names"]
    names.known()
    assert len([thread for thread in threading.enumerate() if thread.name == "names"]) == len(threads)
    release.set()
    for thread in threads:
        thread.join(10)
    assert names.known().index.find(POLICY) is not None
