"""Our rendering held against Felix's own, chain by chain, as the kernel lists both."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.lab import namespaces
from tests.lab.conftest import need_lab
from tests.lab.felix_shape import felix_text
from tests.lab.recorded import recorded_model, recorded_topology, recordings

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.kernel


def listed(text: str) -> dict[str, list[str]]:
    """{table and chain or map: its lines}, without handles and counts; a set's name is replaced by its content."""
    members: dict[str, str] = {}
    blocks: dict[str, list[str]] = {}
    table = ""
    for block in re.split(r"\n(?=table )|\n\n", text):
        if block.startswith("table "):
            table = " ".join(block.split("{")[0].split()[1:])
            block = block.partition("\n")[2]  # noqa: PLW2901
        lines = [re.sub(r" # handle \d+$", "", line.strip()) for line in block.strip().splitlines()]
        if not lines or not table.endswith(("calico", "calico-arp")):
            continue
        head, body = lines[0].removesuffix("{").strip(), [line for line in lines[1:] if line != "}"]
        if head.startswith("set cali40"):
            elements = re.search(r"elements = \{(.*)\}", " ".join(body))
            found = sorted(part.strip() for part in elements[1].split(",")) if elements else []
            members[head.removeprefix("set ")] = f"{{{', '.join(found)}}}"
        elif head.startswith("chain"):
            blocks[f"{table} {head}"] = body
        elif head.startswith("map"):
            elements = re.search(r"elements = \{(.*)\}", " ".join(body))
            blocks[f"{table} {head}"] = sorted(p.strip() for p in elements[1].split(",")) if elements else []
    plain = {}
    for name, body in blocks.items():
        lines = [re.sub(r"packets \d+ bytes \d+ ", "", re.sub(r"cali:[^;]{16};", "cali:;", line)) for line in body]
        plain[name] = [re.sub(r"@(cali40[^ ]+)", lambda match: members[match[1]], line) for line in lines]
    return plain


def kernel_listing(text: str) -> str:
    name = namespaces.create(["listing"])["listing"]
    try:
        namespaces.nft(name, text)
        return namespaces.run(name, ["nft", "list", "ruleset"])
    finally:
        namespaces.delete([name])


@pytest.fixture(params=["v3.32.1-nft", "v3.32.1-stale-nft"])
def capture(request: pytest.FixtureRequest) -> Path:
    need_lab()
    directory = recordings()
    if directory is None:
        pytest.skip("no recordings: set CALICO_DEBUG_RECORDINGS to their directory")
    return directory / str(request.param)


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_every_recorded_chain_is_rendered_alike(capture: Path, node: str) -> None:
    topology = recorded_topology(capture)
    model = recorded_model(capture)
    recorded = listed((capture / "nodes" / node / "nft-ruleset.txt").read_text())
    ours = listed(kernel_listing(felix_text(topology, model, topology.node(node))))
    assert set(ours) == set(recorded)
    differing = {name: (recorded[name], ours[name]) for name in ours if recorded[name] != ours[name]}
    assert differing == {}


def test_the_comparison_notices_a_difference(capture: Path) -> None:
    topology = recorded_topology(capture)
    model = recorded_model(capture)
    changed = replace(model, felix=replace(model.felix, endpoint_to_host="Drop"))
    texts = [listed(kernel_listing(felix_text(topology, m, topology.node("node1")))) for m in (model, changed)]
    assert [name for name in texts[0] if texts[0][name] != texts[1][name]] == ["ip calico chain filter-cali-wl-to-host"]
