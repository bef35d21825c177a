"""iptables rules and ipsets as a ruleset, up to the walk's lookups."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from calico_debug.decode.ipset import SavedSets
from calico_debug.decode.iptables import SavedTables
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.model.nft import Concat, Lookup, Meta, Payload, Rule, UnknownStatement
from calico_debug.state.iptables import IpSets, IptablesRuleset

SETS = """\
create ips hash:ip family inet
add ips 10.0.0.1
create ipport hash:ip,port family inet
add ipport 10.0.0.1,tcp:80
create nets hash:net family inet
add nets 10.0.0.0/24
add nets 10.0.0.9 nomatch
create six hash:net family inet6
create same list:set size 8
add same ips
add same nets
create mixed list:set size 8
add mixed ips
add mixed ipport
create odd hash:unheard family inet
"""


def sets(text: str = SETS) -> IpSets:
    return IpSets(lambda: SavedSets(text, "ipset-save.txt"))


def ruleset(rules: str, of: IpSets | None = None, family: str = "ip") -> IptablesRuleset:
    text = f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}\nCOMMIT\n"
    return IptablesRuleset([SavedTables(text, "iptables-save.txt", family)], of or sets())


def only(found: IptablesRuleset, family: str = "ip") -> Rule:
    rules = found.rules(family, "filter", "FORWARD")
    assert rules is not None
    (rule,) = rules
    return rule


def address(text: str) -> int:
    return int(ip_address(text))


def test_what_it_holds() -> None:
    found = ruleset("-A FORWARD -j ACCEPT")
    assert found.tables() == (("ip", "filter"),)
    assert [(chain.name, chain.hook and chain.hook.priority) for chain in found.base_chains()] == [("FORWARD", 0)]
    assert found.rules("ip", "filter", "FORWARD") is found.rules("ip", "filter", "FORWARD")
    assert found.rules("ip", "filter", "gone") is None
    assert found.rules("ip6", "filter", "FORWARD") is None


def test_a_table_may_be_shown_by_another_name() -> None:
    saved = SavedTables("*filter\n:INPUT DROP [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n", "f", "ip")
    found = IptablesRuleset([saved], sets(), {("ip", "filter"): "filter (legacy)"})
    assert found.tables() == (("ip", "filter (legacy)"),)
    assert [chain.table for chain in found.base_chains()] == ["filter (legacy)"]
    rules = found.rules("ip", "filter (legacy)", "INPUT")
    assert rules is not None
    assert rules[0].table == "filter (legacy)"
    assert found.rules("ip", "filter", "INPUT") is None


@pytest.mark.parametrize(
    ("match", "key"),
    [
        ("ips src", Payload("network", 96, 32)),
        ("ips dst,src", Payload("network", 128, 32)),
        ("nets dst", Payload("network", 128, 32)),
        ("same src", Payload("network", 96, 32)),
        (
            "ipport dst,src",
            Concat((Payload("network", 128, 32), Meta("l4proto"), Payload("ipset", 0, 16))),
        ),
    ],
)
def test_what_is_looked_up(match: str, key: object) -> None:
    name = match.split()[0]
    rule = only(ruleset(f"-A FORWARD -m set --match-set {match} -j ACCEPT"))
    assert rule.statements[0] == Lookup(key, name)  # type: ignore[arg-type]
    negated = only(ruleset(f"-A FORWARD -m set ! --match-set {match} -j ACCEPT"))
    assert negated.statements[0] == Lookup(key, name, negated=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("match", "family"), [("ipport dst", "ip"), ("six src", "ip"), ("ips src", "ip6")])
def test_sets_that_the_kernel_never_finds_anything_in(match: str, family: str) -> None:
    """Too few directions, or the other family (ip_set_test)."""
    (lookup, *_) = only(ruleset(f"-A FORWARD -m set --match-set {match}", family=family), family).statements
    assert isinstance(lookup, Lookup)
    assert not isinstance(lookup.source, str)
    assert not lookup.source.exact
    assert not lookup.source.ranged


def test_finding_elements() -> None:
    found = ruleset("-A FORWARD -j ACCEPT")
    assert found.find("ip", "filter", "ips", address("10.0.0.1")) is not None
    assert found.find("ip", "filter", "ips", address("10.0.0.2")) is None
    assert found.find("ip", "filter", "nets", address("10.0.0.8")) is not None
    assert found.find("ip", "filter", "nets", address("10.0.0.9")) is None
    assert found.find("ip", "filter", "same", address("10.0.0.8")) is not None
    assert found.find("ip", "filter", "ipport", (address("10.0.0.1"), 6, 80)) is not None
    assert found.elements("ip", "filter", "gone") is None


def test_a_set_that_is_gone_is_named_when_it_is_asked() -> None:
    found = ruleset("-A FORWARD -m set --match-set gone src -j DROP")
    assert only(found).statements[0] == Lookup(Payload("network", 96, 32), "gone")
    with pytest.raises(MissingEvidence, match=r"ipset gone is named by a rule but is not there; .*ipset save"):
        found.find("ip", "filter", "gone", 1)


def test_sets_that_cannot_be_read_matter_only_when_asked() -> None:
    reads: list[int] = []

    def missing() -> SavedSets:
        reads.append(1)
        raise MissingEvidence("ipset-save.txt is not there: write it with `ipset save`")

    found = ruleset("-A FORWARD -j ACCEPT\n-A FORWARD -m set --match-set s src -j DROP", IpSets(missing))
    rules = found.rules("ip", "filter", "FORWARD")
    assert rules is not None
    assert len(rules) == 2
    with pytest.raises(EvidenceError, match=r"ipset-save\.txt is not there"):
        found.find("ip", "filter", "s", 1)
    assert reads


@pytest.mark.parametrize("match", ["mixed src", "odd src", "ips sideways"])
def test_sets_that_are_not_understood(match: str) -> None:
    rule = only(ruleset(f"-A FORWARD -m set --match-set {match} -j DROP"))
    assert rule.statements[0] == UnknownStatement(f"iptables match set --match-set {match}")
