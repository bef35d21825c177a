"""The client over TLS: whom it trusts, when it sends a token, and what the user is told when that fails."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.authorised import Authorised
from calico_debug.agent.certificate import FileCertificate, OwnCertificate
from calico_debug.agent.reviews import Reviewer
from calico_debug.cli import agent_client
from calico_debug.cli.agent_client import TOKEN_VARIABLE, AgentClient, Trust, file_token, find_token
from calico_debug.cli.environment import Place
from calico_debug.cli.exit_codes import ExitCode
from calico_debug.cli.tracer import open_source
from calico_debug.errors import EvidenceError, UsageError
from tests.agent.pki import Authority
from tests.agent.reviewing import Reviews, token
from tests.agent.serving import serving, work_over
from tests.cli.worlds import run
from tests.evidence.memory import MemoryNode, MemorySource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.agent.application import Application
    from calico_debug.agent.certificate import Certificate

OWN = OwnCertificate(["127.0.0.1"])
FRIEND, STRANGER = token("friend"), token("stranger")


@contextmanager
def agent(folder: Path, certificate: Certificate = OWN) -> Iterator[str]:
    """The URL of an agent that knows a friend and a stranger."""
    reviews = Reviews({FRIEND: "friend", STRANGER: "stranger"}, {("friend", "get", "/calico-debug/v1/nodes")})

    def guard(application: Application) -> Authorised:
        return Authorised(application, Reviewer(lambda: reviews))

    work = work_over(MemorySource({}, {"n1": MemoryNode({})}))
    with serving(folder, work=work, certificate=certificate, guard=guard) as running:
        yield f"https://127.0.0.1:{running.secure}"


def nodes(place: str, trust: Trust | None = None, given: str = FRIEND) -> object:
    return AgentClient(place, trust=trust, token=lambda: given).json("/v1/nodes")


def test_an_agents_own_certificate(tmp_path: Path) -> None:
    with agent(tmp_path) as place:
        assert nodes(place, Trust(pem=OWN.pem())) == {"nodes": ["n1"]}
        file = tmp_path / "agent.pem"
        file.write_text(OWN.pem())
        assert nodes(place, Trust(file=str(file))) == {"nodes": ["n1"]}


def test_a_certificate_of_an_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.sign("agent", "127.0.0.1")
    with agent(tmp_path, FileCertificate(pair.certificate, pair.key)) as place:
        assert nodes(place, Trust(authority.path)) == {"nodes": ["n1"]}
        assert nodes(place, Trust(pair.certificate)) == {"nodes": ["n1"]}


@pytest.mark.parametrize("trust", [None, Trust(pem=OwnCertificate(["127.0.0.1"]).pem())])
def test_nobody_else_is_trusted_and_no_token_is_sent(tmp_path: Path, trust: Trust | None) -> None:
    with (
        agent(tmp_path) as place,
        pytest.raises(EvidenceError, match=r"cannot be trusted \(.*\): name its cert.*--agent-ca"),
    ):
        nodes(place, trust)


def test_a_certificate_for_another_address(tmp_path: Path) -> None:
    other = OwnCertificate(["127.0.0.2"])
    with agent(tmp_path, other) as place, pytest.raises(EvidenceError, match=r"cannot be trusted .*127\.0\.0\.1"):
        nodes(place, Trust(pem=other.pem()))


def test_a_name_instead_of_the_address(tmp_path: Path) -> None:
    forwarded = OwnCertificate(["node1", "10.0.0.7"])
    with agent(tmp_path, forwarded) as place:
        assert nodes(place, Trust(pem=forwarded.pem(), name="node1")) == {"nodes": ["n1"]}
        assert nodes(place, Trust(pem=forwarded.pem(), name="10.0.0.7")) == {"nodes": ["n1"]}
        with pytest.raises(EvidenceError, match=r"cannot be trusted .*node2"):
            nodes(place, Trust(pem=forwarded.pem(), name="node2"))


def test_who_is_refused_is_told_what_to_do(tmp_path: Path) -> None:
    trust = Trust(pem=OWN.pem())
    with agent(tmp_path) as place:
        for given, said in (
            (STRANGER, "refused: stranger may not get /calico-debug/v1/nodes: bind ClusterRole calico-debug-client"),
            (token("x"), "refused: the API server does not accept this token"),
            (
                token("x", "other"),
                "refused: this token is not for audience calico-debug: make one with `kubectl create",
            ),
        ):
            with pytest.raises(EvidenceError, match=f"agent {place} {said}"):
                nodes(place, trust, given)
        with pytest.raises(EvidenceError, match="refused: no token"):
            AgentClient(place, trust=trust).json("/v1/nodes")


def test_what_does_not_speak_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "calico_debug.agent.server.REQUEST_SECONDS", 0.2
    )  # it takes the handshake for the beginning of a request
    source = MemorySource({}, {"n1": MemoryNode({})})
    with serving(tmp_path, source) as plain, pytest.raises(EvidenceError, match="does not speak TLS"):
        nodes(f"https://127.0.0.1:{plain.port}", Trust(pem=OWN.pem()))


def test_a_token_goes_over_tls_alone() -> None:
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            connection, _ = server.accept()
            heard.append(connection.recv(65536))
            connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        with pytest.raises(EvidenceError, match="no answer"):
            nodes(f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join(10)
    assert b"GET /v1/nodes" in heard[0]
    assert b"uthorization" not in heard[0]


def test_trust_without_tls_is_a_mistake(tmp_path: Path) -> None:
    for place in ("http://127.0.0.1:1", str(tmp_path / "a.sock")):
        with pytest.raises(UsageError, match="--agent-ca is for agents over TLS"):
            AgentClient(place, trust=Trust("x"))


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xff"])
def test_files_of_certificates_that_are_none(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="cannot be used"):
        AgentClient("https://127.0.0.1:1", trust=Trust(str(file)))
    with pytest.raises(UsageError, match="No such file"):
        AgentClient("https://127.0.0.1:1", trust=Trust(str(tmp_path / "none")))


def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "token"
    read = file_token(file)
    with pytest.raises(EvidenceError, match=r"cannot read the token in .*token: No such file"):
        read()
    for content in ("a.b.c\n", "d.e.f"):
        file.write_text(content)
        assert read() == content.strip()
    for content in ("", " \n", "a b", "a\nX: y", "\x1b"):
        file.write_text(content)
        with pytest.raises(EvidenceError, match="has no token"):
            read()
    file.write_bytes(b"\xff")
    with pytest.raises(EvidenceError, match="it is no text"):
        read()


def test_where_tokens_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, mounted = tmp_path / "named", tmp_path / "mounted"
    named.write_text("named")
    monkeypatch.setattr(agent_client, "TOKEN_FILE", mounted)
    assert find_token(None, {}) is None
    mounted.write_text("mounted")
    found = [
        find_token(str(named), {TOKEN_VARIABLE: "v"}),
        find_token(None, {TOKEN_VARIABLE: "v"}),
        find_token(None, {}),
    ]
    assert [token() if token else "" for token in found] == ["named", "v", "mounted"]


def test_a_place_over_tls(tmp_path: Path) -> None:
    file, secret = tmp_path / "agent.pem", tmp_path / "token"
    file.write_text(OWN.pem())
    secret.write_text(STRANGER)
    with agent(tmp_path) as url:
        source = open_source(Place(agent=url, agent_ca=str(file), agent_token_file=str(secret)), "darwin")
        with pytest.raises(EvidenceError, match="stranger may not get /calico-debug/v1/nodes"):
            source.nodes()
        secret.write_text(FRIEND)
        assert source.nodes() == ("n1",)


@pytest.mark.parametrize("option", ["--agent-ca", "--agent-token-file"])
def test_files_for_an_agent_need_one(option: str) -> None:
    done = run("trace", option, "x", "--from", "10.0.0.1", "--to", "10.0.0.2:80")
    assert done.code == ExitCode.USAGE
    assert f"{option} is about an agent" in done.err
