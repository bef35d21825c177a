"""Rules keep their meaning, ranges of addresses become networks."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from calico_debug.errors import EvidenceError
from calico_debug.redact.nft import redact_nft
from calico_debug.redact.text import TextRedactor

TEXT = TextRedactor(bytes(32), addresses=True, names=True, chains={True: {}, False: {}})
SADDR = {"payload": {"protocol": "ip", "field": "saddr"}}
RANGE = {"range": ["10.0.0.1", "10.0.0.6"]}


def one(address: str) -> str:
    return TEXT.text(address)


def holds(elements: list[Any], address: str) -> bool:
    wanted = ip_address(one(address))
    networks = [e if isinstance(e, str) else f"{e['prefix']['addr']}/{e['prefix']['len']}" for e in elements]
    return any(wanted in ip_network(network) for network in networks)


def test_a_range_in_a_set() -> None:
    found = redact_nft({"set": {"name": "s", "type": "ipv4_addr", "elem": [RANGE, "10.9.9.9"]}}, TEXT)
    elements = found["set"]["elem"]
    assert found["set"]["type"] == "ipv4_addr"
    inside = [number for number in range(16) if holds(elements, f"10.0.0.{number}")]
    assert inside == [1, 2, 3, 4, 5, 6]
    assert holds(elements, "10.9.9.9")


def test_a_range_in_a_match() -> None:
    match = redact_nft({"match": {"op": "!=", "left": SADDR, "right": RANGE}}, TEXT)["match"]
    assert (match["op"], match["left"]) == ("!=", SADDR)
    assert holds(match["right"]["set"], "10.0.0.3")
    assert not holds(match["right"]["set"], "10.0.0.7")


def test_ranges_in_concatenations_and_maps() -> None:
    elements = [[{"concat": [RANGE, "tcp", {"range": [80, 90]}]}, {"jump": {"target": "shop"}}]]
    found = redact_nft({"map": {"elem": elements}}, TEXT)["map"]["elem"]
    assert len(found) == 4
    for key, verdict in found:
        assert key["concat"][1:] == ["tcp", {"range": [80, 90]}]
        assert verdict == {"jump": {"target": TEXT.word("shop")}}


def test_elements_with_more_to_them() -> None:
    element = {"elem": {"val": RANGE, "counter": {"packets": 3, "bytes": 9}, "comment": "of shop"}}
    found = redact_nft({"set": {"elem": [element]}}, TEXT)["set"]["elem"]
    assert len(found) == 4
    assert all(entry["elem"]["comment"] == f"of {TEXT.word('shop')}" for entry in found)
    assert all(entry["elem"]["counter"] == {"packets": 3, "bytes": 9} for entry in found)


def test_networks() -> None:
    found = redact_nft({"match": {"right": {"prefix": {"addr": "10.3.0.0", "len": 16}}}}, TEXT)
    prefix = found["match"]["right"]["prefix"]
    assert f"{prefix['addr']}/{prefix['len']}" == one("10.3.0.0/16")


def test_words_of_nft_stay() -> None:
    rule = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}}
    assert redact_nft(rule, TEXT) == rule
    fib = {"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "mark"]}}, "right": False}}
    assert redact_nft(fib, TEXT) == fib


@pytest.mark.parametrize(
    "document",
    [
        {"snat": {"addr": RANGE}},
        {"match": {"left": {"&": [SADDR, "0.0.0.255"]}, "right": "0.0.0.7"}},
        {"match": {"left": {"payload": {"base": "nh", "offset": 96, "len": 32}}, "right": 167772161}},
    ],
)
def test_what_would_lose_its_meaning_is_refused(document: Any) -> None:
    with pytest.raises(EvidenceError):
        redact_nft(document, TEXT)
