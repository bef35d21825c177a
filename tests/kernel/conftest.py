"""Fixtures of the tests against the kernel."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.kernel.iptables_world import World
from tests.kernel.router import Router
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    """A router and its peers; skips, with the precise reason, where they cannot be had."""
    reason = namespaces.supported()
    if not reason and find_spec("nftables") is None:
        reason = "python3-nftables is not installed"
    if reason:
        pytest.skip(reason)
    # Half a minute makes a failing ruleset small enough to read; hypothesis would take five.
    limit = pytest.MonkeyPatch()
    limit.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", 30)
    built = Router()
    yield built
    built.close()
    limit.undo()


@pytest.fixture(scope="module", params=["nft", "legacy"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A router with iptables rules of one backend, and with the ``SETS`` of the module that asks (ipset restore)."""
    if why := namespaces.supported():
        pytest.skip(why)
    router = Router()
    try:
        yield World(router, request.param, request.module.SETS)
    finally:
        router.close()
