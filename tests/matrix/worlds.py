"""Bundles for matrices: objects of a cluster alone, with names that try to be more than names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = (
    "<script>window.hurt=1</script>",
    "</script><img src=x onerror=window.hurt=1>",
    "\"'><b>bold</b>",
    "\u202egnp.exe\u202c",
    "${window.hurt=1}@data@",
)
"""No API server takes such names; a bundle can hold anything."""

NAMESPACES = tuple(name.replace("/", "") for name in HOSTILE)


def write_cluster(folder: Path, **lists: list[dict[str, Any]]) -> Path:
    """A bundle with these lists; ``__`` in a name stands for the dot of its group."""
    cluster = folder / "cluster"
    cluster.mkdir(parents=True)
    for name, items in lists.items():
        (cluster / f"{name.replace('__', '.')}.json").write_text(json.dumps({"kind": "List", "items": items}))
    return folder


def pod(namespace: str, name: str, number: int, node: str = "n1", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": labels},
        "spec": {"nodeName": node, "containers": [{"ports": [{"containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": f"10.0.0.{number}"},
    }


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


def hostile(folder: Path) -> Path:
    """A pod of each hostile name, and a policy of such a name that denies what comes to the first."""
    pods = [pod(NAMESPACES[number], name, number + 1, n=str(number)) for number, name in enumerate(HOSTILE)]
    spec = {"tier": "default", "selector": "n == '0'", "types": ["Ingress"], "ingress": [{"action": "Deny"}]}
    return write_cluster(
        folder,
        pods=pods,
        namespaces=[namespace(name) for name in NAMESPACES],
        globalnetworkpolicies__crd__projectcalico__org=[{"metadata": {"name": HOSTILE[0]}, "spec": spec}],
    )
