"""Fills an API server: CRDs, the role that the project ships, and the objects of a recorded or a made-up cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tests.cluster.server import Server

Object = dict[str, Any]

RESOURCES = Path(__file__).with_name("resources.yaml")
ROLE = Path(__file__).parents[2] / "daemonset" / "base" / "rbac.yaml"
OBSERVER_ROLE = ROLE.parents[1] / "overlays" / "trace" / "observer.yaml"

OWN = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences", "selfLink")
"""Metadata that the server writes itself, or that points to objects of another cluster."""

ORDER = ("namespaces.json", "serviceaccounts.json", "nodes.json", "tiers.crd.projectcalico.org.json")
"""What others need comes first."""

WITH_STATUS = ("pods.json", "nodes.json", "services.json")


def definitions(groups: Iterable[Object] | None = None) -> list[Object]:
    """The CRDs of resources.yaml, or of groups in its form."""
    made = []
    for group in groups if groups is not None else yaml.safe_load(RESOURCES.read_text()):
        for scope, key in (("Cluster", "cluster"), ("Namespaced", "namespaced")):
            for plural, kind in group.get(key, {}).items():
                made.append(_definition(group["group"], group["versions"], scope, plural, kind))
    return made


def _definition(group: str, versions: list[str], scope: str, plural: str, kind: str) -> Object:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"plural": plural, "kind": kind, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [
                {"name": name, "served": True, "storage": name == versions[0], "schema": schema} for name in versions
            ],
        },
    }


def install(server: Server, wanted: Iterable[Object]) -> None:
    """Create CRDs and wait until each is served."""
    wanted = list(wanted)
    for definition in wanted:
        server.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    for definition in wanted:
        spec = definition["spec"]
        path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
        server.until(f"{path} is served", lambda path=path: "items" in server.call("GET", path))  # type: ignore[misc]


def grant_role(server: Server) -> None:
    """What an administrator does with daemonset/base/rbac.yaml."""
    server.create("/api/v1/namespaces", {"metadata": {"name": "calico-debug"}})
    for document in yaml.safe_load_all(ROLE.read_text()):
        server.create(path_of(document), document)


def load(server: Server, lists: Mapping[str, Object]) -> None:
    """Create every object of the lists of a bundle's ``cluster/``."""
    for file in sorted(lists, key=lambda file: (ORDER.index(file) if file in ORDER else len(ORDER), file)):
        for entry in lists[file]["items"]:
            if (entry["kind"], entry["metadata"]["name"]) == ("Service", "kubernetes"):
                continue  # every server makes its own
            made = json.loads(json.dumps(entry))
            made["metadata"] = {key: value for key, value in made["metadata"].items() if key not in OWN}
            status = made.pop("status", None)
            if made["kind"] == "Pod":
                for container in made["spec"]["containers"]:
                    container.setdefault("image", "none")
            if made["kind"] == "Service" and len(made["spec"].get("clusterIPs", ())) > 1:
                made["spec"].setdefault("ipFamilyPolicy", "PreferDualStack")
            path = path_of(made)
            created = server.create(path, made)
            if created is not None and status is not None and file in WITH_STATUS:
                created["status"] = status
                server.call("PUT", f"{path}/{made['metadata']['name']}/status", created)


def path_of(entry: Object) -> str:
    """Where objects of this kind are created."""
    group, _, version = entry["apiVersion"].rpartition("/")
    kind = entry["kind"].lower()
    plural = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
    namespace = entry["metadata"].get("namespace")
    start = f"/apis/{group}/{version}" if group else f"/api/{version}"
    return f"{start}/namespaces/{namespace}/{plural}" if namespace else f"{start}/{plural}"
