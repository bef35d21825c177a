"""The manifests and the image against the code: flags, ports, paths and programs are those that exist."""

from __future__ import annotations

import configparser
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from calico_debug import __version__
from calico_debug.agent.bpf import COMMANDS
from calico_debug.agent.captures.manager import MOST_BYTES
from calico_debug.agent.commands import PACKAGES
from calico_debug.agent.places import BPFFS, RUN_DIRECTORIES
from calico_debug.agent.publication import NAME
from calico_debug.agent.reviews import AUDIENCE, PREFIX
from calico_debug.agent.routes import routes
from calico_debug.agent.routing import OBSERVER, READER, Route
from calico_debug.agent.run import METRICS_PATHS
from calico_debug.agent.settings import DEFAULT_CAPTURES, DEFAULT_METRICS, DEFAULT_SOCKET, VARIABLES, settings
from calico_debug.cli.agent import agent
from calico_debug.cli.agent_client import TOKEN_FILE
from tests.agent.serving import work_over
from tests.evidence.memory import MemorySource

ROOT = Path(__file__).parents[2]
DAEMONSET = ROOT / "daemonset"
OVERLAYS = ("read", "trace", "metrics")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge as far as these patches use it: lists of things with a name by name, those of the patch
    first; null takes away.
    """
    if isinstance(base, dict) and isinstance(patch, dict):
        found = {key: merged(base[key], patch[key]) if key in patch else base[key] for key in base}
        found |= {key: value for key, value in patch.items() if key not in base}
        return {key: value for key, value in found.items() if value is not None}
    if isinstance(base, list) and patch and isinstance(patch[0], dict) and "name" in patch[0]:
        by_name = {one["name"]: one for one in base}
        patched = {one["name"]: merged(by_name.pop(one["name"], {}), one) for one in patch}
        return [*patched.values(), *by_name.values()]
    return patch


def built(folder: Path) -> list[dict[str, Any]]:
    """What kustomize makes of a folder: its resources with the patches merged in."""
    (made,) = documents(folder / "kustomization.yaml")
    found: list[dict[str, Any]] = []
    for name in made["resources"]:
        path = (folder / name).resolve()
        found += built(path) if path.is_dir() else documents(path)
    for entry in made.get("configMapGenerator", ()):
        data = {Path(name).name: (folder / name).read_text(encoding="utf-8") for name in entry["files"]}
        about = {"name": entry["name"], "labels": entry["options"]["labels"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": data})
    for entry in made.get("patches", ()):
        for patch in documents(folder / entry["path"]):
            position = next(
                at
                for at, one in enumerate(found)
                if (one["kind"], one["metadata"]["name"]) == (patch["kind"], patch["metadata"]["name"])
            )
            found[position] = merged(found[position], patch)
    return found


def pod_of(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = next(
        one["spec"]["template"]["spec"] for one in built(DAEMONSET / "overlays" / overlay) if one["kind"] == "DaemonSet"
    )
    return spec


def container_of(overlay: str) -> dict[str, Any]:
    (container,) = pod_of(overlay)["containers"]
    assert isinstance(container, dict)
    return container


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_captures_have_room() -> None:
    """Where packets can be watched, and more of it than the agent takes: a pod beyond its limit is evicted."""
    mounts = {one["name"]: one["mountPath"] for one in container_of("trace")["volumeMounts"]}
    assert Path(DEFAULT_CAPTURES).parent == Path(mounts["captures"])
    (volume,) = (one for one in pod_of("trace")["volumes"] if one["name"] == "captures")
    assert int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) << 30 > MOST_BYTES


def test_every_file_is_used() -> None:
    used = set()
    for made in DAEMONSET.rglob("kustomization.yaml"):
        used.add(made)
        (document,) = documents(made)
        names = [*document["resources"], *(patch["path"] for patch in document.get("patches", ()))]
        used |= {(made.parent / name).resolve() for name in names}
    files = set(DAEMONSET.rglob("*.yaml"))
    assert files == {path for path in used if path.is_file()}
    assert {path.name for path in (DAEMONSET / "overlays").iterdir()} == set(OVERLAYS)


def test_the_agent_takes_what_it_is_given(overlay: str) -> None:
    container = container_of(overlay)
    assert container["command"] == ["calico-debug", agent.name]
    variables = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert {name for name in variables if name.startswith("CALICO_DEBUG_")} <= set(VARIABLES.values())
    for address in ("10.0.0.7", "fd00::7"):
        given = {name: value.replace("$(HOST_IP)", address) for name, value in variables.items()}
        found = settings({}, given)
        assert found.socket == DEFAULT_SOCKET
        assert found.listen is not None
        assert found.checked == (found.listen,)
        assert found.metrics is not None
        assert found.metrics.loopback == (overlay != "metrics")
        metrics, checked = container["ports"]
        assert metrics["containerPort"] == found.metrics.port == int(DEFAULT_METRICS.rpartition(":")[2])
        assert checked["containerPort"] == found.listen.port
    assert variables["NODENAME"] == ""


def test_probes_ask_what_is_answered_where_it_is(overlay: str) -> None:
    container = container_of(overlay)
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        assert asked["path"] == path
        assert path in METRICS_PATHS
        assert asked["port"] == container["ports"][0]["name"]
        assert asked.get("host") == (None if overlay == "metrics" else "127.0.0.1")


def test_mounts_are_where_the_code_looks(overlay: str) -> None:
    pod = pod_of(overlay)
    mounts = {mount["mountPath"]: mount for mount in container_of(overlay)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(volumes) == {mount["name"] for mount in mounts.values()}
    assert str(BPFFS) in mounts
    calico = Path("/var/run/calico")
    assert calico in RUN_DIRECTORIES
    for path in (str(BPFFS), str(calico)):
        assert mounts[path]["readOnly"]
        assert volumes[mounts[path]["name"]]["hostPath"] == {"path": path}
    assert str(Path(DEFAULT_SOCKET).parent) in mounts
    assert mounts[str(TOKEN_FILE.parent)]["readOnly"]
    (source,) = volumes[mounts[str(TOKEN_FILE.parent)]["name"]]["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == AUDIENCE
    assert source["serviceAccountToken"]["path"] == TOKEN_FILE.name
    writable = [mount["name"] for mount in mounts.values() if not mount.get("readOnly")]
    assert {next(key for key in volumes[name] if key != "name") for name in writable} == {"emptyDir"}


def test_rights_are_few(overlay: str) -> None:
    pod, context = pod_of(overlay), container_of(overlay)["securityContext"]
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"]["drop"] == ["ALL"]
    assert "privileged" not in context
    added = set(context["capabilities"]["add"])
    assert {"NET_ADMIN", "BPF"} <= added
    assert ("SYS_ADMIN" in added) == pod.get("hostPID", False) == (overlay == "trace")
    found = built(DAEMONSET / "overlays" / overlay)
    (account,) = (one["metadata"] for one in found if one["kind"] == "ServiceAccount")
    assert account["name"] == pod["serviceAccountName"]
    roles = {(one["kind"], one["metadata"]["name"]): one for one in found if one["kind"].endswith("Role")}
    bindings = [one for one in found if one["kind"].endswith("RoleBinding")]
    assert {(one["roleRef"]["kind"], one["roleRef"]["name"]) for one in bindings} == roles.keys()
    for binding in bindings:
        (subject,) = binding["subjects"]
        assert (subject["name"], subject["namespace"]) == (account["name"], account["namespace"])
    agents, places = (roles[key]["rules"] for key in (("ClusterRole", NAME), ("Role", NAME)))
    asked = {resource for rule in agents if "create" in rule["verbs"] for resource in rule["resources"]}
    assert asked == {"tokenreviews", "subjectaccessreviews"}
    assert {verb for rule in agents for verb in rule["verbs"]} == {"list", "get", "create"}
    assert (("ClusterRole", OBSERVER) in roles) == (overlay == "trace")
    assert places == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["list", "create", "patch"]}
    ]
    assert pod["hostNetwork"] is True


def covers(verb: str, url: str, route: Route) -> bool:
    """Whether a right allows a path of the agent; a * at the end of its URL is any rest."""
    asked = PREFIX + route.path
    return verb == route.method.lower() and (asked.startswith(url[:-1]) if url.endswith("*") else asked == url)


def test_each_path_is_in_one_role_and_each_role_has_nothing_to_spare() -> None:
    found = {one["metadata"]["name"]: one for one in built(DAEMONSET / "overlays" / "trace") if one.get("rules")}
    table = routes(work_over(MemorySource({})))
    allowed: dict[str, set[str]] = {route.name: set() for route in table}
    for name in (READER, OBSERVER):
        for rule in found[name]["rules"]:
            for verb, url in product(rule["verbs"], rule["nonResourceURLs"]):
                names = [route.name for route in table if covers(verb, url, route)]
                assert names, f"{name}: {verb} {url} allows nothing"
                for one in names:
                    allowed[one].add(name)
    assert allowed == {route.name: {route.role} if route.role else set() for route in table}
    assert {route.path for route in table if not route.role} == METRICS_PATHS


def test_what_looks_at_packets_is_for_observers() -> None:
    table = routes(work_over(MemorySource({})))
    observing = {route.path.split("/")[2] for route in table if route.role == OBSERVER}
    assert observing == {"captures", "drops", "observations", "probes"}


def test_every_node_has_one_and_few_are_replaced_at_once(overlay: str) -> None:
    (daemonset,) = (one for one in built(DAEMONSET / "overlays" / overlay) if one["kind"] == "DaemonSet")
    assert daemonset["spec"]["updateStrategy"]["type"] == "RollingUpdate"
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert daemonset["spec"]["selector"]["matchLabels"].items() <= labels.items()
    pod = pod_of(overlay)
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"
    assert container_of(overlay)["resources"]["limits"].keys() == {"memory"}


def test_the_monitor_finds_the_port() -> None:
    found = built(DAEMONSET / "overlays/metrics")
    (monitor,) = (one["spec"] for one in found if one["kind"] == "PodMonitor")
    (daemonset,) = (one for one in found if one["kind"] == "DaemonSet")
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == container_of("metrics")["ports"][0]["name"]
    assert endpoint["path"] in METRICS_PATHS


def test_the_image_has_every_program_and_version() -> None:
    stage = DOCKERFILE.rpartition("FROM ")[2]
    installed = set(re.findall(r"[a-z0-9-]+", stage.partition("--no-install-recommends")[2].partition("&&")[0]))
    programs = {PACKAGES.get(command[0], command[0]) for command in COMMANDS.values()}
    assert set(PACKAGES.values()) | programs | {"ipset", "python3", "python3-bpfcc"} <= installed
    (made,) = documents(DAEMONSET / "base/kustomization.yaml")
    assert made["images"] == [{"name": container_of("read")["image"], "newTag": __version__}]
    assert f"ARG VERSION={__version__}\n" in DOCKERFILE
    assert re.search(r"^ARG BASE=debian:12\.\d+-slim$", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_there_and_in_the_context() -> None:
    context = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for name in line.split()[:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in context


def test_every_requirement_is_pinned() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    wanted = config["options"]["install_requires"].split("\n") + config["options.extras_require"]["agent"].split("\n")
    names = {match[0].lower() for entry in wanted if (match := re.match(r"[A-Za-z0-9-]+", entry))}
    lines = (DAEMONSET / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0].lower() for line in lines if "==" in line}
    assert names | {"setuptools", "wheel"} <= pinned
