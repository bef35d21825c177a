"""The manifests on a real API server, by the documented command: ``kubectl apply -k daemonset/overlays/…``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from calico_debug import __version__
from calico_debug.agent.cluster import LiveCluster
from calico_debug.agent.kubeconfig import find_access
from tests.cluster.contents import definitions, install
from tests.cluster.server import ADMIN, Server
from tests.daemonset.test_dashboards import covered
from tests.daemonset.test_manifests import DAEMONSET, OVERLAYS, built

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.cluster

KUBECTL = "CALICO_DEBUG_KUBECTL"
"""The variable that names the kubectl program; make test-cluster sets it."""

OPERATOR: list[dict[str, Any]] = [
    {
        "group": "monitoring.coreos.com",
        "versions": ["v1"],
        "namespaced": {"podmonitors": "PodMonitor", "prometheusrules": "PrometheusRule"},
    }
]
"""What the Prometheus operator defines."""


@pytest.fixture(scope="module")
def empty(directory: Path) -> Iterator[Server]:
    """A cluster with nothing in it but the operator's definitions."""
    if not os.environ.get(KUBECTL):
        pytest.skip(f"{KUBECTL} names no kubectl: run make test-cluster")
    started = Server(directory / "empty")
    try:
        install(started, definitions(OPERATOR))
        yield started
    finally:
        started.stop()


@pytest.fixture
def administrator(empty: Server, tmp_path: Path) -> str:
    return empty.kubeconfig(tmp_path / "admin.yaml", ADMIN)


def kubectl(*arguments: str) -> str:
    done = subprocess.run([os.environ[KUBECTL], *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is deprecated, and no rule of pod security is broken
    return done.stdout


def key(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["kind"], entry["metadata"].get("namespace", ""), entry["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_server_takes_every_overlay(overlay: str, administrator: str) -> None:
    folder = str(DAEMONSET / "overlays" / overlay)
    applied = kubectl("apply", "--kubeconfig", administrator, "-k", folder, "-o", "json")
    items = json.loads(applied)["items"]
    assert sorted(key(one)[::2] for one in items) == sorted(
        key(one)[::2] for one in built(DAEMONSET / "overlays" / overlay)
    )
    (daemonset,) = (one for one in items if one["kind"] == "DaemonSet")
    assert daemonset["metadata"]["namespace"] == "calico-debug"
    again = kubectl("apply", "--kubeconfig", administrator, "-k", folder)
    assert {line.rpartition(" ")[2] for line in again.splitlines()} == {"unchanged"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_tests_and_kustomize_understand_the_same(overlay: str) -> None:
    """Other tests read the manifests with a few lines of their own; they are to see what kustomize makes of them."""
    folder = DAEMONSET / "overlays" / overlay
    rendered = {key(one)[::2]: one for one in yaml.safe_load_all(kubectl("kustomize", str(folder)))}
    for expected in built(folder):
        document = rendered.pop(key(expected)[::2])
        if expected["kind"] == "DaemonSet":
            (theirs,) = document["spec"]["template"]["spec"]["containers"]
            (mine,) = expected["spec"]["template"]["spec"]["containers"]
            assert theirs["image"] == f"{mine['image']}:{__version__}"
            theirs["image"] = mine["image"]
        for part in ("rules", "data", "spec"):
            assert covered(expected.get(part), document.get(part))
    assert rendered == {}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_variables_stand_before_what_they_are_put_into(overlay: str) -> None:
    """Kubernetes leaves $(NAME) as it is when NAME comes later; kustomize puts what it patches first."""
    rendered = yaml.safe_load_all(kubectl("kustomize", str(DAEMONSET / "overlays" / overlay)))
    (daemonset,) = (one for one in rendered if one["kind"] == "DaemonSet")
    (container,) = daemonset["spec"]["template"]["spec"]["containers"]
    known: set[str] = set()
    for entry in container["env"]:
        assert set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= known
        known.add(entry["name"])


def test_the_account_that_is_made_may_read_the_cluster(empty: Server, administrator: str, tmp_path: Path) -> None:
    kubectl("apply", "--kubeconfig", administrator, "-k", str(DAEMONSET / "overlays" / "read"))
    account = empty.kubeconfig(tmp_path / "agent.yaml", empty.token("calico-debug", "calico-debug"))
    access = find_access(kubeconfig=account)
    assert access is not None
    live = LiveCluster(access)
    assert json.loads(live.read("pods.json"))["items"] == []
