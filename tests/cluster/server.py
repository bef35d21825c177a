"""A real API server over a real etcd, on loopback: started, watched until it is ready, ended by process id."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Callable

BINARY = "CALICO_DEBUG_API_SERVER"
"""The variable that names the kube-apiserver program; make test-cluster sets it."""

START_SECONDS = 60.0
TICK = 0.05
ADMIN = "admin-token"
NOBODY = "nobody-token"
TOKENS = f'{ADMIN},admin,1,"system:masters"\n{NOBODY},nobody,2\n'
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
"""Every request is written down, so that tests see what was asked."""


def unavailable() -> str:
    """ "" when a server can be started, else the precise reason why not."""
    program = os.environ.get(BINARY, "")
    if not program:
        return f"{BINARY} names no kube-apiserver: run make test-cluster"
    missing = [name for name in (program, "etcd", "openssl") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class EndedError(RuntimeError):
    """A server ended while it was waited for."""


class Server:
    """etcd and a kube-apiserver, with RBAC, in a directory that keeps their logs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.processes: list[subprocess.Popen[bytes]] = []
        for last in (False, False, True):
            try:
                self._start()
                break
            except EndedError:  # another program may have taken a port meanwhile
                self.stop()
                if last:
                    raise
            except BaseException:
                self.stop()
                raise

    def _start(self) -> None:
        client, peer, secure = free_ports(3)
        self.etcd = f"http://127.0.0.1:{client}"
        self.url = f"https://127.0.0.1:{secure}"
        self.port = secure
        peers = f"http://127.0.0.1:{peer}"
        self._run(
            "etcd",
            *("etcd", "--data-dir", self.directory / f"etcd-{client}"),
            *("--listen-client-urls", self.etcd, "--advertise-client-urls", self.etcd),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}", "--unsafe-no-fsync"),
        )
        self.until("etcd answers", lambda: b"true" in fetch(f"{self.etcd}/health"))
        make_key(self.directory / "accounts.key")
        (self.directory / "tokens.csv").write_text(TOKENS)
        (self.directory / "audit.yaml").write_text(yaml.safe_dump(AUDIT))
        self._run(
            "api",
            *(os.environ[BINARY], "--etcd-servers", self.etcd, "--cert-dir", self.directory / "certs"),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", secure),
            *("--authorization-mode", "RBAC", "--token-auth-file", self.directory / "tokens.csv"),
            *("--service-account-key-file", self.directory / "accounts.key"),
            *("--service-account-signing-key-file", self.directory / "accounts.key"),
            *("--service-account-issuer", "https://cluster.test", "--disable-admission-plugins", "ServiceAccount"),
            *("--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112", "--endpoint-reconciler-type", "none"),
            *("--audit-policy-file", self.directory / "audit.yaml", "--audit-log-mode", "blocking"),
            *("--audit-log-path", self.directory / "audit.log"),
        )
        self.until("the API server is ready", lambda: self.call("GET", "/readyz") == "ok")

    def _run(self, name: str, *arguments: object) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            command = [str(argument) for argument in arguments]
            self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def stop(self) -> None:
        """End what was started, the last first."""
        while self.processes:
            process = self.processes.pop()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Ask again until it holds. A process that ends meanwhile, and the end of patience, are errors."""
        ends = time.monotonic() + START_SECONDS
        while time.monotonic() < ends:
            try:
                if holds():
                    return
            except (OSError, ValueError):
                pass  # not yet
            try:
                ended = self.processes[-1].wait(TICK)
            except subprocess.TimeoutExpired:
                continue
            raise EndedError(f"waiting until {what}: a server ended with {ended}; its log is in {self.directory}")
        raise RuntimeError(f"{what}: not within {START_SECONDS:g} s; logs are in {self.directory}")

    # ------------------------------------------------------------------------------------------------- the client

    @property
    def certificate(self) -> Path:
        """What a client has to trust."""
        return self.directory / "certs" / "apiserver.crt"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as the administrator. Raises `urllib.error.HTTPError` for an error."""
        headers = {"authorization": f"Bearer {ADMIN}", "content-type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        trusted = ssl.create_default_context(cafile=str(self.certificate))
        content = fetch(f"{self.url}{path}", data, headers, method, trusted)
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def create(self, path: str, body: Any) -> Any:
        """Create an object; one of that name that is there stays. Errors say what the server said."""
        try:
            return self.call("POST", path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise RuntimeError(f"{path} {body['metadata']['name']}: {error.read().decode()}") from error
            return None

    def audit(self) -> list[dict[str, Any]]:
        """Every request so far."""
        return [json.loads(line) for line in (self.directory / "audit.log").read_text().splitlines()]

    def forget(self) -> None:
        """Let etcd forget every earlier state, and with it the lists that are only half read."""
        self.create("/api/v1/namespaces/default/configmaps", {"metadata": {"generateName": "later-"}})
        revision = json.loads(fetch(f"{self.etcd}/v3/kv/range", b'{"key":"Zm9v"}', method="POST"))["header"]["revision"]
        fetch(f"{self.etcd}/v3/kv/compaction", json.dumps({"revision": revision}).encode(), method="POST")

    def token(self, namespace: str, account: str, audiences: list[str] | None = None) -> str:
        """A token of a service account, made for this test; without audiences for this server."""
        spec = {"audiences": audiences} if audiences else {}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        answer = self.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body)
        return str(answer["status"]["token"])

    def kubeconfig(self, path: Path, token: str, **changes: Any) -> str:
        """Write a kubeconfig with one context, "test". ``changes``: ``cluster``, ``context`` and ``user`` fields."""
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)} | changes.get("cluster", {})
        context = {"cluster": "test", "user": "test"} | changes.get("context", {})
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "contexts": [{"name": "test", "context": context}],
            "users": [{"name": "test", "user": changes.get("user", {"token": token})}],
        }
        path.write_text(yaml.safe_dump(document))
        return str(path)


def fetch(
    url: str,
    data: bytes | None = None,
    headers: dict[str, str] | None = None,
    method: str = "GET",
    context: ssl.SSLContext | None = None,
) -> bytes:
    """The body of an answer from loopback, past any proxy. Raises `OSError`, of which HTTPError is one."""
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    request = urllib.request.Request(url, data, headers or {}, method=method)  # noqa: S310 - the caller's own server
    with urllib.request.build_opener(*handlers).open(request, timeout=30) as answer:
        content: bytes = answer.read()
    return content


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(number)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def make_key(path: Path) -> None:
    """A private RSA key."""
    subprocess.run(["openssl", "genrsa", "-out", path, "2048"], check=True, capture_output=True)


def make_certificate(directory: Path) -> Path:
    """A certificate that signed nothing."""
    make_key(directory / "other.key")
    made = directory / "other.crt"
    command = ["openssl", "req", "-x509", "-new", "-key", directory / "other.key", "-subj", "/CN=other", "-out", made]
    subprocess.run(command, check=True, capture_output=True)
    return made
