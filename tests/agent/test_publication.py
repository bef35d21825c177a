from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent import publication
from calico_debug.agent.apiserver import ApiServer, Refusal
from calico_debug.agent.kubeconfig import find_access
from calico_debug.agent.publication import Owner, PublishedAgent, Publisher, publish, published
from calico_debug.errors import EvidenceError, MissingEvidence
from tests.agent.fake_api_server import FakeApiServer, document, failure, kubeconfig

if TYPE_CHECKING:
    from pathlib import Path

LEASES = "/apis/coordination.k8s.io/v1/namespaces/calico-debug/leases"
MADE = PublishedAgent("node1", "https://10.0.0.1:9098", "PEM")
SECONDS = 10.0


class Kept:
    """Keeps what is sent, or raises ``trouble``."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any, str]] = []
        self.trouble: list[Exception] = []
        self.came = threading.Semaphore(0)

    def send(self, method: str, path: str, document: Any, content: str = "") -> Any:
        try:
            if self.trouble:
                raise self.trouble.pop(0)
            self.sent.append((method, path, document, content))
        finally:
            self.came.release()


def test_a_lease_belongs_to_its_pod() -> None:
    server = Kept()
    publish(server, "calico-debug", MADE, Owner("calico-debug-x", "7"))
    publish(server, "calico-debug", MADE, None)
    (method, path, lease, content), (_, _, alone, _) = server.sent
    assert (method, path) == ("PATCH", f"{LEASES}/node1?fieldManager=calico-debug&force=true")
    assert content == "application/apply-patch+yaml"
    assert lease["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Pod", "name": "calico-debug-x", "uid": "7"}
    ]
    assert lease["spec"]["holderIdentity"] == "calico-debug-x"
    assert lease["metadata"]["annotations"] == {publication.URL: MADE.url, publication.CERTIFICATE: "PEM"}
    assert "ownerReferences" not in alone["metadata"]


def test_without_the_right_it_says_which() -> None:
    server = Kept()
    server.trouble = [Refusal(403, "forbidden")]
    with pytest.raises(EvidenceError, match=r"grant create and patch on leases.* Role calico-debug \("):
        publish(server, "calico-debug", MADE, None)


def lease(name: Any, **annotations: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"renewTime": "now"}}


def test_who_is_published(tmp_path: Path) -> None:
    good = {publication.URL: "https://10.0.0.1:9098", publication.CERTIFICATE: "PEM"}
    others = [lease("n2", **{publication.URL: "x"}), lease("n3", **good | {publication.URL: 7}), {}, None, 3]
    fake_list = document({"kind": "LeaseList", "items": [lease("node1", **good), *others]})
    with FakeApiServer({LEASES: fake_list}) as fake:
        access = find_access(str(kubeconfig(tmp_path, fake.url)))
        assert access is not None
        found = published(ApiServer(access))
        assert fake.asked[0][1] == {"labelSelector": "app.kubernetes.io/name=calico-debug"}
        fake.routes[LEASES] = failure(403, "forbidden")
        with pytest.raises(MissingEvidence, match="grant list on leases"):
            published(ApiServer(access))
    assert found == {"node1": PublishedAgent("node1", "https://10.0.0.1:9098", "PEM", "now")}


def test_a_publisher_tries_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(publication, "RETRY_SECONDS", 0.01)
    server = Kept()
    server.trouble = [EvidenceError("away"), EvidenceError("away")]
    publisher = Publisher(lambda: server, "calico-debug", lambda: MADE)
    try:
        for _ in range(3):
            assert server.came.acquire(timeout=SECONDS)
    finally:
        publisher.stop()
    assert len(server.sent) == 1
    assert caplog.text.count("peers cannot learn where this agent is: away") == 1


def test_a_publisher_writes_what_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "RENEW_SECONDS", 0.01)
    server = Kept()
    certificates = iter(["first", "second", *["third"] * 10_000])
    publisher = Publisher(
        lambda: server, "calico-debug", lambda: PublishedAgent("node1", "https://10.0.0.1:1", next(certificates))
    )
    try:
        for _ in range(2):
            assert server.came.acquire(timeout=SECONDS)
    finally:
        publisher.stop()
    written = [sent[2]["metadata"]["annotations"][publication.CERTIFICATE] for sent in server.sent]
    assert written[:2] == ["first", "second"]
