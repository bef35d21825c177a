"""What observers of packets need, and a cluster that they watch."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from calico_debug.agent.bpf_library import library
from calico_debug.agent.packets.observer import BTF
from calico_debug.agent.packets.program import compiler, object_path
from calico_debug.errors import MissingEvidence
from tests.lab import namespaces
from tests.lab.demo import MODEL
from tests.lab.lab import Lab
from tests.lab.topology import small_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator


def need_observer() -> None:
    """Skip, with the precise reason, where packets cannot be observed."""
    if os.geteuid() != 0:
        pytest.skip("not root: packets cannot be observed")
    if shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        pytest.skip("bpftool is not installed")
    if compiler() is None and not object_path().is_file():
        pytest.skip("clang is not installed")
    if not Path(BTF).is_file():
        pytest.skip(f"this kernel has no {BTF}")
    try:
        library()
    except MissingEvidence as error:
        pytest.skip(str(error))


def end_unread(lab: Lab, client: str, server: socket.socket) -> None:
    """A connection whose client closes its socket before the server's end of it comes, which then nobody reads."""
    with namespaces.entered(lab.namespace(client)):
        opened = socket.create_connection(server.getsockname(), 5)
    accepted, _ = server.accept()
    opened.close()
    assert accepted.recv(1) == b""
    accepted.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    need_observer()
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab() as built:
        built.program(MODEL)
        yield built


@pytest.fixture(scope="module")
def tunnelled() -> Iterator[Lab]:
    """The same with VXLAN between the nodes."""
    need_observer()
    if reason := namespaces.supported():
        pytest.skip(reason)
    with Lab(small_cluster(vxlan=True)) as built:
        built.program(MODEL)
        yield built
