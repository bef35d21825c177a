from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from calico_debug.agent import gate
from calico_debug.agent.certificate import FileCertificate, OwnCertificate
from calico_debug.agent.gate import open_gate, own_namespace, owner
from calico_debug.agent.publication import Owner, PublishedAgent
from calico_debug.agent.reviews import DeniedError
from calico_debug.agent.settings import Address, Settings
from calico_debug.errors import EvidenceError
from tests.agent.fake_api_server import FakeApiServer, kubeconfig
from tests.agent.pki import Authority
from tests.agent.reviewing import token
from tests.agent.test_certificate import shown, trusting

CHECKED = Settings(listen=Address("127.0.0.1", 9098))


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    return {"KUBECONFIG": str(kubeconfig(tmp_path, "http://127.0.0.1:1"))}


def test_without_an_api_server_there_is_no_gate(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="no API server to check callers with: run in a pod"):
        open_gate(CHECKED, "n1", {"HOME": str(tmp_path)})


def test_its_certificate_is_for_the_node_and_its_address(variables: dict[str, str]) -> None:
    made = open_gate(CHECKED, "n1", variables).certificate
    assert isinstance(made, OwnCertificate)
    for host in ("n1", "127.0.0.1"):
        shown(made, trusting(made.pem()), host)


def test_or_that_of_the_files(tmp_path: Path, variables: dict[str, str]) -> None:
    pair = Authority(tmp_path).sign("agent", "127.0.0.1")
    settings = Settings(listen=Address("0.0.0.0", 9098), tls_cert=pair.certificate, tls_key=pair.key)  # noqa: S104
    made = open_gate(settings, "n1", variables)
    assert isinstance(made.certificate, FileCertificate)
    assert made.certificate.pem() == Path(pair.certificate).read_text()


def test_where_it_is_published(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    came, made = threading.Event(), []

    def note(_server: Any, namespace: str, agent: PublishedAgent, of: Owner | None) -> None:
        made.append((namespace, agent, of))
        came.set()

    monkeypatch.setattr("calico_debug.agent.publication.publish", note)
    opened = open_gate(CHECKED, "n1", variables | {"POD_NAME": "p", "POD_UID": "7", "POD_NAMESPACE": "tools"})
    opened.publish(Address("0.0.0.0", 9098))  # noqa: S104 - nobody can ask for that
    opened.publish(Address("fd00::7", 9098))
    assert came.wait(10)
    opened.close()
    assert made == [
        ("tools", PublishedAgent("n1", "https://[fd00::7]:9098", opened.certificate.pem()), Owner("p", "7"))
    ]


def test_whose_pod_this_is() -> None:
    assert owner({"POD_NAME": "p", "POD_UID": "u"}) == Owner("p", "u")
    assert owner({"POD_NAME": "p"}) is None
    assert owner({}) is None


def test_the_namespace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gate, "ACCOUNT", tmp_path)
    assert own_namespace({}) == "calico-debug"
    (tmp_path / "namespace").write_text("tools\n")
    assert own_namespace({}) == "tools"
    assert own_namespace({"POD_NAMESPACE": "other"}) == "other"


def test_it_opens_while_the_api_server_is_away(variables: dict[str, str]) -> None:
    opened = open_gate(CHECKED, "n1", variables)
    with pytest.raises(DeniedError, match="callers cannot be checked: cannot reach http://127") as caught:
        opened.reviewer.check(token("x"), "GET", "/v1/nodes")
    assert caught.value.status == 503


def test_the_audience_of_the_settings(tmp_path: Path) -> None:
    with FakeApiServer({}) as fake:
        settings = Settings(listen=Address("127.0.0.1", 1), token_audience="mine")
        opened = open_gate(settings, "n1", {"KUBECONFIG": str(kubeconfig(tmp_path, fake.url))})
        for audience, status in (("calico-debug", 401), ("mine", 503)):
            with pytest.raises(DeniedError) as caught:
                opened.reviewer.check(token("x", audience), "GET", "/v1/nodes")
            assert caught.value.status == status
