"""Rules are decoded when they are new, and counters read each time."""

from __future__ import annotations

from calico_debug.agent.rule_counters import RuleCounters
from calico_debug.decode.netlink_attributes import attribute, string_attribute
from calico_debug.errors import EvidenceError
from calico_debug.policy.chains import parse_comment
from tests.decode.test_nft_counters import counter, rule
from tests.evidence.memory import MemoryNode

GETTABLE = 1


def comment(text: str) -> bytes:
    """NFTNL_UDATA_RULE_COMMENT: type 0, length, text with its NUL."""
    data = text.encode() + b"\0"
    return bytes((0, len(data))) + data


def policy_chain(packets: int, handle: int = 1) -> list[bytes]:
    """A chain whose one rule drops everything."""
    verdict = attribute(1, bytes(4))  # NFTA_VERDICT_CODE: NF_DROP
    drop = string_attribute(1, "immediate") + attribute(2, attribute(1, bytes(4)) + attribute(2, attribute(2, verdict)))
    said = comment(f"cali:{handle:016}; NetworkPolicy a/NAME ingress")
    return [rule(handle, counter(packets, packets * 60), drop, chain="CHAIN", comment=said)]


class Nft:
    """A table of Calico with chains of policies; counts what it is asked for."""

    def __init__(self, chains: dict[str, list[bytes]]) -> None:
        self.chains = chains
        self.error: EvidenceError | None = None
        self.asked = 0
        self.table = 7

    def __call__(self, message_type: int, _flags: int, _family: int, _attributes: bytes) -> list[bytes]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        head = bytes((2, 0, 0, 0))
        if message_type == GETTABLE:
            return [
                head + string_attribute(1, "calico") + attribute(2, bytes(4)) + attribute(4, self.table.to_bytes(8))
            ]
        return [renamed(message, name) for name, rules in self.chains.items() for message in rules]


def renamed(message: bytes, chain: str) -> bytes:
    """The message in another chain of table calico, its policy named after the chain."""
    old = bytes((2, 0, 0, 0)) + string_attribute(1, "t") + string_attribute(2, "CHAIN")
    assert message.startswith(old)
    new = bytes((2, 0, 0, 0)) + string_attribute(1, "calico") + string_attribute(2, chain)
    assert len(chain.rpartition("/")[2]) <= 4
    return new + message.removeprefix(old).replace(b"NAME", chain.rpartition("/")[2].encode().rjust(4, b"_"))


def reader(nft: Nft) -> RuleCounters:
    node = MemoryNode({})
    node.nftables = nft
    return RuleCounters(node)


def test_a_chain_is_decoded_when_its_rules_are_new() -> None:
    nft = Nft({"filter-cali-pi-np/a/x": policy_chain(1), "mine": policy_chain(5)})
    found = reader(nft)
    place = ("ip", "calico", "filter-cali-pi-np/a/x")
    first = found.read()["nftables"]
    assert list(first.rules) == [place]
    assert parse_comment(first.rules[place][0].comment).hash
    assert [values[1:] for values in first.counters[place]] == [(1, 60)]
    nft.chains["filter-cali-pi-np/a/x"] = policy_chain(4)
    second = found.read()["nftables"]
    assert second.rules[place] is first.rules[place]
    assert [values[1:] for values in second.counters[place]] == [(4, 240)]
    assert first.counters[place][0][0] == second.counters[place][0][0]
    nft.chains["filter-cali-pi-np/a/x"] = policy_chain(0, handle=2)
    third = found.read()["nftables"]
    assert third.rules[place] is not first.rules[place]
    assert third.counters[place][0][0] != first.counters[place][0][0]


def test_a_table_that_was_made_anew_has_other_counters() -> None:
    nft = Nft({"filter-cali-pi-np/a/x": policy_chain(1)})
    found = reader(nft)
    place = ("ip", "calico", "filter-cali-pi-np/a/x")
    before = found.read()["nftables"].counters[place]
    nft.table += 1
    assert found.read()["nftables"].counters[place] != before


LEGACY = """*filter
:INPUT ACCEPT [0:0]
:cali-pi-x - [0:0]
[3:180] -A cali-pi-x -m comment --comment "cali:aaaaaaaaaaaaaaaa" -j MARK --set-xmark 0x10000/0x10000
[1:60] -A cali-pi-x -j DROP
[2:120] -A cali-pi-x -j DROP
COMMIT
"""


def test_legacy_rules_are_told_apart_by_their_text() -> None:
    files: dict[str, bytes | str] = {"iptables-legacy-save.txt": LEGACY}
    found = RuleCounters(MemoryNode(files))
    place = ("ip", "filter (legacy)", "cali-pi-x")
    first = found.read()["iptables"]
    assert [values[1:] for values in first.counters[place]] == [(3, 180), (1, 60), (2, 120)]
    assert len({values[0] for values in first.counters[place]}) == 3
    files["iptables-legacy-save.txt"] = LEGACY.replace("[3:180]", "[5:300]")
    second = found.read()["iptables"]
    assert second.rules[place] is first.rules[place]
    assert [values[0] for values in second.counters[place]] == [values[0] for values in first.counters[place]]
    # A rule in front moves the others, and they stay the same counters.
    files["iptables-legacy-save.txt"] = LEGACY.replace("[3:180]", "[0:0] -A cali-pi-x -p tcp -j RETURN\n[3:180]")
    third = found.read()["iptables"]
    assert [values[0] for values in third.counters[place]][1:] == [values[0] for values in first.counters[place]]
