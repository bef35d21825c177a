"""Lists of a cluster: discovery, pages, rights; against servers in trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from calico_debug.agent import cluster as module
from calico_debug.agent.cluster import LiveCluster, UnusableCluster
from calico_debug.agent.cluster_resources import RESOURCES
from calico_debug.agent.evidence import ClusterSource, LiveSource
from calico_debug.agent.kubeconfig import find_access
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.state.cluster import load_cluster
from tests.agent.fake_api_server import (
    Answer,
    FakeApiServer,
    Route,
    document,
    failure,
    groups,
    kubeconfig,
    listed,
    named,
    resources,
)

NO_GROUPS = {"/apis": groups()}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.agent.apiserver.PAUSES", (0.0, 0.0))


@contextmanager
def serving(
    directory: Path, routes: Mapping[str, Route], page: int = 500
) -> Iterator[tuple[FakeApiServer, LiveCluster]]:
    with FakeApiServer(routes) as fake:
        access = find_access(str(kubeconfig(directory, fake.url, token="t")))
        assert access is not None
        yield fake, LiveCluster(access, page)


def test_nothing_is_asked_before_it_is_needed(tmp_path: Path) -> None:
    with serving(tmp_path, NO_GROUPS | {"/api/v1/pods": listed("Pod")}) as (fake, live):
        source = LiveSource("n1", live)
        assert (source.origin, live.namespace, list(source.nodes())) == ("this node and cluster test", "", ["n1"])
        state = load_cluster(source)
        assert fake.asked == []
        assert list(state.pods) == []
        assert fake.paths() == ["/apis", "/api/v1/pods"]
        assert list(state.pods) == []
        assert state.notes == ()
        assert len(fake.asked) == 2


def test_a_list_is_as_kubectl_prints_it(tmp_path: Path) -> None:
    pod = {
        "spec": {"x": 1.5, "ä": "\ud83d<&>"},
        "metadata": {"name": "a", "namespace": "b", "managedFields": [{"x": 1}]},
    }
    tier = {"apiVersion": "crd.projectcalico.org/v1", "kind": "Tier", "metadata": {"name": "t"}}
    routes = {
        "/apis": groups(crd__projectcalico__org=["v1"]),
        "/apis/crd.projectcalico.org/v1": resources("tiers", "tiers/status"),
        "/apis/crd.projectcalico.org/v1/tiers": listed("Tier", tier, api="crd.projectcalico.org/v1"),
        "/api/v1/pods": listed("Pod", pod),
        "/api/v1/nodes": document({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": None}),
    }
    with serving(tmp_path, routes) as (_, live):
        read = json.loads(live.read("pods.json"))
        assert list(read) == ["apiVersion", "items", "kind", "metadata"]
        assert (read["kind"], read["metadata"]) == ("List", {"resourceVersion": ""})
        expected = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": pod["spec"]}
        assert read["items"] == [expected]
        assert json.loads(live.read("tiers.crd.projectcalico.org.json"))["items"] == [tier]
        assert json.loads(live.read("nodes.json"))["items"] == []


def pages(number: int) -> Route:
    """A list of pods of which each page has ``limit``; a question without a limit gets them all."""
    names = [f"p{index}" for index in range(number)]

    def answer(query: dict[str, str]) -> Answer:
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0")) or number
        following = str(start + limit) if start + limit < number else ""
        return listed("Pod", *(named(name) for name in names[start : start + limit]), following=following)

    return answer


def names_of(data: bytes) -> list[str]:
    return [entry["metadata"]["name"] for entry in json.loads(data)["items"]]


def test_pages(tmp_path: Path) -> None:
    with serving(tmp_path, NO_GROUPS | {"/api/v1/pods": pages(7)}, page=3) as (fake, live):
        assert names_of(live.read("pods.json")) == [f"p{index}" for index in range(7)]
        queries = [query for path, query, _ in fake.asked if path == "/api/v1/pods"]
        assert queries == [{"limit": "3"}, {"limit": "3", "continue": "3"}, {"limit": "3", "continue": "6"}]


def test_a_list_that_the_server_forgets_is_asked_for_at_once(tmp_path: Path) -> None:
    whole = pages(7)
    assert callable(whole)

    def forgetting(query: dict[str, str]) -> Answer:
        return failure(410, "too old resource version") if query.get("continue") == "6" else whole(query)

    with serving(tmp_path, NO_GROUPS | {"/api/v1/pods": forgetting}, page=3) as (fake, live):
        assert names_of(live.read("pods.json")) == [f"p{index}" for index in range(7)]
        assert fake.asked[-1][1] == {}
        assert len(fake.asked) == 5
        fake.routes["/api/v1/services"] = failure(410, "gone for good")
        with pytest.raises(EvidenceError, match=r"cannot list services: the API server answered 410 \(gone for good\)"):
            live.read("services.json")


def test_lists_that_do_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = iter(range(1000))
    routes: dict[str, Route] = {
        "/apis": groups(),
        "/api/v1/pods": listed("Pod", named("a"), following="same"),
        "/api/v1/nodes": listed("Node", following="empty"),
        "/api/v1/services": lambda _: listed("Service", named("a"), following=str(next(counted))),
    }
    monkeypatch.setattr(module, "MAX_PAGES", 9)
    with serving(tmp_path, routes) as (fake, live):
        for file, asked in (("pods.json", 2), ("nodes.json", 1), ("services.json", 9)):
            fake.asked.clear()
            with pytest.raises(EvidenceError, match=f"list of {file[:-5]} of cluster test does not end: try again"):
                live.read(file)
            assert len([path for path in fake.paths() if path.startswith("/api/")]) == asked


@pytest.mark.parametrize("content", [[], {"kind": "Pod"}, {"kind": "PodList", "items": {}}, {"items": []}, 5])
def test_answers_that_are_no_list(tmp_path: Path, content: object) -> None:
    with serving(tmp_path, NO_GROUPS | {"/api/v1/pods": document(content)}) as (_, live):
        assert "pods.json" in live.files()
        with pytest.raises(EvidenceError, match="answer for pods is not a list"):
            live.read("pods.json")


FORBIDDEN = 'pods is forbidden: User "eve" cannot list resource "pods" in API group "" at the cluster scope'


def test_what_is_forbidden(tmp_path: Path) -> None:
    routes = NO_GROUPS | {
        "/api/v1/pods": failure(403, FORBIDDEN),
        "/api/v1/nodes": failure(403, "no"),
        "/api/v1/services": listed("Service"),
    }
    with serving(tmp_path, routes) as (_, live):
        with pytest.raises(
            MissingEvidence, match="cannot list pods: forbidden for user eve; grant list on pods at the"
        ):
            live.read("pods.json")
        with pytest.raises(MissingEvidence, match=r"cannot list nodes: forbidden for these credentials \(no\); grant"):
            live.read("nodes.json")
        assert live.read("services.json")
        with pytest.raises(MissingEvidence, match="cluster test does not serve namespaces: nothing there has such"):
            live.read("namespaces.json")
        for never in ("secrets.json", "../pods.json", "pods", "tiers.projectcalico.org.json"):
            with pytest.raises(MissingEvidence, match="does not serve cluster/"):
                live.read(never)


BOTH = {
    "/apis": groups(crd__projectcalico__org=["v1"], projectcalico__org=["v3"], apps=["v1"]),
    "/apis/crd.projectcalico.org/v1": resources("tiers", "networkpolicies", "ippools", "bgpconfigurations"),
    "/apis/projectcalico.org/v3": resources("tiers", "networkpolicies"),
}


def calico_files(live: LiveCluster) -> set[str]:
    return {file for file in live.files() if "projectcalico" in file}


def test_of_calicos_groups_one_is_read(tmp_path: Path) -> None:
    with serving(tmp_path, BOTH) as (fake, live):
        shown = {"tiers.projectcalico.org.json", "networkpolicies.projectcalico.org.json"}
        assert calico_files(live) == shown | {"ippools.crd.projectcalico.org.json"}
        assert "/apis/apps/v1" not in fake.paths()


def test_calicos_api_server_is_away(tmp_path: Path) -> None:
    away = failure(503, "service unavailable")
    with serving(tmp_path, BOTH | {"/apis/projectcalico.org/v3": away}) as (_, live):
        stored = {f"{name}.crd.projectcalico.org.json" for name in ("tiers", "networkpolicies", "ippools")}
        assert stored <= calico_files(live)
    alone = {"/apis": groups(projectcalico__org=["v3"]), "/apis/projectcalico.org/v3": away}
    alone["/apis/projectcalico.org/v3/tiers"] = away
    with serving(tmp_path, alone) as (_, live):
        assert "tiers.projectcalico.org.json" in live.files()
        with pytest.raises(EvidenceError, match=r"cannot list tiers\.projectcalico\.org: the API server answered 503"):
            live.read("tiers.projectcalico.org.json")


def test_versions_and_verbs(tmp_path: Path) -> None:
    routes = {
        "/apis": groups(policy__networking__k8s__io=["v1alpha2", "v1alpha1", "v0"], discovery__k8s__io=["v1"]),
        "/apis/policy.networking.k8s.io/v1alpha2": resources("clusternetworkpolicies"),
        "/apis/policy.networking.k8s.io/v1alpha1": resources("clusternetworkpolicies", "adminnetworkpolicies"),
        "/apis/discovery.k8s.io/v1": resources("endpointslices", verbs=("get",)),
        "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies": listed("ClusterNetworkPolicy", named("new")),
        "/apis/policy.networking.k8s.io/v1alpha1/adminnetworkpolicies": listed("AdminNetworkPolicy", named("old")),
    }
    with serving(tmp_path, routes) as (_, live):
        assert names_of(live.read("clusternetworkpolicies.policy.networking.k8s.io.json")) == ["new"]
        assert names_of(live.read("adminnetworkpolicies.policy.networking.k8s.io.json")) == ["old"]
        assert "endpoints.json" in live.files()
    with serving(tmp_path, {**routes, "/apis/discovery.k8s.io/v1": resources("endpointslices")}) as (_, live):
        assert "endpoints.json" not in live.files()


def test_who_may_not_discover_may_still_list(tmp_path: Path) -> None:
    routes: dict[str, Route] = {
        "/apis": failure(403, "forbidden"),
        "/apis/crd.projectcalico.org/v1": failure(403, "forbidden"),
        "/apis/discovery.k8s.io/v1": failure(403, "forbidden"),
        "/apis/networking.k8s.io/v1": failure(403, "forbidden"),
        "/apis/crd.projectcalico.org/v1/tiers": listed("Tier", named("t")),
        "/api/v1/pods": listed("Pod", named("p")),
    }
    with serving(tmp_path, routes) as (_, live):
        assert names_of(live.read("tiers.crd.projectcalico.org.json")) == ["t"]
        assert names_of(live.read("pods.json")) == ["p"]


def test_a_server_that_cannot_be_asked_says_so_once(tmp_path: Path) -> None:
    with serving(tmp_path, {"/apis": failure(401, "Unauthorized")}) as (fake, live):
        state = load_cluster(ClusterSource(live))
        assert (list(state.pods), list(state.services), list(state.nodes)) == ([], [], [])
        assert len(fake.asked) == 1
        (problem,) = state.problems
        assert "does not accept the credentials of context test" in problem
        assert state.notes == (problem,)
        assert state.problem("pods.json") == problem
        with pytest.raises(EvidenceError, match="does not accept the credentials"):
            live.check()


def test_credentials_that_expire_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path, NO_GROUPS | {"/api/v1/pods": failure(401, "expired")}) as (fake, live):
        live.check()
        for file in ("pods.json", "nodes.json"):
            with pytest.raises(EvidenceError, match=r"does not accept the credentials .*\(expired\)"):
                live.read(file)
        assert fake.paths() == ["/apis", "/api/v1/pods"]


def test_a_server_that_stays_silent_is_not_asked_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calico_debug.agent.apiserver.READ_SECONDS", 0.05)
    released = threading.Event()

    def silent(_: dict[str, str]) -> Answer:
        released.wait(30)
        return listed("Some")

    routes = NO_GROUPS | {f"/api/v1/{plural}": silent for plural in RESOURCES[""]}
    with serving(tmp_path, routes) as (fake, live):
        for file in ("pods.json", "nodes.json", "services.json"):
            with pytest.raises(EvidenceError, match=r"did not answer within 0\.05 s"):
                live.read(file)
        assert fake.paths() == ["/apis", "/api/v1/pods", "/api/v1/nodes"]
        released.set()


def test_answers_to_discovery_that_make_no_sense(tmp_path: Path) -> None:
    for content in ([], {"groups": 5}, "x"):
        with serving(tmp_path, {"/apis": document(content)}) as (_, live):
            assert "pods.json" in live.files()
            with pytest.raises(EvidenceError, match="/apis lists no API groups: check context test of"):
                live.read("pods.json")
    odd = {"groups": [5, {"name": "networking.k8s.io", "versions": [5, {"version": 6}, {"version": "v1"}]}]}
    strange = document({"resources": [5, {}, {"name": "networkpolicies"}]})
    with serving(tmp_path, {"/apis": document(odd), "/apis/networking.k8s.io/v1": strange}) as (_, live):
        assert live.files()[0] == "pods.json"


# ------------------------------------------------------------------------------------------------------------- tiers


def test_tiers_that_are_kept_from_the_user(tmp_path: Path) -> None:
    """Calico's API server leaves their policies out without a word; asked for them by name it refuses."""

    def policies(query: dict[str, str]) -> Answer:
        if query.get("labelSelector") == "projectcalico.org/tier in (open,secret)":
            return failure(403, 'User "eve" cannot list networkpolicies.projectcalico.org in tier "secret"')
        return listed("NetworkPolicy", named("open.a", "ns"), api="projectcalico.org/v3")

    routes: dict[str, Route] = {
        "/apis": groups(projectcalico__org=["v3"]),
        "/apis/projectcalico.org/v3": resources("tiers", "networkpolicies", "hostendpoints"),
        "/apis/projectcalico.org/v3/tiers": listed("Tier", named("open"), named("secret")),
        "/apis/projectcalico.org/v3/networkpolicies": policies,
        "/apis/projectcalico.org/v3/hostendpoints": listed("HostEndpoint"),
    }
    file = "networkpolicies.projectcalico.org.json"
    with serving(tmp_path, routes) as (fake, live):
        with pytest.raises(
            MissingEvidence, match=r"of every tier: forbidden \(.*in tier \"secret\"\); grant get on tiers"
        ):
            live.read(file)
        fake.routes["/apis/projectcalico.org/v3/tiers"] = listed("Tier", named("open"))
        assert names_of(live.read(file)) == ["open.a"]
        fake.routes["/apis/projectcalico.org/v3/tiers"] = failure(403, "no")
        with pytest.raises(MissingEvidence, match="of every tier: forbidden"):
            live.read(file)
        fake.routes["/apis/projectcalico.org/v3/tiers"] = listed("Tier", {})
        with pytest.raises(EvidenceError, match="a tier of cluster test has no name"):
            live.read(file)
        assert live.read("hostendpoints.projectcalico.org.json")


def test_a_configuration_that_cannot_be_used() -> None:
    unusable = UnusableCluster("kubeconfig x is damaged")
    state = load_cluster(LiveSource("n1", unusable))
    assert list(state.pods) == []
    assert state.problems == ("kubeconfig x is damaged",)
    source = ClusterSource(unusable)
    assert (source.origin, list(source.nodes()), unusable.namespace) == ("the cluster", [], "")
    with pytest.raises(MissingEvidence, match="node n1 is not reachable from here: run on the node, or use a bundle"):
        source.node("n1")
