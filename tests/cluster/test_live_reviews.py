"""An agent's door against a real API server: tokens with an audience, rights on paths, no right to spare."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from calico_debug.agent.apiserver import ApiServer
from calico_debug.agent.application import Application
from calico_debug.agent.authorised import Authorised
from calico_debug.agent.certificate import OwnCertificate
from calico_debug.agent.cluster import LiveCluster
from calico_debug.agent.kubeconfig import find_access
from calico_debug.agent.publication import Owner, PublishedAgent, publish, published
from calico_debug.agent.reviews import AUDIENCE, Reviewer
from calico_debug.agent.routing import OBSERVER, READER
from calico_debug.agent.token_request import request_token
from calico_debug.cli.agent_client import AgentClient, Trust
from calico_debug.errors import CalicoDebugError, EvidenceError, MissingEvidence, UsageError
from tests.agent.serving import serving, work_over
from tests.cluster.contents import OBSERVER_ROLE, ROLE, path_of
from tests.cluster.server import ADMIN
from tests.evidence.memory import MemoryNode, MemorySource

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.server import Server

pytestmark = pytest.mark.cluster

PLACES = "/apis/coordination.k8s.io/v1/namespaces/calico-debug/leases"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"


def token(server: Server, account: str, audience: str | None = AUDIENCE, namespace: str = "default") -> str:
    """A token of an account, which is made when it is not there."""
    server.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": account}})
    return server.token(namespace, account, [audience] if audience else [])


def api(kubeconfig: str) -> ApiServer:
    access = find_access(kubeconfig)
    assert access is not None
    return ApiServer(access, attempts=1)


@dataclass
class Door:
    """An agent over TLS whose callers the real API server reviews."""

    url: str
    certificate: OwnCertificate

    def ask(self, given: str, path: str = "/v1/nodes", body: Any = None) -> Any:
        client = AgentClient(self.url, trust=Trust(pem=self.certificate.pem()), token=lambda: given)
        return client.json(path, body)


@contextmanager
def door(folder: Path, kubeconfig: str) -> Iterator[Door]:
    """With a memory of its own: nothing that was asked before counts."""
    certificate = OwnCertificate(["127.0.0.1"])
    reviewer = Reviewer(lambda: api(kubeconfig))

    def guard(application: Application) -> Authorised:
        return Authorised(application, reviewer)

    source = MemorySource({}, {"n1": MemoryNode({})})
    with serving(folder, work=work_over(source), certificate=certificate, guard=guard) as agent:
        yield Door(f"https://127.0.0.1:{agent.secure}", certificate)


def trouble(work: Callable[[], object]) -> str:
    """What goes wrong, "" for nothing."""
    try:
        work()
    except CalicoDebugError as error:
        return str(error)
    return ""


def grant(server: Server, account: str, role: str) -> None:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": "default"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    server.create(BINDINGS, {"metadata": {"name": f"{account}-{role}"}, "roleRef": reference, "subjects": [subject]})


def test_with_the_role_and_without(server: Server, account: str, tmp_path: Path) -> None:
    friend, stranger = token(server, "friend"), token(server, "stranger")
    grant(server, "friend", "calico-debug-client")
    with door(tmp_path, account) as agent:
        assert agent.ask(friend) == {"nodes": ["n1"]}
        with pytest.raises(EvidenceError, match="stranger may not get /calico-debug/v1/nodes: bind ClusterRole"):
            agent.ask(stranger)
        assert agent.ask(token(server, "calico-debug", namespace="calico-debug")) == {"nodes": ["n1"]}


@pytest.mark.parametrize("path", ["captures", "captures/x", "captures/x/files/y", "drops"])
def test_reading_is_no_right_to_packets(server: Server, account: str, tmp_path: Path, path: str) -> None:
    friend, observer = token(server, "friend"), token(server, "observer")
    grant(server, "friend", READER)
    (role,) = (one for one in yaml.safe_load_all(OBSERVER_ROLE.read_text()) if one["kind"] == "ClusterRole")
    server.create(path_of(role), role)
    grant(server, "observer", OBSERVER)
    with door(tmp_path, account) as agent:
        with pytest.raises(EvidenceError, match=f"friend may not get .*{path}: bind .*{OBSERVER}"):
            agent.ask(friend, f"/v1/{path}")
        with pytest.raises(EvidenceError, match=r"keeps no captures|watches no packets"):
            agent.ask(observer, f"/v1/{path}")
        with pytest.raises(EvidenceError, match="observer may not get"):
            agent.ask(observer)


def test_a_token_by_token_request(server: Server, account: str, tmp_path: Path) -> None:
    token(server, "friend")
    grant(server, "friend", "calico-debug-client")
    administrator = server.kubeconfig(tmp_path / "admin.yaml", ADMIN)
    with door(tmp_path, account) as agent:
        assert agent.ask(request_token(api(administrator), "default", "friend")) == {"nodes": ["n1"]}
    with pytest.raises(MissingEvidence, match="grant create on serviceaccounts/token"):
        request_token(api(account), "default", "friend")


def test_a_role_for_one_path(server: Server, account: str, tmp_path: Path) -> None:
    rule = {"nonResourceURLs": ["/calico-debug/v1/counters"], "verbs": ["get"]}
    server.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "only-counters"}, "rules": [rule]}
    )
    given = token(server, "counting")
    grant(server, "counting", "only-counters")
    with door(tmp_path, account) as agent:
        assert agent.ask(given, "/v1/counters")["kind"] == "Counters"
        for path in ("/v1/nodes", "/v1/counters/x", "/v1/openapi.json"):
            with pytest.raises(EvidenceError, match="counting may not get"):
                agent.ask(given, path)


def test_tokens_that_are_none(server: Server, account: str, tmp_path: Path) -> None:
    friend = token(server, "friend")
    grant(server, "friend", "calico-debug-client")
    head, body, signature = friend.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    for_others = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "admin"}).encode()).decode().rstrip("=")
    past = base64.urlsafe_b64encode(json.dumps(claims | {"exp": 1}).encode()).decode().rstrip("=")
    with door(tmp_path, account) as agent:
        for given, said in (
            (token(server, "friend", None), "not for audience calico-debug"),
            (token(server, "friend", "somebody-else"), "not for audience calico-debug"),
            (f"{head}.{past}.{signature}", "has expired"),
            (f"{head}.{for_others}.{signature}", "does not accept this token"),
            (f"{head}.{body}.{'A' * len(signature)}", "does not accept this token"),
            ("admin-token", "no token of a service account"),
        ):
            with pytest.raises(EvidenceError, match=said):
                agent.ask(given)


def test_a_token_ends_with_its_account(server: Server, account: str, tmp_path: Path) -> None:
    given = token(server, "leaving")
    grant(server, "leaving", "calico-debug-client")
    with door(tmp_path, account) as agent:
        assert agent.ask(given) == {"nodes": ["n1"]}
    server.call("DELETE", "/api/v1/namespaces/default/serviceaccounts/leaving")

    def refused() -> bool:
        # With another memory each time; the API server has one of its own, of 10 s.
        with door(tmp_path, account) as agent:
            return "does not accept this token" in trouble(lambda: agent.ask(given))

    server.until("the token is refused", refused)


def test_an_api_server_that_is_away_closes_the_door(server: Server, directory: Path, tmp_path: Path) -> None:
    away = server.kubeconfig(directory / "away.yaml", "x", cluster={"server": "https://127.0.0.1:1"})
    with (
        door(tmp_path, away) as agent,
        pytest.raises(EvidenceError, match="refused: callers cannot be checked: cannot"),
    ):
        agent.ask(token(server, "friend"))


def test_agents_find_each_other(server: Server, account: str) -> None:
    own = OwnCertificate(["127.0.0.1"])
    pod = server.call("GET", "/api/v1/namespaces/stars/pods")["items"][0]["metadata"]
    made = PublishedAgent("node1", "https://127.0.0.1:9098", own.pem())
    for _ in range(2):
        publish(api(account), "calico-debug", made, Owner(pod["name"], pod["uid"]))
    found = published(api(account))["node1"]
    assert (found.url, found.certificate) == (made.url, made.certificate)
    lease = server.call("GET", f"{PLACES}/node1")
    assert lease["metadata"]["ownerReferences"][0]["uid"] == pod["uid"]
    assert found.renewed == lease["spec"]["renewTime"]


# ------------------------------------------------------------------------------------------------ no rule is to spare


def shipped() -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(ROLE.read_text()) if one.get("rules")]


def parts() -> Iterator[tuple[str, str, int, str, str]]:
    """Every right of the shipped roles by itself: role, its kind, rule, field and the value that is taken out."""
    for role in shipped():
        for number, rule in enumerate(role["rules"]):
            for field in ("resources", "verbs", "nonResourceURLs"):
                for value in rule.get(field, ()):
                    yield role["metadata"]["name"], role["kind"], number, field, value


@pytest.fixture
def changing(server: Server) -> Iterator[Callable[[str, str, Any], None]]:
    """Replaces the rules of a role; the shipped ones come back."""
    changed = []

    def change(name: str, kind: str, rules: Any) -> None:
        (role,) = (one for one in shipped() if (one["metadata"]["name"], one["kind"]) == (name, kind))
        changed.append(role)
        server.call("PUT", f"{path_of(role)}/{name}", {**role, "rules": rules})

    yield change
    for role in changed:
        server.call("PUT", f"{path_of(role)}/{role['metadata']['name']}", role)


def work(server: Server, kubeconfig: str, folder: Path) -> None:
    """Everything the agent does with its rights. Raises `CalicoDebugError` for the first that fails."""
    access = find_access(kubeconfig)
    assert access is not None
    own = OwnCertificate(["127.0.0.1"])
    publish(api(kubeconfig), "calico-debug", PublishedAgent("fresh", "https://127.0.0.1:1", own.pem()), None)
    server.call("DELETE", f"{PLACES}/fresh")
    published(api(kubeconfig))
    with door(folder, kubeconfig) as agent:
        mine = token(server, "calico-debug", namespace="calico-debug")
        for path in ("openapi.json", "nodes", "nodes/n1", "cluster", "cluster/none", "counters"):
            with suppress(MissingEvidence):  # there is no such list, but the question was let in
                agent.ask(mine, f"/v1/{path}")
        for path in ("trace", "nodes/n1/connection"):
            with suppress(UsageError):  # an empty question is none, but was let in
                agent.ask(mine, f"/v1/{path}", {})
    live = LiveCluster(access)
    for file in live.files():
        live.read(file)


def test_with_every_right_everything_works(server: Server, account: str, tmp_path: Path) -> None:
    assert trouble(lambda: work(server, account, tmp_path)) == ""
    assert len(list(parts())) > 30


@pytest.mark.parametrize("part", list(parts()), ids=lambda part: f"{part[1]}-{part[0]}-{part[2]}-{part[4]}")
def test_no_right_is_to_spare(
    server: Server,
    account: str,
    tmp_path: Path,
    changing: Callable[[str, str, Any], None],
    part: tuple[str, str, int, str, str],
) -> None:
    """Without any one of them something that the agent does fails, and says what is missing."""
    name, kind, number, field, value = part
    (role,) = (one for one in shipped() if (one["metadata"]["name"], one["kind"]) == (name, kind))
    rules = json.loads(json.dumps(role["rules"]))
    if reason := not_here(rules[number], value):
        pytest.skip(reason)
    rules[number][field].remove(value)
    changing(name, kind, [rule for rule in rules if rule[field]] if not rules[number][field] else rules)
    said = ""

    def fails() -> bool:
        nonlocal said
        said = trouble(lambda: work(server, account, tmp_path))
        return bool(said)

    server.until(f"something fails without {field} {value} of {kind} {name}", fails)
    assert value.rpartition("/*")[0] in said or value in said
    assert "daemonset/base/rbac.yaml" in said or "calico-debug-client" in said


def not_here(rule: dict[str, Any], value: str) -> str:
    """Why a right cannot be missed on this server, "" when it can."""
    if value == "endpoints":
        return "endpoints are read where no endpointslices are served"
    groups = rule.get("apiGroups", ())
    return "Calico's own API server asks for it, which this is not" if groups == ["projectcalico.org"] else ""
