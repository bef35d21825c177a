"""From a place to evidence: bundles anywhere, this node on Linux alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from calico_debug.cli.environment import Place, Question
from calico_debug.cli.tracer import find_cluster, open_source, open_tracer
from calico_debug.errors import EvidenceError, UsageError
from tests.agent.fake_api_server import FakeApiServer, failure, groups, kubeconfig, listed, resources
from tests.cli.worlds import run


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    """A bundle with a pod and no node."""
    pod = {
        "metadata": {"namespace": "ns", "name": "pod"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
    }
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "pods.json").write_text(json.dumps({"kind": "List", "items": [pod]}))
    return str(tmp_path)


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_bundle_is_read_on_any_system(bundle: str, platform: str) -> None:
    assert open_source(Place(bundle), platform).origin == bundle


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_only_linux_is_read_live(platform: str) -> None:
    with pytest.raises(EvidenceError, match=f"this system is {platform}: name a recording with --bundle"):
        open_source(Place(), platform)


def test_live_without_its_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calico_debug.agent.evidence", None)
    with pytest.raises(EvidenceError, match=r"install calico-debug\[agent\], or name a recording"):
        open_source(Place(), "linux")


@pytest.mark.skipif(sys.platform != "linux", reason="only a Linux node is read live")
def test_live_has_the_name_that_was_given() -> None:
    assert list(open_source(Place(node="n7"), "linux").nodes()) == ["n7"]


def test_a_bundle_needs_no_agent(bundle: str) -> None:
    script = (
        "import sys; from calico_debug.cli.environment import Place; from calico_debug.cli.tracer import open_tracer;"
        f"open_tracer(Place({bundle!r}), 'linux'); sys.exit('calico_debug.agent' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_names_are_completed_by_the_namespace(bundle: str) -> None:
    explanation = open_tracer(Place(bundle, namespace="ns"), "linux").trace(Question("pod", "10.9.9.9:80", "udp"))
    assert (explanation.source.ip, explanation.protocol, explanation.verdict) == ("10.0.0.1", "udp", "undetermined")
    with pytest.raises(UsageError, match="no pod is named 'other/pod'"):
        open_tracer(Place(bundle, namespace="other"), "linux").trace(Question("pod", "10.9.9.9:80"))


# ----------------------------------------------------------------------------------------------------- live clusters


def pod(namespace: str, name: str, address: str) -> dict[str, object]:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


PODS = listed("Pod", pod("ns", "pod", "10.0.0.1"), pod("other", "pod", "10.0.0.2"))
EMPTY = {f"/api/v1/{plural}": listed("Some") for plural in ("services", "nodes", "endpoints", "namespaces")}
CLUSTER = {"/apis": groups(), "/api/v1/pods": PODS, **EMPTY}


def test_no_cluster_is_found_for_a_bundle_or_without_configuration(bundle: str) -> None:
    assert find_cluster(Place(bundle)) is None
    assert find_cluster(Place()) is None


def test_a_cluster_that_is_named_has_to_answer(tmp_path: Path) -> None:
    with FakeApiServer({"/apis": failure(401, "Unauthorized")}) as fake:
        named = str(kubeconfig(tmp_path, fake.url))
        for place in (Place(kubeconfig=named), Place(kubeconfig=named, context="test")):
            with pytest.raises(EvidenceError, match="does not accept the credentials of context test"):
                open_source(place, "linux")
    with pytest.raises(EvidenceError, match="cannot read kubeconfig"):
        open_source(Place(kubeconfig=str(tmp_path / "missing")), "linux")
    with pytest.raises(UsageError, match="--context 'x' is not in"):
        open_source(Place(kubeconfig=named, context="x"), "linux")


def test_a_cluster_that_is_found_may_be_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "damaged").write_text("[")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "damaged"))
    source = open_source(Place(), "linux")
    with pytest.raises(EvidenceError, match="damaged is not YAML"):
        source.read_cluster("pods.json")
    with FakeApiServer({"/apis": failure(401, "Unauthorized")}) as fake:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, fake.url)))
        source = open_source(Place(), "linux")
        assert fake.asked == []
        with pytest.raises(EvidenceError, match="does not accept the credentials"):
            source.read_cluster("pods.json")


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_cluster_is_read_from_any_system(tmp_path: Path, platform: str) -> None:
    with FakeApiServer(CLUSTER) as fake:
        source = open_source(Place(kubeconfig=str(kubeconfig(tmp_path, fake.url)), node="n7"), platform)
        assert list(source.nodes()) == (["n7"] if platform == "linux" else [])
        assert json.loads(source.read_cluster("pods.json"))["items"][1]["metadata"]["name"] == "pod"


def test_names_are_of_the_contexts_namespace(tmp_path: Path) -> None:
    with FakeApiServer(CLUSTER) as fake:
        path = kubeconfig(tmp_path, fake.url)
        question = Question("pod", "10.9.9.9:80")
        with pytest.raises(UsageError, match="could be any of"):
            open_tracer(Place(kubeconfig=str(path)), "darwin").trace(question)
        path.write_text(path.read_text().replace("cluster: test", "cluster: test\n    namespace: other", 1))
        assert open_tracer(Place(kubeconfig=str(path)), "darwin").trace(question).source.ip == "10.0.0.2"
        place = Place(kubeconfig=str(path), namespace="ns")
        assert open_tracer(place, "darwin").trace(question).source.ip == "10.0.0.1"


def test_what_cannot_be_listed_is_found_in_the_answer(tmp_path: Path) -> None:
    with FakeApiServer(CLUSTER | {"/api/v1/services": failure(403, 'User "eve" cannot list')}) as fake:
        place = Place(kubeconfig=str(kubeconfig(tmp_path, fake.url)))
        explanation = open_tracer(place, "darwin").trace(Question("ns/pod", "10.9.9.9:80"))
    warnings = [(f.code, f.message) for f in explanation.findings if f.message.startswith("cannot list")]
    assert [code for code, _ in warnings] == ["evidence"]
    assert warnings[0][1].startswith("cannot list services: forbidden for user eve; grant list on services")


def test_chains_without_all_policies(tmp_path: Path) -> None:
    policy = {"apiVersion": "networking.k8s.io/v1", "metadata": {"namespace": "ns", "name": "p"}, "spec": {}}
    routes = CLUSTER | {
        "/apis": groups(networking__k8s__io=["v1"], crd__projectcalico__org=["v1"]),
        "/apis/networking.k8s.io/v1": resources("networkpolicies"),
        "/apis/crd.projectcalico.org/v1": resources("networkpolicies"),
        "/apis/networking.k8s.io/v1/networkpolicies": listed("NetworkPolicy", policy),
        "/apis/crd.projectcalico.org/v1/networkpolicies": failure(403, 'User "e\x1bve" cannot list'),
    }
    with FakeApiServer(routes) as fake:
        named = str(kubeconfig(tmp_path, fake.url))
        ran = run("chain", "ns/p", "--kubeconfig", named, platform="darwin")
        assert ran.code == 0
        assert ran.err.startswith(
            "warning: cannot list networkpolicies.crd.projectcalico.org: forbidden for user e\\x1bve"
        )
        ran = run("chain", "ns/q", "--kubeconfig", named, platform="darwin")
        assert ran.code == 1
        assert "'ns/q' is neither a chain" in ran.err
        assert "not every policy is known: cannot list networkpolicies.crd.projectcalico.org" in ran.err


def test_the_client_library_is_imported_for_a_cluster_alone(bundle: str) -> None:
    script = (
        "import sys; from calico_debug.cli.environment import Place; from calico_debug.cli.tracer import open_tracer;"
        "open_tracer(Place(), 'linux'); sys.exit('kubernetes' in sys.modules)"
    )
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/no/such", "PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], check=False, env=clean).returncode == 0
