"""What calico-bpf printed on recorded eBPF nodes, compared with what the listings say: nothing it tells is missing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from calico_debug.explain.listing.node import NodeListings
from calico_debug.state.connection_filter import ANY_CONNECTION
from tests.recordings import recordings

if TYPE_CHECKING:
    from calico_debug.explain.listing.policy_view import EndpointView
    from tests.recordings import Recording

NODES = ("node1", "node2")
OPPOSITE = {"ingress": "egress", "egress": "ingress"}
ACTIONS = {"allow": "Allow", "deny": "Deny", "next-tier": "Pass", "log": "Log"}
RULE = re.compile(
    r"Rule: (?P<name>\S+)  Action: (?P<action>\S+)\n(?:\s+IP sets: (?P<sets>.*)\n)?\s+Hit count: (?P<hits>\d+)"
)
SET = re.compile(r"(?P<side>src|dst)=\{(?P<members>[^}]*)\}")
PLACES = [
    pytest.param(recording, node, id=f"{recording.name} {node}")
    for recording in recordings("-bpf")
    for node in NODES
    if recording.read(f"nodes/{node}/calico-bpf/nat-dump.txt") is not None
] or [pytest.param(None, "", marks=pytest.mark.skip(reason="no recording has what calico-bpf printed"))]

pytestmark = pytest.mark.parametrize(("recording", "node"), PLACES)


def printed(recording: Recording, node: str, command: str) -> str | None:
    found = recording.read(f"nodes/{node}/calico-bpf/{command}.txt")
    return found.decode() if found is not None else None


def policies(recording: Recording, node: str) -> Iterator[tuple[EndpointView, str]]:
    """Each IPv4 policy, and what calico-bpf printed of the same hook."""
    for view in NodeListings(recording.source, node).policies():
        text = printed(recording, node, f"policy-dump-{view.interface}")
        if view.family == 4 and text is not None:
            hook = OPPOSITE[view.direction] if view.kind == "pod" else view.direction
            blocks = [block for block in text.split("IfaceName: ") if f"Hook: tc {hook}\n" in block]
            if blocks:
                yield view, blocks[0]


def test_policy_has_every_rule_with_its_hits_and_sets(recording: Recording, node: str) -> None:
    seen = 0
    for view, text in policies(recording, node):
        expected = []
        for found in RULE.finditer(text):
            sets = {
                (one["side"], frozenset(filter(None, one["members"].split(", "))))
                for one in SET.finditer(found["sets"] or "")
            }
            expected.append((found["name"], ACTIONS[found["action"]], int(found["hits"]), sets))
        got = [
            (
                f"{policy.ref.namespace}/{policy.ref.name}" if policy.ref.namespace else policy.ref.name,
                rule.action,
                rule.hits or 0,
                {
                    ("src" if "source" in one.side else "dst", frozenset(map(_as_calico_bpf, one.members)))
                    for one in rule.ip_sets
                    # calico-bpf says nothing of sets of ports.
                    if "port" not in one.side and one.members is not None
                },
            )
            for policy in view.policies
            for rule in policy.rules
        ]
        assert got == expected, (view.interface, view.direction)
        seen += len(got)
    assert seen > 30


def _as_calico_bpf(member: str) -> str:
    return member if "/" in member else f"{member}/32"


def test_tiers_end_as_printed(recording: Recording, node: str) -> None:
    for view, text in policies(recording, node):
        expected = re.findall(r"End Tier: (\S+)  \(action: (\w+)\)", text)
        assert [(tier.name, tier.end.action.lower()) for tier in view.tiers if tier.end] == expected


def test_every_connection(recording: Recording, node: str) -> None:
    text = printed(recording, node, "conntrack-dump")
    if text is None:
        pytest.skip("calico-bpf's conntrack of this node was not recorded")
    expected = Counter[tuple[str, ...]]()
    for line in text.splitlines():
        words = line.split()
        ends = [words[1], *(words[at + 1] for at, word in enumerate(words) if word == "->")]
        state = words[-1] if words[-1].isupper() else ""
        expected[words[0].lower(), ends[0], ends[-1], ends[1] if len(ends) == 3 else "", state.lower()] += 1
    got = Counter[tuple[str, ...]]()
    for row in NodeListings(recording.source, node).conntrack(ANY_CONNECTION).rows:
        one = row.document
        if ":" in one["client"]["ip"]:
            continue
        ends = [f"{end['ip']}:{end.get('port', 0)}" for end in (one["client"], one["server"])]
        service = one.get("service")
        asked = f"{service['ip']}:{service['port']}" if service else ""
        got[one["protocol"], *ends, asked, one.get("state", "")] += 1
    # The two were not written at the same moment: connections come and go, and their states move on.
    assert (got & expected).total() > 0.9 * expected.total()


def test_every_service(recording: Recording, node: str) -> None:
    text = printed(recording, node, "nat-dump")
    assert text is not None
    expected = {}
    for line in text.splitlines():
        if not line.startswith("\t"):
            words = line.split()
            key = (words[0], int(words[2]), int(words[4]))
            expected[key] = (int(words[8]), int(words[10]), set[str]())
        else:
            expected[key][2].add(line.split()[-1])
    numbers = {"tcp": 6, "udp": 17, "sctp": 132}
    got = {}
    for row in NodeListings(recording.source, node).nat(ANY_CONNECTION).rows:
        one = row.document
        if ":" not in one["ip"]:
            backends = {f"{end['ip']}:{end['port']}" for end in one["backends"]}
            got[one["ip"], one["port"], numbers[one["protocol"]]] = (one["count"], one["local"], backends)
    assert got == expected


def test_every_route(recording: Recording, node: str) -> None:
    text = printed(recording, node, "routes-dump")
    assert text is not None
    expected = {}
    for line in text.splitlines():
        prefix, _, words = line.strip().partition(": ")
        flags = re.sub(r" (idx|nh) \S+", "", words).split()
        expected[prefix] = (set(flags), re.findall(r" (?:idx|nh) (\S+)", words))
    got = {}
    for row in NodeListings(recording.source, node).routes().rows:
        one = row.document
        if ":" not in one["prefix"]:
            # calico-bpf does not show the next hop of a node's own address, which is that address.
            following = [str(one[key]) for key in ("ifindex", "nextHop") if key in one and "host" not in one["flags"]]
            # calico-bpf's text has no word for vxlan.
            got[one["prefix"]] = (set(one["flags"]) - {"vxlan"}, following)
    assert got == expected


def test_every_ip_set(recording: Recording, node: str) -> None:
    text = printed(recording, node, "ipsets-dump")
    assert text is not None
    expected: dict[str, set[str]] = {}
    for line in text.splitlines():
        if line.startswith("IP set "):
            members = expected.setdefault(line.split()[-1], set())
        elif line.strip():
            members.add(line.strip())
    got: dict[str, set[str]] = {}
    for row in NodeListings(recording.source, node).ipsets().rows:
        one = row.document
        if ":" in one["member"]:
            continue
        numbers = {"tcp": 6, "udp": 17, "sctp": 132}
        address = one["member"].removesuffix("/32")
        text_of = f"{address}:{one['port']} (proto {numbers[one['protocol']]})" if "port" in one else one["member"]
        got.setdefault(one["set"], set()).add(text_of)
    assert got == expected


def test_every_interface(recording: Recording, node: str) -> None:
    text = printed(recording, node, "ifstate-dump")
    assert text is not None
    slots = r"IngressPolicyV4: (-?\d+), EgressPolicyV4: (-?\d+)"
    expected = {
        (int(found[1]), found[5]): (set(found[2].split(",")), int(found[3]), int(found[4]))
        for found in re.finditer(rf"(\d+) : {{flags: ([\w,]+), XDPPolicyV4: -?\d+, {slots}, .*name: (\S+)}}", text)
    }
    got = {}
    words = {"ipv4-ready": "v4Ready", "ipv6-ready": "v6Ready"}
    for row in NodeListings(recording.source, node).ifstate().rows:
        one = row.document
        flags = {words.get(flag, flag) for flag in one["flags"]}
        # calico-bpf counts hooks of tc, we endpoints' directions: of a pod they are the other way round.
        hooks = ("egress", "ingress") if "workload" in flags else ("ingress", "egress")
        got[one["ifindex"], one["interface"]] = (flags, *(one["slots"]["ipv4"].get(hook, -1) for hook in hooks))
    assert got == expected


def test_every_counter(recording: Recording, node: str) -> None:
    listings = NodeListings(recording.source, node)
    got: dict[tuple[str, str], Counter[str]] = {}
    for row in listings.counters(zeros=True).rows:
        one = row.document
        got.setdefault((one["interface"], one["direction"]), Counter())[one["category"]] += one["packets"]
    compared = 0
    for (interface, direction), totals in got.items():
        text = printed(recording, node, f"counters-{interface}")
        if text is None or direction not in OPPOSITE:
            continue
        hook = OPPOSITE[direction] if interface.startswith("cali") else direction
        column = {"ingress": 2, "egress": 3}[hook]
        expected, category = Counter[str](), ""
        for line in text.splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 5 and cells[0] != "CATEGORY":
                category = cells[0] or category
                # The total has ARP and the like in it, of which there was some between the two.
                if category != "Total":
                    expected[category] += int(cells[column]) if cells[column].isdigit() else 0
        del totals["Total"]
        assert +totals == +expected, (interface, direction)
        compared += 1
    assert compared >= 10
