"""One API server a test session, with the cluster of a recording in it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster.contents import definitions, grant_role, install, load
from tests.cluster.server import Server, unavailable
from tests.recordings import DATA, Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = Path(__file__).parents[2] / "build" / "cluster"


@pytest.fixture(scope="session")
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """Where servers keep their logs; it stays when a test fails."""
    if reason := unavailable():
        pytest.skip(reason)
    BUILD.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix="run-", dir=BUILD))
    failed = request.session.testsfailed
    yield made
    if request.session.testsfailed == failed:
        shutil.rmtree(made)
    else:
        print(f"logs of the API server are in {made}")  # noqa: T201


@pytest.fixture(scope="session")
def recording() -> Recording:
    return Recording(DATA / "v3.32.1-nft.tar.xz")


@pytest.fixture(scope="session")
def recorded(recording: Recording) -> dict[str, Any]:
    """The recorded lists by file name."""
    return {file: json.loads(recording.source.read_cluster(file)) for file in recording.source.cluster_files()}


@pytest.fixture(scope="session")
def server(directory: Path, recorded: dict[str, Any]) -> Iterator[Server]:
    """The recorded cluster, served by a real API server."""
    started = Server(directory / "recorded")
    try:
        install(started, definitions())
        load(started, {file: found for file, found in recorded.items() if not file.startswith("clusterinf")})
        grant_role(started)
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def account(server: Server, directory: Path) -> str:
    """A kubeconfig with a token of the service account that the project ships."""
    return server.kubeconfig(directory / "account.yaml", server.token("calico-debug", "calico-debug"))
