"""Our rendering held against Felix's own, chain by chain, as the kernel lists both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.lab.felix_shape import felix_text
from tests.lab.listing import kernel_listing, listed
from tests.lab.recorded import recorded_model, recorded_topology

if TYPE_CHECKING:
    from pathlib import Path

TABLES = ("ip calico", "arp calico-arp")
pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_every_recorded_chain_is_rendered_alike(capture: Path, node: str) -> None:
    topology = recorded_topology(capture)
    model = recorded_model(capture)
    recorded = listed((capture / "nodes" / node / "nft-ruleset.txt").read_text(), TABLES)
    ours = listed(kernel_listing(felix_text(topology, model, topology.node(node))), TABLES)
    assert set(ours) == set(recorded)
    differing = {name: (recorded[name], ours[name]) for name in ours if recorded[name] != ours[name]}
    assert differing == {}


def test_the_comparison_notices_a_difference(capture: Path) -> None:
    topology = recorded_topology(capture)
    model = recorded_model(capture)
    changed = replace(model, felix=replace(model.felix, endpoint_to_host="Drop"))
    texts = [listed(kernel_listing(felix_text(topology, m, topology.node("node1"))), TABLES) for m in (model, changed)]
    assert [name for name in texts[0] if texts[0][name] != texts[1][name]] == ["ip calico chain filter-cali-wl-to-host"]
