"""Felix's comments before comparisons, in the words of v3.28 to v3.32."""

from __future__ import annotations

import pytest

from calico_debug.decode.policy_clauses import UNREAD, read_clause, starts_clause, with_named_ports, with_number
from calico_debug.model.bytecode import Clause, Instruction
from tests.bytecode.recorded import RECORDED, RecordedCluster
from tests.recordings import Recording

SKIP = ", skip to next rule"


@pytest.mark.parametrize(
    ("comment", "clause"),
    [
        ("If protocol != tcp", Clause("protocol", "tcp")),
        ("If protocol == sctp", Clause("protocol", "sctp", True)),
        ("If protocol != ", Clause("protocol", "")),  # what Felix prints for the number 17, and for 58
        ("If source not in {10.0.0.0/8,fd00::/8}", Clause("source", "10.0.0.0/8, fd00::/8")),
        ("If destPreNAT in {10.0.0.1/32}", Clause("destination", "10.0.0.1/32", True)),
        ("If source doesn't match ipset s:a-_B (0x1f)", Clause("source", "set s:a-_B", False, True)),
        ("If dest matches ipset svcnoport:a (0x1f)", Clause("destination", "set svcnoport:a", True, True)),
        ("If dest doesn't match ipset svc:a (0x1f)", Clause("destination", "set svc:a", False, True, True)),
        ("If source port is not within any of {80,443-445}", Clause("source ports", "80, 443-445")),
        ("If dest port is within any of {80}", Clause("destination ports", "80", True)),
        ("If ICMP type != 8", Clause("icmp", "type 8")),
        ("If ICMP type != 8 or code != 0", Clause("icmp", "type 8 code 0")),
        ("If ICMP type == 8 and code == 1", Clause("icmp", "type 8 code 1", True)),
        ("If the moon is full", UNREAD),
    ],
)
def test_clauses(comment: str, clause: Clause) -> None:
    assert read_clause(comment + SKIP) == clause
    assert starts_clause(comment + SKIP)


def test_named_ports_belong_to_the_ports_before_them() -> None:
    ports = read_clause(f"If dest port is not within any of {{80}}{SKIP}")
    named = f"If dest port is not within any of the named ports {{n:a,n:b}}{SKIP}"
    assert not starts_clause(named)
    assert not starts_clause("Rule MatchID: 3")
    assert with_named_ports(ports, named) == Clause("destination ports", "80, set n:a, set n:b", False, True, True)
    assert with_named_ports(ports, named.replace("n:a,n:b", "")) == ports
    only = read_clause(f"If dest port is not within any of {{}}{SKIP}")
    assert with_named_ports(only, named).wanted == "set n:a, set n:b"
    assert with_named_ports(ports, "Rule MatchID: 3") == ports


def test_numbers_are_read_from_the_code() -> None:
    load = Instruction(0x71, 1, 9, 104)

    def compared(comment: str, number: int) -> str:
        code = (load, Instruction(0x55, 1, 0, 3, number))
        return with_number(read_clause(f"If protocol != {comment}{SKIP}"), code).wanted

    assert [compared("", 17), compared("", 58), compared("udp", 11), compared("", 47)] == ["udp", "icmpv6", "11", "47"]
    assert compared("icmpv6", 0) == "icmpv6"
    ports = Clause("source ports", "80")
    assert with_number(ports, (load, load)) == ports
    assert with_number(Clause("protocol", "tcp"), (load,)).wanted == "tcp"


@RECORDED
def test_no_recorded_comparison_is_unread(recording: Recording) -> None:
    clauses = [
        clause
        for node in RecordedCluster(recording).nodes.values()
        for _, debug in node.debug_files()
        for program in debug.programs
        for clause in program.clauses.values()
    ]
    assert clauses
    assert all(clause.kind for clause in clauses)
