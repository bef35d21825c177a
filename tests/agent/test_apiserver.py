"""Requests that go wrong: what is asked again, what is not, and what the user is told."""

from __future__ import annotations

import gzip
import logging
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from calico_debug.agent import apiserver as module
from calico_debug.agent.apiserver import (
    ATTEMPTS,
    LONGEST_PAUSE,
    PAUSES,
    ApiServer,
    Refusal,
    SilentServerError,
    UnusableServerError,
)
from calico_debug.agent.kubeconfig import ClusterAccess, find_access
from calico_debug.errors import EvidenceError
from tests.agent.fake_api_server import Answer, FakeApiServer, document, failure, kubeconfig

OK = document({"kind": "Fine"})


def access(directory: Path, server: str, **user: Any) -> ClusterAccess:
    found = find_access(str(kubeconfig(directory, server, **user)))
    assert found is not None
    return found


class Pauses(list[float]):
    """Notes how long it was to wait, and does not."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Any]:
    def asked(fake: FakeApiServer, path: str = "/x", pauses: Pauses | None = None, **user: Any) -> Any:
        found = access(tmp_path, fake.url, **user)
        return ApiServer(found, Pauses() if pauses is None else pauses).get(path, {"limit": 2})

    return asked


def test_a_question_and_its_answer(ask: Callable[..., Any], tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("from-file\n")
    with FakeApiServer({"/x": OK}) as fake:
        assert ask(fake, token="abc") == {"kind": "Fine"}
        assert ask(fake, tokenFile=str(secret)) == {"kind": "Fine"}
        assert ask(fake) == {"kind": "Fine"}
    assert [headers.get("authorization") for _, _, headers in fake.asked] == ["Bearer abc", "Bearer from-file", None]
    assert all(query == {"limit": "2"} for _, query, _ in fake.asked)
    assert fake.asked[0][2]["user-agent"].startswith("calico-debug/")


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_trouble_that_passes(ask: Callable[..., Any], status: int) -> None:
    pauses = Pauses()
    with FakeApiServer(
        {"/x": [failure(status, "etcd is busy"), failure(status, "still", Retry_After="3"), OK]}
    ) as fake:
        assert ask(fake, pauses=pauses) == {"kind": "Fine"}
    assert pauses == [PAUSES[0], 3]


def test_trouble_that_stays(ask: Callable[..., Any]) -> None:
    pauses = Pauses()
    with FakeApiServer({"/x": failure(500, "etcd is gone", Retry_After="86400")}) as fake:
        with pytest.raises(Refusal, match="etcd is gone") as caught:
            ask(fake, pauses=pauses)
        assert (caught.value.status, len(fake.asked)) == (500, ATTEMPTS)
    assert pauses == [LONGEST_PAUSE, LONGEST_PAUSE]


@pytest.mark.parametrize("status", [400, 403, 404, 410, 301])
def test_what_is_not_asked_again(ask: Callable[..., Any], status: int) -> None:
    with FakeApiServer({"/x": Answer(status, b"<html>no\x1b[31m</html>", {"Location": "/y"}), "/y": OK}) as fake:
        with pytest.raises(Refusal) as caught:
            ask(fake)
        assert (caught.value.status, fake.paths()) == (status, ["/x"])


def test_answers_that_break_off(ask: Callable[..., Any]) -> None:
    broken = Answer(200, b'{"kind": "Fi', promised=1000)
    with FakeApiServer({"/x": [broken, broken, OK], "/y": broken}) as fake:
        assert ask(fake) == {"kind": "Fine"}
        with pytest.raises(EvidenceError, match=r"/y gave no complete answer \(.*\): try again"):
            ask(fake, "/y")
        assert fake.paths() == ["/x"] * 3 + ["/y"] * 3


@pytest.mark.parametrize("chunked", [False, True])
def test_answers_may_be_compressed(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, chunked: bool) -> None:
    packed = gzip.compress(b"[" + b"1," * 500_000 + b"1]")
    with FakeApiServer({"/x": Answer(200, packed, {"Content-Encoding": "gzip"}, chunked=chunked)}) as fake:
        assert len(ask(fake)) == 500_001
        assert fake.asked[0][2]["accept-encoding"] == "gzip"
        monkeypatch.setattr(module, "ANSWER_BYTES", 1 << 19)  # counted as it is unpacked
        with pytest.raises(EvidenceError, match="more than 0 MiB"):
            ask(fake)
        fake.routes["/x"] = Answer(200, b"not packed", {"Content-Encoding": "gzip"})
        with pytest.raises(EvidenceError, match="gave no complete answer"):
            ask(fake)


def test_answers_that_are_no_json(ask: Callable[..., Any]) -> None:
    with (
        FakeApiServer({"/x": Answer(200, b"<html>log in</html>")}) as fake,
        pytest.raises(EvidenceError, match=r"/x did not answer with JSON .*: check that the server of context test"),
    ):
        ask(fake)


def test_answers_are_bounded(ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeApiServer({"/x": Answer(200, b"[" + b"1," * 50_000 + b"1]")}) as fake:
        assert len(ask(fake)) == 50_001
        monkeypatch.setattr(module, "ANSWER_BYTES", 1 << 16)
        with pytest.raises(EvidenceError, match="more than 0 MiB: it is not read"):
            ask(fake)
        monkeypatch.undo()
        monkeypatch.setattr(module, "ANSWER_SECONDS", -1.0)
        with pytest.raises(EvidenceError, match="not complete after -1 s"):
            ask(fake)


def test_silence_is_bounded(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = ApiServer(access(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}"), Pauses(), seconds=0.05)
        with pytest.raises(SilentServerError, match=r"/x did not answer within 0\.05 s: try again"):
            server.get("/x")


def test_credentials_that_are_not_accepted(ask: Callable[..., Any]) -> None:
    with FakeApiServer({"/x": failure(401, "Unauthorized")}) as fake:
        with pytest.raises(UnusableServerError, match=r"does not accept the credentials of context test of .*: log in"):
            ask(fake, token="old")
        assert len(fake.asked) == 1


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    fake = FakeApiServer({})
    fake.close()
    with pytest.raises(UnusableServerError, match=rf"cannot reach {fake.url} \(.*refused.*\): check the network"):
        ApiServer(access(tmp_path, fake.url)).get("/x")


def test_plain_http_where_tls_is_expected(tmp_path: Path) -> None:
    with FakeApiServer({"/x": OK}) as fake:
        url = fake.url.replace("http:", "https:")
        with pytest.raises(UnusableServerError, match=f"{url} cannot be trusted .*: check certificate-authority"):
            ApiServer(access(tmp_path, url)).get("/x")


def plugin(directory: Path, script: str) -> dict[str, Any]:
    path = directory / "plugin"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(path),
        "installHint": "install the plugin",
        "interactiveMode": "Never",
    }


def test_a_plugin_gives_the_token(ask: Callable[..., Any], tmp_path: Path) -> None:
    answer = '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"made"}}'
    with FakeApiServer({"/x": OK}) as fake:
        ask(fake, exec=plugin(tmp_path, f"echo '{answer}'"))
    assert fake.asked[0][2]["authorization"] == "Bearer made"


def test_a_plugin_that_fails(ask: Callable[..., Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with FakeApiServer({"/x": OK}) as fake:
        with pytest.raises(
            UnusableServerError, match=r"no credentials for user test of context test of .*: exec: .* 7"
        ):
            ask(fake, exec=plugin(tmp_path, "echo who are you >&2; exit 7"))
        missing = {**plugin(tmp_path, ""), "command": "no-such-plugin"}
        with pytest.raises(UnusableServerError, match=r"no-such-plugin.* \(install the plugin\)"):
            ask(fake, exec=missing)
        assert fake.asked == []
    assert capfd.readouterr() == ("", "")
    assert not [one for one in logging.getLogger().handlers if type(one).__name__ == "Collector"]


def test_certificates_that_cannot_be_used(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "https://127.0.0.1:1", **{"client-certificate-data": "not base64"})
    found = find_access(str(path))
    assert found is not None
    with pytest.raises(UnusableServerError, match=r"cannot use context test of .*: correct it, or log in again"):
        ApiServer(found)
    path = kubeconfig(tmp_path, "https://127.0.0.1:1", **{"client-certificate": str(tmp_path / "no.crt")})
    with pytest.raises(UnusableServerError, match=r"no\.crt"):
        ApiServer(found)


def test_a_kubeconfig_is_not_written_to(ask: Callable[..., Any], tmp_path: Path) -> None:
    with FakeApiServer({"/x": OK}) as fake:
        before = kubeconfig(tmp_path, fake.url, token="abc").read_bytes()
        ask(fake, token="abc")
        assert (tmp_path / "kubeconfig").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["kubeconfig"]


def test_the_client_library_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes.client.rest", None)
    with pytest.raises(UnusableServerError, match=r"cluster test needs the Python package kubernetes \(.*\): install"):
        ApiServer(access(tmp_path, "https://127.0.0.1:1"))
