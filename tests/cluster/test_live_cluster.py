"""The live cluster reader against a real API server, with the least rights."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from calico_debug.agent.cluster import LiveCluster
from calico_debug.agent.cluster_resources import NAMED, RESOURCES
from calico_debug.agent.evidence import ClusterSource
from calico_debug.agent.kubeconfig import find_access
from calico_debug.cli.environment import Question
from calico_debug.cli.tracer import EvidenceTracer
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.contents import NAMED_FILES
from calico_debug.state.cluster import load_cluster
from tests.cli.worlds import run
from tests.cluster.contents import OWN, definitions, install, path_of
from tests.cluster.server import NOBODY, free_ports, make_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.model.explanation import FlowExplanation
    from tests.cluster.server import Server
    from tests.recordings import Recording

pytestmark = pytest.mark.cluster

ASKED = 40
"""Recorded flows that are asked again by name."""


def cluster(kubeconfig: str, **options: Any) -> LiveCluster:
    access = find_access(kubeconfig)
    assert access is not None
    return LiveCluster(access, **options)


def own(document: Any) -> dict[str, Any]:
    """The objects of a list by name, without what a server writes itself."""
    found = {}
    for entry in document["items"]:
        meta = {key: value for key, value in entry["metadata"].items() if key not in OWN}
        found[f"{meta.get('namespace', '')}/{meta['name']}"] = {**entry, "metadata": meta}
    return found


class Mixed:
    """The nodes of a recording with the objects of a live cluster."""

    def __init__(self, recording: Recording, live: LiveCluster) -> None:
        self._recorded, self._live = recording.source, live
        self.origin = self._recorded.origin

    def nodes(self) -> Sequence[str]:
        return self._recorded.nodes()

    def node(self, name: str) -> NodeEvidence:
        return self._recorded.node(name)

    def cluster_files(self) -> Sequence[str]:
        return self._live.files()

    def read_cluster(self, file: str) -> bytes:
        return self._live.read(file)


def test_what_was_recorded_is_read_back(account: str, recording: Recording, recorded: dict[str, Any]) -> None:
    live = cluster(account)
    state, expected = load_cluster(ClusterSource(live)), load_cluster(recording.source)
    for part in ("pods", "nodes", "tiers", "host_endpoints", "pools", "network_sets"):
        found, wanted = list(getattr(state, part)), list(getattr(expected, part))
        assert wanted, part
        assert sorted(found, key=repr) == sorted(wanted, key=repr), part
    services = {(s.namespace, s.name): s for s in state.services if s.name != "kubernetes"}
    assert services == {(s.namespace, s.name): s for s in expected.services if s.name != "kubernetes"}
    assert {(p.kind, p.namespace, p.name): p.spec for p in state.policies()} == {
        (p.kind, p.namespace, p.name): p.spec for p in expected.policies()
    }
    assert {name: state.namespaces[name] for name in expected.namespaces} == expected.namespaces
    assert state.notes == ()
    for file in ("networkpolicies.crd.projectcalico.org.json", "tiers.crd.projectcalico.org.json"):
        assert own(json.loads(live.read(file))) == own(recorded[file])


def test_every_kind_is_served(account: str) -> None:
    expected = {
        f"{plural}.{group}.json" if group else f"{plural}.json" for group in RESOURCES for plural in RESOURCES[group]
    }
    left_out = {file for file in expected if file.endswith(".projectcalico.org.json") and ".crd." not in file}
    files = cluster(account).files()
    assert set(files) == (expected - left_out - {"endpoints.json"}) | set(NAMED_FILES)
    for file in files:
        assert json.loads(cluster(account).read(file))["kind"] == "List"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_lists_are_those_of_kubectl(account: str) -> None:
    live = cluster(account)
    for file in live.files():
        resource, name = NAMED_FILES.get(file, (file.removesuffix(".json"), ""))
        command = ["kubectl", "--kubeconfig", account, "get", resource, "-A", "-o", "json"]
        command += ["--field-selector", f"metadata.name={name}"] if name else []
        printed = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
        assert json.loads(live.read(file)) == json.loads(printed), file


def test_pages_make_the_same_list(server: Server, account: str) -> None:
    small, large = cluster(account, page=3), cluster(account)
    before = len(server.audit())
    for file in ("pods.json", "namespaces.json", "tiers.crd.projectcalico.org.json"):
        assert small.read(file) == large.read(file)
    continued = [entry for entry in server.audit()[before:] if "continue=" in entry["requestURI"]]
    assert len(continued) >= 6


def test_a_list_that_is_forgotten_between_pages(server: Server, account: str, monkeypatch: pytest.MonkeyPatch) -> None:
    live, expected = cluster(account, page=3), cluster(account).read("pods.json")
    api = live.server
    ask_server, queries = api.get, []

    def forgetful(path: str, query: Any = None) -> Any:
        queries.append(dict(query or {}))
        answer = ask_server(path, query)
        if len(queries) == 1:
            server.forget()
        return answer

    live.check()
    monkeypatch.setattr(api, "get", forgetful)
    assert live.read("pods.json") == expected
    assert [sorted(query) for query in queries] == [["limit"], ["continue", "limit"], []]


def ask(tracer: EvidenceTracer, probe: dict[str, Any]) -> FlowExplanation:
    return tracer.trace(Question(probe["src"], f"{probe['dst_ip']}:{probe['dport']}", probe["proto"]))


def test_explanations_are_those_of_the_recording(account: str, recording: Recording) -> None:
    probes = [
        p for p in recording.json("probes.json") if not p["src"].startswith("host/") and p["proto"] in ("tcp", "udp")
    ]
    live, offline = EvidenceTracer(Mixed(recording, cluster(account))), EvidenceTracer(recording.source)
    step = max(1, len(probes) // ASKED)
    verdicts = set()
    for probe in probes[::step]:
        expected = ask(offline, probe)
        assert ask(live, probe) == expected, probe
        verdicts.add(expected.verdict)
    assert {"allowed", "denied"} <= verdicts


def test_only_lists_of_the_role_are_asked_for(server: Server, account: str) -> None:
    body = {"metadata": {"name": "canary"}, "stringData": {"password": "canary-in-the-secret"}}
    server.create("/api/v1/namespaces/default/secrets", body)
    server.create("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "canary"}, "data": body["stringData"]})
    before = len(server.audit())
    live = cluster(account)
    for file in live.files():
        assert b"canary-in-the-secret" not in live.read(file)
    with pytest.raises(MissingEvidence, match=r"does not serve cluster/secrets\.json"):
        live.read("secrets.json")
    asked = [e for e in server.audit()[before:] if e["user"]["username"].startswith("system:serviceaccount:")]
    assert {entry["verb"] for entry in asked} <= {"list", "get"}
    objects = [entry["objectRef"] for entry in asked if "objectRef" in entry]
    assert len(objects) == len(live.files())
    for one in objects:
        if "name" in one:
            assert (one.get("apiGroup", ""), one["resource"], one["name"]) in {
                (n.group, n.plural, n.name) for n in NAMED
            }
        else:
            assert one["resource"] in RESOURCES[one.get("apiGroup", "")]
    assert all(entry["verb"] == "list" for entry in asked if "objectRef" in entry)


def test_what_is_forbidden_is_named_one_by_one(server: Server, tmp_path: Path) -> None:
    nobody = server.kubeconfig(tmp_path / "nobody", NOBODY)
    live = cluster(nobody)
    for file in live.files():
        resource = " ".join(NAMED_FILES.get(file, (file.removesuffix(".json"),)))
        with pytest.raises(MissingEvidence, match=f"cannot list {resource}: forbidden for user nobody; grant list on"):
            live.read(file)


def test_what_is_allowed_is_still_used(server: Server, recording: Recording, tmp_path: Path) -> None:
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "pods-alone"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    }
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "pods-alone"}
    subjects = [{"kind": "ServiceAccount", "name": "some", "namespace": "default"}]
    binding = {**role, "kind": "ClusterRoleBinding", "roleRef": reference, "subjects": subjects}
    del binding["rules"]
    some = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "some", "namespace": "default"}}
    for made in (some, role, binding):
        server.create(path_of(made), made)
    live = cluster(server.kubeconfig(tmp_path / "some", server.token("default", "some")))
    server.until("the role counts", lambda: _readable(live, "pods.json"))
    tracer = EvidenceTracer(Mixed(recording, live))
    answer = tracer.trace(Question("client/client-5f8b", "10.244.2.32:9001"))
    assert (answer.verdict, answer.source.pod) == ("denied", {"namespace": "client", "name": "client-5f8b"})
    warnings = [finding.message for finding in answer.findings if finding.severity == "warning"]
    for resource in ("services", "networkpolicies.crd.projectcalico.org"):
        assert [text for text in warnings if text.startswith(f"cannot list {resource}: forbidden for user system:")], (
            resource
        )
    assert not [text for text in warnings if text.startswith("cannot list pods:")]
    with pytest.raises(EvidenceError, match="'svc/stars/backend' cannot be looked up: cannot list services: forbidden"):
        tracer.trace(Question("client/client-5f8b", "svc/stars/backend"))


def _readable(live: LiveCluster, file: str) -> bool:
    try:
        return bool(live.read(file))
    except MissingEvidence:
        return False


def test_the_group_of_calicos_own_server_goes_first(server: Server, account: str) -> None:
    groups = [{"group": "projectcalico.org", "versions": ["v3"], "cluster": {"tiers": "Tier"}}]
    made = definitions(groups)
    try:
        install(server, made)
        tier = {
            "apiVersion": "projectcalico.org/v3",
            "kind": "Tier",
            "metadata": {"name": "shown"},
            "spec": {"order": 7},
        }
        server.create(path_of(tier), tier)
        live = cluster(account)
        assert "tiers.projectcalico.org.json" in live.files()
        assert "tiers.crd.projectcalico.org.json" not in live.files()
        assert "networkpolicies.crd.projectcalico.org.json" in live.files()
        assert [tier.name for tier in load_cluster(ClusterSource(live)).tiers] == ["shown"]
    finally:
        for definition in made:
            name = definition["metadata"]["name"]
            server.call("DELETE", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
    server.until("the group is gone", lambda: "tiers.crd.projectcalico.org.json" in cluster(account).files())


def test_credentials_that_are_not_accepted(server: Server, tmp_path: Path) -> None:
    kubeconfig = server.kubeconfig(tmp_path / "old", "expired")
    ran = chain(kubeconfig)
    assert ran.code == 1
    assert f"{server.url} does not accept the credentials of context test of {kubeconfig}" in ran.err
    assert "log in again" in ran.err


def test_a_server_that_is_gone(server: Server, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    kubeconfig = server.kubeconfig(tmp_path / "gone", "any", cluster={"server": f"https://127.0.0.1:{port}"})
    ran = chain(kubeconfig)
    assert ran.code == 1
    assert f"cannot reach https://127.0.0.1:{port}" in ran.err
    assert "refused" in ran.err


def test_a_certificate_of_somebody_else(server: Server, tmp_path: Path) -> None:
    other = {"certificate-authority": str(make_certificate(tmp_path))}
    ran = chain(server.kubeconfig(tmp_path / "other", "any", cluster=other))
    assert ran.code == 1
    assert f"{server.url} cannot be trusted" in ran.err
    assert "certificate verify failed" in ran.err
    assert "check certificate-authority" in ran.err
    token = server.token("calico-debug", "calico-debug")
    blind = other | {"insecure-skip-tls-verify": True}
    ran = chain(server.kubeconfig(tmp_path / "blind", token, cluster=blind))
    assert (ran.code, ran.err) == (0, ""), "what the kubeconfig asks for is not warned of"


def chain(kubeconfig: str, *more: str) -> Any:
    """From a laptop: no node to read, policies from the cluster."""
    return run("chain", "client/platform.client-egress", "--kubeconfig", kubeconfig, *more, platform="darwin")


def test_contexts_of_several_files(
    server: Server, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = yaml.safe_load(Path(account).read_text())["users"][0]["user"]["token"]
    first = tmp_path / "first.yaml"
    first.write_text(
        yaml.safe_dump(
            {
                "current-context": "dev",
                "contexts": [
                    {"name": "dev", "context": {"cluster": "test", "user": "test", "namespace": "client"}},
                    {"name": "away", "context": {"cluster": "away", "user": "test"}},
                ],
                "clusters": [{"name": "away", "cluster": {"server": "https://127.0.0.1:1"}}],
            }
        )
    )
    second = server.kubeconfig(tmp_path / "second.yaml", token)
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path / 'missing'}:{second}")
    access = find_access()
    assert access is not None
    assert (access.context, access.namespace) == ("dev", "client")
    assert b"client-5f8b" in LiveCluster(access).read("pods.json")
    ran = run("chain", "client/platform.client-egress", platform="darwin")
    assert (ran.code, ran.err) == (0, "")
    assert "client/platform.client-egress" in ran.out
    assert run("chain", "x/y", "--context", "away", platform="darwin").code == 1
    ran = run("chain", "x/y", "--context", "other", platform="darwin")
    assert ran.code == 2
    assert "--context 'other' is not in" in ran.err
    assert "away, dev, test" in ran.err


def test_the_account_of_a_pod(server: Server, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = yaml.safe_load(Path(account).read_text())["users"][0]["user"]["token"]
    (tmp_path / "token").write_text(f"{token}\n")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr("calico_debug.agent.kubeconfig.ACCOUNT", tmp_path)
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr("kubernetes.config.incluster_config.SERVICE_CERT_FILENAME", str(server.certificate))
    access = find_access()
    assert access is not None
    live = LiveCluster(access)
    assert live.origin == "this cluster"
    assert b"client-5f8b" in live.read("pods.json")
