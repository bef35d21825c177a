from __future__ import annotations

import subprocess
from pathlib import Path
from socket import AF_INET6, SOCK_DGRAM, socket

import pytest

from tests.lab import namespaces
from tests.lab.conftest import need_lab

pytestmark = pytest.mark.kernel


@pytest.fixture(autouse=True)
def _lab() -> None:
    need_lab()


def test_a_namespace_is_entered_left_and_deleted() -> None:
    home = Path("/proc/self/ns/net").readlink()
    names = namespaces.create(["a", "b"])
    try:
        with namespaces.entered(names["a"]):
            inside = Path("/proc/thread-self/ns/net").readlink()
        assert inside != home
        assert Path("/proc/self/ns/net").readlink() == home
        assert namespaces.run(names["b"], ["ip", "-br", "link"]).split()[0] == "lo"
    finally:
        namespaces.delete(names.values())
    assert not [name for name in names.values() if (namespaces.NETNS_DIRECTORY / name).exists()]


def test_an_error_inside_leaves_the_namespace() -> None:
    home = Path("/proc/self/ns/net").readlink()
    name = namespaces.create(["a"])["a"]
    try:
        with pytest.raises(namespaces.LabError, match=r"nft -f -: .*syntax error"):
            namespaces.nft(name, "add nonsense")
    finally:
        namespaces.delete([name])
    assert Path("/proc/self/ns/net").readlink() == home


def test_namespaces_of_dead_processes_are_removed() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = f"{namespaces.PREFIX}{gone.pid}-1-left"
    subprocess.run(["ip", "netns", "add", stale], check=True)
    namespaces.delete_stale()
    assert not (namespaces.NETNS_DIRECTORY / stale).exists()


def test_sysctl_is_the_namespaces_own() -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    name = namespaces.create(["a"])["a"]
    try:
        namespaces.sysctl(name, {"net/ipv4/ip_forward": "1"})
        assert namespaces.run(name, ["cat", "/proc/sys/net/ipv4/ip_forward"]).strip() == "1"
    finally:
        namespaces.delete([name])
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


def test_addresses_are_reached_once_they_are_awaited() -> None:
    name = namespaces.create(["a"])["a"]
    addresses = [f"fd00::{number:x}" for number in range(1, 33)]
    try:
        namespaces.ip(name, ["link set lo up", *(f"addr add {one}/64 dev lo nodad" for one in addresses)], "-6")
        namespaces.await_addresses(name, *addresses)
        with namespaces.entered(name), socket(AF_INET6, SOCK_DGRAM) as sender:
            for one in addresses:
                assert sender.sendto(b"x", (one, 9)) == 1
    finally:
        namespaces.delete([name])
