"""Chains of equal priority whose order matters."""

from __future__ import annotations

import pytest

from calico_debug.explain.hookorder import order_finding
from calico_debug.model.explanation import Finding
from calico_debug.walk.journey import Opening
from calico_debug.walk.wiring import Place
from tests.explain.world import Node, Tier, World, deny, endpoint, policy

DENYING = {**endpoint("cali-fw-cali1", [Tier("t", ["gnp/x"])]), **policy("gnp", "x", "egress", deny("dport=80"))}


def finding(other: dict[str, list[str]], older: bool = True, port: int = 80, **node: object) -> Finding | None:
    """About the packet's first denial on a node with Calico's denial and another table's chains."""
    tables = {"ip other": other}
    made = Node(1, chains=DENYING, **({"first_tables": tables} if older else {"tables": tables}), **node)  # type: ignore[arg-type]
    world = World(made)
    opening = Opening(4, 6, 0x0AF40101, 0x0AF40102, 40000, port, Place("n1", "cali1"))
    (found,) = world.engine._alternatives(opening, join_existing=False)
    return order_finding(world.engine._walkers["n1"], found.journey.legs[0].made)


def test_a_refusal_behind_a_drop() -> None:
    found = finding({"f@forward:0": ["dport=80 reject"]})
    assert found == Finding(
        "hook-order",
        "info",
        "on n1, table ip other (chain f) would refuse the packet at hook forward with the same priority as table ip "
        "calico; that calico comes first is inferred from the age of the tables",
    )


def test_a_drop_behind_a_refusal() -> None:
    found = finding({"f@forward:0": ["dport=80 reject"]}, older=False)
    assert found is not None
    assert "table ip calico (chain filter-FORWARD) would drop" in found.message


@pytest.mark.parametrize(
    "other",
    [
        {"f@forward:0": ["dport=80 drop"]},
        {"f@forward:0": ["dport=81 reject"]},
        {"f@forward:1": ["dport=80 reject"]},
        {"f@postrouting:0": ["dport=80 reject"]},
        {"f@forward:0": ["jump:nowhere"]},
        {},
    ],
    ids=["same verdict", "lets it pass", "another priority", "another hook", "unreadable", "nothing"],
)
def test_where_the_order_does_not_matter(other: dict[str, list[str]]) -> None:
    assert finding(other) is None


def test_a_chain_that_ran_before_is_no_question() -> None:
    assert finding({"f@forward:0": ["dport=81 reject"]}, older=False) is None
