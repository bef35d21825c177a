"""One replacement for all files, and nothing of what is not understood."""

from __future__ import annotations

import pytest

from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.chains import NFTABLES_NAME_LIMIT
from calico_debug.policy.identity import policy_index
from calico_debug.record.recorder import Recorder
from calico_debug.redact.redactor import KINDS, Redactor
from tests.evidence.memory import MemoryNode, MemorySource
from tests.record.worlds import MemorySink, quiet_world

LONG = "a-very-long-name-of-a-policy"


def policy(name: str, namespace: str = "shop") -> PolicyObject:
    return PolicyObject("NetworkPolicy", namespace, name, "default", None, {})


def test_hashed_chains_get_the_names_that_felix_would_give() -> None:
    policies = [policy(f"{LONG}-{number}") for number in range(3)] + [policy("x" * NFTABLES_NAME_LIMIT)]
    redactor = Redactor(bytes(32), KINDS, policies)
    renamed = [redactor._renamed(one) for one in policies]
    old, new = policy_index(policies), policy_index(renamed)
    names = [name for tables in redactor.text._chains.values() for name in tables]
    assert len(names) > 10
    for name in names:
        for chain in (name, f"filter-{name}"):
            before = old.find_chain(chain)
            assert before is not None
            assert new.find_chain(redactor.text.text(chain)) == redactor._renamed(before)


@pytest.mark.parametrize(
    "file", ["nft-ruleset.txt", "tc-qdisc.json", "bpf/feature.json", "calico-bpf/nat-dump.txt", "else"]
)
def test_files_that_are_not_understood_are_left_out(file: str) -> None:
    assert not Redactor.takes(file)
    told: list[str] = []
    sink = MemorySink()
    source = MemorySource({}, {"shop": MemoryNode({file: "canary", "conntrack.txt": ""}, "shop")})
    redactor = Redactor(bytes(32), KINDS)
    Recorder(source, sink, quiet_world(told), "test", rewriter=redactor).record(["shop"])
    assert set(sink.files) == {f"nodes/{redactor.node_name('shop')}/conntrack.txt", "manifest.json"}
    assert told == [f"nodes/shop/{file} is left out: this version cannot redact it"]
    assert not any(word in b"".join(sink.files.values()) for word in (b"shop", b"canary"))


def test_errors_in_the_manifest_are_redacted() -> None:
    sink = MemorySink()
    node = MemoryNode({"ip-addr.json": "{", "felix-env.txt": "FELIX_FELIXHOSTNAME=shop-1"}, "shop-1")
    told: list[str] = []
    Recorder(
        MemorySource({}, {"shop-1": node}), sink, quiet_world(told), "test", rewriter=Redactor(bytes(32), KINDS)
    ).record(["shop-1"])
    assert any("ip-addr.json cannot be redacted" in line for line in told)
    assert b"ip-addr.json cannot be redacted" in sink.files["manifest.json"]
    assert b"shop-1" not in b"".join(sink.files.values())
    assert b"names: " in sink.files["manifest.json"]


def test_a_map_that_is_not_listed_is_left_out() -> None:
    source = MemorySource({}, {"n1": MemoryNode({"bpf/map-cali_v4_ct4.json": "[]", "conntrack.txt": ""})})
    sink, told = MemorySink(), list[str]()
    Recorder(source, sink, quiet_world(told), "test", rewriter=Redactor(bytes(32), KINDS)).record(["n1"])
    assert [path.rpartition("/")[2] for path in sink.files] == ["conntrack.txt", "manifest.json"]
    assert len(told) == 1
    assert "map-cali_v4_ct4.json cannot be redacted: bpf/map-show.json of n1 is not there" in told[0]


def test_two_keys_have_nothing_in_common() -> None:
    one, other = (Redactor(bytes([number]) * 32, KINDS).node_name("shop") for number in (1, 2))
    assert one != other
