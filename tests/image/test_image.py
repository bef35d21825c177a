"""The image: what is in it, and the agent in it with the rights, mounts and environment of the manifests."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from calico_debug import __version__
from tests.image.builder import BASE, ROOT
from tests.image.conftest import Image
from tests.image.container import Container
from tests.lab.conftest import need_lab
from tests.lab.demo import MODEL
from tests.lab.lab import Lab

pytestmark = [pytest.mark.image, pytest.mark.kernel]

MIB = 1 << 20
LARGEST = 600 * MIB
DATA = ROOT / "tests/data"
RECORDED = ("--from", "client/client-5f8b", "--to", "svc/stars/backend")


def walked(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below a directory."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            yield path, path.lstat()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_lab()
    with Lab() as built:
        built.program(MODEL)
        yield built


@pytest.fixture
def read(image: Image, lab: Lab, tmp_path: Path) -> Iterator[Container]:
    with started(image, lab, tmp_path, "read") as container:
        yield container


def started(image: Image, lab: Lab, folder: Path, overlay: str) -> Container:
    calico = folder / "calico"
    calico.mkdir()
    mounts = {"/var/run/calico": calico, "/mnt": DATA}
    return Container(image.root, overlay, lab.namespace("node1"), folder / "log", mounts=mounts)


def test_it_says_what_it_is(image: Image) -> None:
    labels = {key.rpartition("image.")[2]: value for key, value in image.description["config"]["Labels"].items()}
    assert labels["title"] == "calico-debug"
    assert labels["version"] == __version__
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"] == BASE
    assert labels["description"]
    assert "revision" in labels
    config = image.description["config"]
    assert (config["Entrypoint"], config["Cmd"]) == (["calico-debug"], ["agent"])


def test_it_is_small_and_nothing_in_it_gives_rights(image: Image) -> None:
    size, special, writable = 0, [], []
    for path, found in walked(image.root):
        size += found.st_blocks * 512
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            continue
        if found.st_mode & (stat.S_ISUID | stat.S_ISGID) and stat.S_ISREG(found.st_mode):
            special.append(path)
        if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
            writable.append(path)
        assert found.st_uid == 0 or not path.is_relative_to(image.root / "opt"), path
    print(f"unpacked: {size / MIB:.0f} MiB")  # noqa: T201
    assert size < LARGEST
    assert special == []
    assert writable == []


def test_what_builds_is_not_in_it(image: Image) -> None:
    programs = {
        path.name
        for folder in ("usr/bin", "usr/sbin", "opt/calico-debug/bin")
        for path in (image.root / folder).iterdir()
    }
    assert not {name for name in programs if re.match(r"(clang|gcc|cc|ld|as|make|pip)[0-9.-]*$", name)}
    assert {"bpftool", "conntrack", "ipset", "ip", "iptables-save", "nft", "python3", "calico-debug"} <= programs
    assert not list(image.root.glob("var/lib/apt/lists/*"))


def test_every_distribution_is_of_the_version_that_is_pinned(image: Image) -> None:
    lines = (ROOT / "daemonset/constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {re.sub(r"[-_.]+", "_", line.lower()) for line in lines if "==" in line}
    found = set()
    for path in image.root.glob("opt/calico-debug/lib/python3*/site-packages/*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").partition("-")
        found.add(re.sub(r"[-_.]+", "_", f"{name}=={version}".lower()))
    assert found - pinned == {re.sub(r"[-_.]+", "_", f"calico_debug=={__version__}")}


def test_the_agent_answers_on_its_socket(read: Container) -> None:
    assert read.ask("/healthz") == (200, b"ok\n")
    assert read.ask("/readyz") == (200, b"ok\n")
    status, description = read.ask("/v1/openapi.json")
    assert status == 200
    assert json.loads(description)["info"]["version"] == __version__
    status, page = read.ask("/metrics")
    assert status == 200
    assert b'calico_debug_source_up{source="rules"} 1' in page
    assert b"calico_debug_policy_rule_packets_total{" in page


def test_it_has_the_rights_of_its_profile_and_no_more(read: Container) -> None:
    status = Path(f"/proc/{read.pid}/status").read_text(encoding="ascii")
    net_admin, bpf = 12, 39  # include/uapi/linux/capability.h
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        (held,) = re.findall(rf"^{kind}:\s*([0-9a-f]+)$", status, re.MULTILINE)
        assert int(held, 16) == 1 << net_admin | 1 << bpf, kind
    assert re.search(r"^NoNewPrivs:\s*1$", status, re.MULTILINE)


def test_nothing_but_the_sockets_directory_can_be_written(read: Container) -> None:
    table = Path(f"/proc/{read.pid}/mounts").read_text(encoding="ascii").splitlines()
    mounts = {line.split()[1]: line.split()[3].split(",") for line in table}
    devices = {place for place in mounts if place.startswith("/dev/")}
    assert {place for place, options in mounts.items() if "ro" not in options} - devices == {
        "/proc",
        "/run/calico-debug",
    }
    refused = read.run("touch", "/opt/calico-debug/x", "/root/x", "/var/run/calico/x")
    assert refused.stderr.count("Read-only file system") == 3


def test_it_explains_a_recorded_flow(read: Container) -> None:
    assert read.run("calico-debug", "--version").stdout == f"calico-debug {__version__}\n"
    done = read.run("calico-debug", "trace", "--bundle", "/mnt/v3.32.1-nft.tar.xz", *RECORDED)
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("ALLOWED")


def test_it_explains_a_flow_of_the_node(read: Container, lab: Lab) -> None:
    for port in (80, 81):
        flow = lab.flow("red/cli1", "red/web1", "tcp", port)
        asked = lab.question(flow)
        done = read.run("calico-debug", "trace", "-o", "json", "--from", asked["from"], "--to", asked["to"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["verdict"] == lab.send(flow).verdict


def test_the_packets_program_runs_without_a_compiler(image: Image, lab: Lab, tmp_path: Path) -> None:
    """In the profile that may load programs; the kernel verifies the object that is in the image."""
    with started(image, lab, tmp_path, "trace") as container:
        (found,) = image.root.glob("opt/calico-debug/lib/python3*/site-packages/calico_debug/agent/packets/*.bpf.o")
        inside = f"/{found.relative_to(image.root)}"
        shell = f"mount -t bpf bpf /run/calico-debug && bpftool prog loadall {inside} /run/calico-debug/x"
        loaded = container.run("sh", "-ec", f"unshare --mount sh -ec '{shell} && ls /run/calico-debug/x'")
        assert loaded.returncode == 0, loaded.stderr
        assert loaded.stdout.split()


def test_it_ends_when_told_and_takes_its_socket_along(read: Container) -> None:
    directory = os.open(f"/proc/{read.pid}/root/run/calico-debug", os.O_RDONLY)
    inside = Path(f"/proc/self/fd/{directory}")
    try:
        assert [path.name for path in inside.iterdir()] == ["agent.sock"]
        status, seconds = read.terminate()
        assert not list(inside.iterdir())
    finally:
        os.close(directory)
    assert status == 0
    assert seconds < 5
