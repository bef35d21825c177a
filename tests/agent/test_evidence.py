"""Live evidence against the kernel: it is what a bundle of the same node would hold."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, socket

import pytest

from calico_debug.agent import commands
from calico_debug.agent import evidence as module
from calico_debug.agent.evidence import LiveNode, LiveSource
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.contents import NODE_COMMANDS
from calico_debug.evidence.source import PointLookups
from calico_debug.model.conntrack import Tuple
from calico_debug.state.node import NodeState
from tests.evidence.memory import MemoryNode, recorded_bundles
from tests.lab import namespaces

A = ip_address


@pytest.fixture
def namespace() -> Iterator[str]:
    if reason := namespaces.supported():
        pytest.skip(reason)
    name = namespaces.create(["live"])["live"]
    try:
        namespaces.ip(
            name,
            [
                "link set lo up",
                "link add e.1 type veth peer name e2",
                "link set e.1 up",
                "link set e2 up",
                "addr add 10.0.0.1/24 dev e.1",
                "addr add 10.0.0.2/24 dev e.1",
                "route add 10.9.0.0/16 via 10.0.0.9",
                "rule add fwmark 0x10/0xf0 table 100 pref 99",
            ],
        )
        namespaces.ip(name, ["addr add fd00::1/64 dev e.1 nodad", "addr add fd00::2/64 dev e.1 nodad"], "-6")
        namespaces.await_addresses(name, "fd00::1", "fd00::2")
        namespaces.sysctl(name, {"net/ipv4/conf/e.1/rp_filter": "2", "net/ipv4/ip_forward": "1"})
        namespaces.nft(
            name,
            "add table inet t\nadd chain inet t c { type filter hook output priority 0; }\n"
            "add rule inet t c ct state new counter\n",
        )
        yield name
    finally:
        namespaces.delete([name])


@pytest.mark.kernel
def test_a_live_node_and_its_recording_are_the_same(namespace: str) -> None:
    with namespaces.entered(namespace):
        live = LiveNode("n1")
        recorded = {file: live.read(file) for file in live.files() if file not in ("felix-env.txt", "nft-ruleset.json")}
        node, replayed = NodeState(live), NodeState(MemoryNode(recorded))
        assert node.interfaces == replayed.interfaces
        assert {"lo", "e.1", "e2"} <= set(node.interfaces)
        assert list(node.addresses) == list(replayed.addresses)
        for family in (4, 6):
            assert node.routing(family) == replayed.routing(family)
        assert 99 in [rule.priority for rule in node.routing(4).rules]
        assert node.is_local(A("10.0.0.2"))
        assert not node.is_local(A("10.0.0.3"))
        for family, interface, key in ((4, "all", "rp_filter"), (4, "e.1", "rp_filter"), (6, "e2", "forwarding")):
            assert node.interface_sysctl(family, interface, key) == replayed.interface_sysctl(family, interface, key)
        assert node.interface_sysctl(4, "e.1", "rp_filter") == "2"
        assert node.sysctl("net.ipv4.ip_forward") == replayed.sysctl("net.ipv4.ip_forward") == "1"


@pytest.mark.kernel
def test_one_connection_is_found_by_either_direction(namespace: str) -> None:
    with namespaces.entered(namespace):
        sockets = []
        for family, client, server in ((AF_INET, "10.0.0.1", "10.0.0.2"), (AF_INET6, "fd00::1", "fd00::2")):
            listener, caller = socket(family, SOCK_STREAM), socket(family, SOCK_STREAM)
            listener.bind((server, 8080))
            listener.listen()
            caller.bind((client, 40000))
            caller.connect((server, 8080))
            datagram, raw = socket(family, SOCK_DGRAM), socket(family, SOCK_RAW, 89)
            datagram.bind((client, 41000))
            datagram.sendto(b"x", (server, 53))
            raw.bind((client, 0))
            raw.sendto(bytes(20), (server, 0))
            sockets += [listener, caller, datagram, raw]
        ping = socket(AF_INET, SOCK_RAW, 1)
        ping.bind(("10.0.0.1", 0))
        ping.sendto(bytes.fromhex("0800e5cb12340000"), ("10.0.0.2", 0))
        node = NodeState(LiveNode("n1"))
        assert isinstance(LiveNode("n1"), PointLookups)
        for source, destination in (("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")):
            a, b = A(source), A(destination)
            for protocol, ports in ((6, (40000, 8080)), (17, (41000, 53)), (89, (None, None))):
                forward = Tuple(protocol, a, b, *ports)
                found = node.connection(forward)
                assert found is not None, forward
                assert found.original == forward
                again = node.connection(found.reply)
                assert again is not None
                assert (again.original, again.reply) == (found.original, found.reply)
            assert node.connection(Tuple(6, a, b, 40001, 8080)) is None
            assert node.connection(Tuple(6, a, b, 40000, 8080, zone=5)) is None
            assert node.connection(Tuple(132, a, b, 1, 2)) is None
        echo = node.connection(Tuple(1, A("10.0.0.1"), A("10.0.0.2"), icmp=(8, 0, 0x1234)))
        assert echo is not None
        again = node.connection(echo.reply)
        assert again is not None
        assert again.original == echo.original
        assert node.notes == ()
        assert {c.original.source.version for c in node.connections(6)} == {6}
        assert len(node.connections(4)) >= 4
        for open_socket in (*sockets, ping):
            open_socket.close()


@pytest.mark.kernel
def test_the_rules_of_a_live_node(namespace: str) -> None:
    with namespaces.entered(namespace):
        ruleset = NodeState(LiveNode("n1")).ruleset
        assert list(ruleset.tables()) == [("inet", "t")]
        rules = ruleset.rules("inet", "t", "c")
        assert rules is not None
        assert len(rules) == 1


@pytest.mark.kernel
def test_sysctls_are_those_of_recordings(namespace: str) -> None:
    with namespaces.entered(namespace):
        listed = {line.partition(b" = ")[0].decode() for line in LiveNode("n1").read("sysctl.txt").splitlines()}
    recorded = set()
    for bundle in recorded_bundles():
        for line in (bundle / "nodes/node1/sysctl.txt").read_text().splitlines():
            recorded.add(line.partition(" = ")[0])
    shared = {key for key in recorded if ".conf.all." in key or key.startswith("net.ipv4.ip_forward")}
    assert shared <= listed
    assert "net.ipv4.conf.e/1.rp_filter" in listed


def test_settings_that_do_not_exist() -> None:
    node = LiveNode("n1")
    for key in ("net.ipv4.no_such", "", "..", "net/../../etc/passwd", "kernel", "net..ipv4"):
        assert node.read_sysctl(key) is None


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODENAME", "from-env")
    assert LiveNode().name == "from-env"
    assert LiveNode("given").name == "given"
    monkeypatch.delenv("NODENAME")
    monkeypatch.setattr(module, "gethostname", lambda: "Host-1")
    assert LiveNode().name == "host-1"
    source = LiveSource("n1")
    assert (source.origin, list(source.nodes())) == ("this node", ["n1"])
    assert source.node("n1").name == "n1"
    assert source.node("n1").taken_at == source.node("n1").taken_at
    with pytest.raises(MissingEvidence, match="node n2 is not reachable from here, this is n1"):
        source.node("n2")
    assert source.cluster_files() == ()
    with pytest.raises(MissingEvidence, match="give IP addresses, name a kubeconfig with --kubeconfig, or use"):
        source.read_cluster("pods.json")


def test_files_that_are_not_known() -> None:
    assert set(LiveNode("n1").files()) == set(NODE_COMMANDS)
    with pytest.raises(MissingEvidence, match="is not known to this version"):
        LiveNode("n1").read("bpf/map.json")


def fake_process(root: Path, number: int, arguments: bytes, environment: bytes) -> None:
    process = root / str(number)
    process.mkdir()
    (process / "cmdline").write_bytes(arguments)
    (process / "environ").write_bytes(environment)


def test_felix_is_found_among_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROCESS_ROOT", tmp_path)
    (tmp_path / "self").mkdir()
    (tmp_path / "7").mkdir()
    fake_process(tmp_path, 8, b"", b"FELIX_X=kernel-thread\0")
    fake_process(tmp_path, 9, b"calico-node\0-bird-live\0", b"FELIX_X=not-felix\0")
    with pytest.raises(MissingEvidence, match="hostPID: true"):
        LiveNode("n1").read("felix-env.txt")
    fake_process(tmp_path, 10, b"/bin/calico-node\0-felix\0", b"PATH=/bin\0FELIX_B=2\0FELIX_A=1=1\0")
    assert LiveNode("n1").read("felix-env.txt") == b"FELIX_A=1=1\nFELIX_B=2\n"
    assert NodeState(LiveNode("n1")).felix == {"FELIX_A": "1=1", "FELIX_B": "2"}


def fake_program(directory: Path, name: str, script: str) -> None:
    path = directory / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_missing_program_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(commands, "ADMINISTRATION", str(tmp_path))
    with pytest.raises(MissingEvidence, match=r"`ip -j rule`: ip is not installed; .*apt-get install iproute2"):
        LiveNode("n1").read("ip-rule.json")


def test_what_a_program_says_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    fake_program(tmp_path, "conntrack", 'echo "no\n such luck" >&2; exit 3')
    with pytest.raises(EvidenceError, match=r"`conntrack -L` failed: no such luck; run it by hand"):
        LiveNode("n1").read("conntrack.txt")
    wanted = Tuple(6, A("10.0.0.1"), A("10.0.0.2"), 1, 2)
    with pytest.raises(EvidenceError, match=r"`conntrack -G .* failed: no such luck"):
        LiveNode("n1").find_connection(wanted)
    node = NodeState(LiveNode("n1"))
    assert node.connection(wanted) is None
    assert "no such luck" in node.notes[0]
