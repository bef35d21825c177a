"""Fixtures of the lab's own tests: one wired cluster a test session, deleted at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.lab import namespaces
from tests.lab.recorded import recordings
from tests.lab.topology import Wiring, small_cluster
from tests.lab.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator


def need_lab() -> None:
    """Skip, with the precise reason, where namespaces or nftables are out of reach."""
    reason = namespaces.supported()
    if reason:
        pytest.skip(reason)


@pytest.fixture(params=["v3.32.1-nft", "v3.32.1-stale-nft"])
def capture(request: pytest.FixtureRequest) -> Path:
    """A recording in nftables mode; a test with it loads rules into this kernel too."""
    need_lab()
    directory = recordings()
    if directory is None:
        pytest.skip("no recordings: set CALICO_DEBUG_RECORDINGS to their directory")
    return directory / str(request.param)


@pytest.fixture
def wired() -> Iterator[tuple[Wiring, Traffic]]:
    """A cluster without any rules, and its traffic."""
    need_lab()
    wiring = Wiring(small_cluster())
    traffic = Traffic(wiring.topology, wiring.names)
    yield wiring, traffic
    traffic.close()
    wiring.close()
