"""Captures of a node of the lab, in this process, with the cluster's objects as the lab has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.captures.manager import Captures
from calico_debug.agent.captures.running import CaptureLimits
from calico_debug.agent.evidence import LiveSource
from tests.lab import namespaces
from tests.lab.cluster_objects import cluster_files
from tests.lab.demo import MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calico_debug.agent.captures.folder import Document
    from calico_debug.model.subject import Subject
    from tests.lab.lab import Lab

SECONDS = 20.0


class Objects:
    """The cluster's lists as the lab has them; implements `ClusterReader`."""

    origin = "the lab"
    namespace = ""

    def __init__(self, lab: Lab) -> None:
        self._files = cluster_files(lab.topology, MODEL)
        self.without = ""
        """A pod that the API does not know yet."""

    def files(self) -> Sequence[str]:
        return tuple(self._files)

    def read(self, file: str) -> bytes:
        content = self._files[file]
        if file == "pods.json":
            items = [one for one in content["items"] if one["metadata"]["name"] != self.without]
            content = {**content, "items": items}
        return json.dumps(content).encode()


class Here:
    """Captures of node1, with the calls that begin in its namespace."""

    def __init__(self, lab: Lab, folder: Path, most: int = 1 << 30) -> None:
        self.lab, self.folder = lab, folder
        self.objects = Objects(lab)
        self.captures = Captures(folder, lambda: LiveSource("node1", self.objects), most=most)

    def start(self, subject: Subject, **limits: Any) -> str:
        with namespaces.entered(self.lab.namespace("node1")):
            return str(self.captures.start(subject, CaptureLimits(**limits))["id"])

    def until(self, name: str, events: int) -> Document:
        """The capture when it has so many events."""
        end = time.monotonic() + SECONDS
        while (document := self.captures.one(name))["events"] < events:
            assert time.monotonic() < end, document
            time.sleep(0.02)
        return document

    def stopped(self, name: str, events: int) -> list[dict[str, str]]:
        """What tshark reads of the capture, stopped when it has so many events."""
        self.until(name, events)
        document = self.captures.stop(name)
        assert (document["state"], document["endedBy"]) == ("ended", "stop")
        return [row for file in document["files"] for row in rows(self.folder / name / file["name"])]


FIELDS = ("frame.interface_name", "frame.comment", "ip.src_host", "ip.dst_host", "frame.len")


def rows(path: Path) -> list[dict[str, str]]:
    """Each packet as stock tshark shows it."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    done = subprocess.run(
        ["tshark", "-r", path, "-N", "n", "-T", "json", *(word for field in FIELDS for word in ("-e", field))],
        capture_output=True,
        check=True,
    )
    assert not [line for line in done.stderr.decode().splitlines() if "Running as" not in line]
    return [{key: value[0] for key, value in one["_source"]["layers"].items()} for one in json.loads(done.stdout)]


def interface(lab: Lab, place: str) -> str:
    return next(pod.interface for pod in lab.topology.pods if pod.place == place)
