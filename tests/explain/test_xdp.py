"""XDP programs that are not walked."""

from __future__ import annotations

import json

import pytest

from calico_debug.explain.xdp import dropped_before
from tests.explain.world import Node, World, decided


def ask(program: str, source: str, destination: str) -> list[str]:
    """Messages of the finding for a flow, where the node's eth0 has an XDP program."""
    node = Node(1)
    links = json.loads(node.evidence().read("ip-link.json"))
    next(link for link in links if link["ifname"] == "eth0")["xdp"] = {"mode": 1, "prog": {"id": 1, "name": program}}
    node.files["ip-link.json"] = json.dumps(links)
    answer = World(node).ask(source, destination)
    assert decided(answer)[0] == "allowed"
    return [finding.message for finding in answer.findings if finding.code == "xdp-program"]


def test_a_program_that_packets_meet_is_said() -> None:
    assert ask("shield", "8.8.8.8", "11:80") == [
        "an XDP program at eth0 of n1 is not read: shield; what it drops comes to no rule"
    ]
    (felix,) = ask("prefilter", "8.8.8.8", "node/n1:80")
    assert "Felix has one of that name, which drops what untracked policy denies" in felix


@pytest.mark.parametrize("destination", ["12:80", "node/n1:80"])
def test_one_that_only_others_meet_is_not(destination: str) -> None:
    assert ask("shield", "11", destination) == []


def test_words_for_what_was_not_seen() -> None:
    assert dropped_before(()) == ""
    assert dropped_before(("eth0", "eth1")) == " (an XDP program at eth0 or eth1 may have dropped it before)"
