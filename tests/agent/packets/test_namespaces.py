"""Network namespaces of a node and of its pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.agent import namespace_files
from calico_debug.agent.packets.namespaces import VXLAN_PORT, find_namespaces
from tests.lab import namespaces

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lab.lab import Lab

pytestmark = pytest.mark.kernel


def inode(lab: Lab, place: str) -> int:
    return (namespaces.NETNS_DIRECTORY / lab.namespace(place)).stat().st_ino


def test_the_node_and_its_pods(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        found = find_namespaces(["cali"])
    pods = lab.topology.pods_of("node1")
    assert found.home == inode(lab, "node1")
    assert found.behind == {pod.interface: inode(lab, pod.place) for pod in pods}
    assert found.hidden == ()
    assert found.all == (found.home, *found.behind.values())
    assert found.vxlan_port == VXLAN_PORT


def test_other_interfaces_lead_to_no_pods(lab: Lab) -> None:
    with namespaces.entered(lab.namespace("node1")):
        assert set(find_namespaces(["eth"]).behind) == {"eth0"}
        assert find_namespaces(["eni"]).behind == {}


def test_namespaces_that_are_not_visible(lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(namespace_files, "NAMED", (tmp_path / "none",))
    monkeypatch.setattr(namespace_files, "PROCESSES", tmp_path)
    with namespaces.entered(lab.namespace("node1")):
        found = find_namespaces(["cali"])
    assert set(found.hidden) == {pod.interface for pod in lab.topology.pods_of("node1")}
    assert found.all == (found.home,)


def test_the_port_of_the_tunnel(tunnelled: Lab) -> None:
    with namespaces.entered(tunnelled.namespace("node1")):
        assert find_namespaces(["cali"]).vxlan_port == VXLAN_PORT
