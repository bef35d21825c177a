from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calico_debug.agent.netlink import NftablesSocket
from calico_debug.decode.nft_netlink_constants import NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSETELEM
from calico_debug.errors import MissingEvidence
from calico_debug.model.nft import Element, Interval, NamePrefix, SetContent, Verdict
from calico_debug.state.ruleset import ElementIndex, KernelRuleset, RecordedRuleset, covers
from tests.decode.netlink_replay import LISTING, Replay
from tests.lab import namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.nft import Key


@pytest.fixture
def recorded() -> RecordedRuleset:
    return RecordedRuleset.read(LISTING, "listing")


def content_of(*keys: Key, default: bool = False) -> SetContent:
    elements = [Element(key) for key in keys]
    exact = {e.key: e for e in elements if isinstance(e.key, int | str)}
    ranged = tuple(e for e in elements if e.key not in exact)
    return SetContent((32,), exact, ranged, Element("*") if default else None)  # type: ignore[arg-type]


def test_base_chains_in_order_of_creation(recorded: RecordedRuleset) -> None:
    for ruleset in (recorded, KernelRuleset(Replay())):
        assert [chain.name for chain in ruleset.base_chains()] == ["forward", "nat"]
        assert [chain.hook.policy for chain in ruleset.base_chains() if chain.hook] == ["drop", "accept"]


def test_chains_of_a_dormant_table_are_not_attached() -> None:
    dormant = LISTING.replace('"name": "calico", "handle"', '"name": "calico", "flags": "dormant", "handle"')
    assert dormant != LISTING
    assert RecordedRuleset.read(dormant, "x").base_chains() == []


def test_find_in_every_kind_of_set(recorded: RecordedRuleset) -> None:
    kernel = KernelRuleset(Replay())
    for ruleset in (recorded, kernel):
        find = ruleset.find
        assert find("ip", "calico", "exact", (0xC0000201, 6, 80)) is not None
        assert find("ip", "calico", "exact", (0xC0000201, 6, 81)) is None
        dispatched = find("ip", "calico", "dispatch", "cali1")
        assert dispatched is not None
        assert dispatched.data == Verdict("goto", "workload")
        hosts = find("ip", "calico", "hosts", 0x0A010203)
        assert hosts is not None
        assert hosts.key == Interval(0x0A000000, 0x0AFFFFFF)
        assert find("ip", "calico", "hosts", 0x0B000000) is None
        named = find("ip", "calico", "hosts", 0xC0000207)
        assert named is not None
        assert named.comment == "one"
        translated = find("ip", "calico", "ranges", (0xC0000233, 85))
        assert translated is not None
        assert translated.data == (0xC6336401, 8080)


def test_missing_set_is_an_error_with_a_remedy(recorded: RecordedRuleset) -> None:
    for ruleset in (recorded, KernelRuleset(Replay())):
        with pytest.raises(MissingEvidence, match="table ip calico has no set nothing"):
            ruleset.find("ip", "calico", "nothing", 1)


def test_only_what_is_asked_for_is_read_and_once() -> None:
    dump = Replay()
    ruleset = KernelRuleset(dump)
    assert dump.asked == []
    ruleset.rules("ip", "calico", "forward")
    ruleset.rules("ip", "calico", "forward")
    kinds = [kind for kind, _ in dump.asked]
    assert kinds.count(NFT_MSG_GETRULE) == 1
    assert NFT_MSG_GETCHAIN not in kinds
    assert NFT_MSG_GETSETELEM not in kinds, "a named map is not read before it is looked up"


def test_one_element_is_read_alone() -> None:
    dump = Replay()
    KernelRuleset(dump).find("ip", "calico", "dispatch", "cali1")
    (request,) = [attributes for kind, attributes in dump.asked if kind == NFT_MSG_GETSETELEM]
    assert b"cali1" in request


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 9)), max_size=12), st.integers(0, 220), st.booleans())
def test_index_finds_what_a_scan_finds(pairs: list[tuple[int, int]], wanted: int, default: bool) -> None:
    keys: list[Key] = []
    end = -1
    for start, length in sorted(pairs):
        if start > end:
            end = start + length
            keys.append(Interval(start, end) if length else start)
    content = content_of(*keys, default=default)
    scanned = next((e for e in (*content.exact.values(), *content.ranged) if covers(e.key, wanted)), content.default)
    assert ElementIndex(content).find(wanted) == scanned


def test_wildcards_cover_names() -> None:
    index = ElementIndex(content_of(NamePrefix("cali"), "eth0"))
    assert index.find("cali123") is not None
    assert index.find("eth0") is not None
    assert index.find("eth01") is None
    assert not covers(NamePrefix("cali"), 5)
    assert not covers((1, 2), (1, 2, 3))


SETS = """
table ip t {
    chain x { }
    set hash { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.3 comment "three" } }
    set tree { type ipv4_addr; flags interval; elements = { 10.0.0.1-10.0.0.2, 10.0.0.4, 10.0.0.6-10.0.0.7 } }
    set marks { type mark; elements = { 1, 3 } }
    map most { type ipv4_addr : verdict; elements = { 10.0.0.1 : drop, * : accept } }
    map allmost { type ipv4_addr : verdict; flags interval; elements = { 10.0.0.1-10.0.0.2 : drop, * : accept } }
    map pairs { type mark . ipv4_addr : verdict; elements = { 1 . 10.0.0.1 : drop, 2 . 10.0.0.2 : goto x } }
    set boxes { type ipv4_addr . inet_service; flags interval; elements = { 10.0.0.1-10.0.0.3 . 2-4, 10.0.0.5 . 6 } }
    set names { type ifname; elements = { "lo", "eth0" } }
}
"""


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[NftablesSocket, RecordedRuleset]]:
    reason = namespaces.supported()
    if reason:
        pytest.skip(reason)
    name = namespaces.create(["find"])["find"]
    try:
        namespaces.nft(name, SETS)
        listing = namespaces.run(name, ["nft", "-j", "list", "ruleset"])
        with namespaces.entered(name):
            dump = NftablesSocket()
        with dump:
            yield dump, RecordedRuleset.read(listing, "listing")
    finally:
        namespaces.delete([name])


ADDRESSES = range(0x0A000000, 0x0A000009)
KEYS: dict[str, list[int | str | tuple[int | str, ...]]] = {
    "hash": list(ADDRESSES),
    "tree": list(ADDRESSES),
    "marks": list(range(6)),
    "most": list(ADDRESSES),
    "allmost": list(ADDRESSES),
    "pairs": [(mark, address) for mark in range(4) for address in ADDRESSES],
    "boxes": [(address, port) for address in ADDRESSES for port in range(8)],
    "names": ["lo", "eth0", "eth", "eth01", "a name that is far too long"],
}


@pytest.mark.kernel
@pytest.mark.parametrize("name", KEYS)
def test_kernel_lookup_agrees_with_the_dump_and_the_listing(
    live: tuple[NftablesSocket, RecordedRuleset], name: str
) -> None:
    dump, listed = live
    whole = KernelRuleset(dump).elements("ip", "t", name)
    assert whole is not None
    index = ElementIndex(whole)
    for key in KEYS[name]:
        found = KernelRuleset(dump).find("ip", "t", name, key)
        assert found == index.find(key) == listed.find("ip", "t", name, key)
