"""Recorded eBPF nodes: every map decodes, and says what Calico's own tool printed of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from calico_debug.decode.bpf_keys import ordered_key
from calico_debug.decode.bpf_layout_types import Role
from calico_debug.decode.bpf_layouts import find_layout, identify
from calico_debug.errors import MissingEvidence
from calico_debug.evidence.bundle import open_bundle
from calico_debug.model.bpf_conntrack import ConntrackEntry
from calico_debug.model.bpf_words import COUNTERS, ROUTE_FLAGS
from calico_debug.state.bpf import BpfState
from calico_debug.state.bpf_lookups import BpfLookups
from tests.evidence.memory import recorded_bundles

NOT_RECORDED = {Role.STATE, Role.EVENTS}
"""One holds the last packet of each CPU, the other file descriptors of Felix."""

PROTOCOLS = {6: "TCP", 17: "UDP", 1: "ICMP", 58: "ICMP6"}
NEVER_IN_TEXT = {"vxlan"}
"""The text form of calico-bpf v3.32.1 has no word for it."""


def recorded_nodes() -> Iterator[tuple[Path, BpfState]]:
    for bundle in recorded_bundles():
        source = open_bundle(bundle)
        for name in source.nodes():
            if "bpf/map-show.json" in source.node(name).files():
                yield bundle / "nodes" / name, BpfState(source.node(name))


def test_every_map_decodes_and_nothing_is_odd() -> None:
    nodes = 0
    for _, state in recorded_nodes():
        nodes += 1
        state.check_maps()
        missing = set()
        roles = {place[:2] for n in state.reach.map_ids if (place := identify(state.maps[n].name)) is not None}
        assert {role for role, _ in roles} >= {Role.CONNTRACK, Role.ROUTES, Role.INTERFACES, Role.RULE_COUNTERS}
        for role, family in roles:
            try:
                list(state.entries(role, family))
            except MissingEvidence:
                missing.add(role)
        assert missing <= NOT_RECORDED
        assert state.findings == ()
        assert state.timeouts is not None
        assert state.timeouts.udp == 60 * 10**9
    assert nodes >= 2


def test_both_nodes_of_one_kernel_are_told_apart() -> None:
    used: dict[Path, dict[str, set[int]]] = {}
    for path, state in recorded_nodes():
        ids = used.setdefault(path.parent, {}).setdefault(path.name, set())
        ids.update(n for n in state.reach.map_ids if identify(state.maps[n].name) is not None)
        interfaces = {one.interface for one in state.reach.attachments}
        assert interfaces - {"lo", "bpfout.cali", "vxlan.calico"} <= {
            i.name for i in BpfLookups(state).interfaces.values()
        }
    for nodes in used.values():
        first, *others = nodes.values()
        for other in others:
            assert first
            assert not first & other


def test_every_pod_runs_its_own_policy_in_both_directions() -> None:
    for _, state in recorded_nodes():
        names = {program.id: program.name for program in state.programs.values()}
        states = {one.name: one for one in BpfLookups(state).interfaces.values()}
        for attachment in state.reach.attachments:
            if not states[attachment.interface].workload:
                continue
            for family in state.reach.families(attachment):
                policy = state.reach.policy(attachment, family)
                letter = "I" if attachment.hook == "egress" else "E"
                (program,) = policy.programs
                assert names[program].startswith(f"p{family}{letter}_{attachment.interface[:11]}")
                assert policy.index == states[attachment.interface].policy_index(attachment.hook, family)


def test_connections_are_ordered_paired_and_looked_up() -> None:
    seen = 0
    for _, state in recorded_nodes():
        lookups = BpfLookups(state)
        for family in (4, 6):
            for entry in state.entries(Role.CONNTRACK, family):
                seen += 1
                key = entry.key
                assert ordered_key(key.protocol, key.address_b, key.port_b, key.address_a, key.port_a) == key
                assert lookups.connection(key.protocol, key.address_b, key.port_b, key.address_a, key.port_a) == entry
                behind = lookups.connection_behind(entry)
                assert behind is not None
                assert behind.type_word == ("nat-reverse" if entry.type == 1 else entry.type_word)
                opener = behind.client_leg
                assert opener is not None
                assert opener.has("opener")
                assert opener.packets > 0 or behind.server_leg is not None
    assert seen > 200


def printed(path: Path, name: str) -> list[str]:
    file = path / "calico-bpf" / name
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def told(entry: ConntrackEntry) -> tuple[str, ...]:
    ends = [entry.client, entry.server]
    if entry.type == 2:
        assert entry.original_ip is not None
        ends.insert(1, (entry.original_ip, entry.original_port))
    words = [f"{ip}:{port}" if ip.version == 4 else f"[{ip}]:{port}" for ip, port in ends]
    return PROTOCOLS[entry.key.protocol], *words


def test_connections_are_those_that_calico_bpf_printed() -> None:
    compared = 0
    for path, state in recorded_nodes():
        ours = {told(entry): entry for entry in BpfLookups(state).connections(4)}
        for line in printed(path, "conntrack-dump.txt"):
            if not line.strip():
                continue
            head, _, tail = line.partition("  Active ago ")
            protocol, rest = head.split(" ", 1)
            ends = re.findall(r"[0-9.]+:\d+", rest)
            assert (protocol, *ends) in ours, line
            state_word = tail.split()[1] if len(tail.split()) > 1 else ""
            # Taken a moment later, so states may only have gone on; but nothing was sent meanwhile.
            assert ours[(protocol, *ends)].tcp_state.upper() == state_word, line
            compared += 1
    assert compared > 150


def test_services_routes_sets_and_interfaces_are_those_that_calico_bpf_printed() -> None:
    lines = 0
    for path, state in recorded_nodes():
        frontends = {
            f"{one.address} port {one.port} proto {one.protocol} id {one.service_id} count {one.count} local "
            f"{one.local_count}" + (f" flags {', '.join(one.flag_words)}" if one.flags else "")
            for one in state.entries(Role.NAT_FRONTENDS, 4)
        }
        backends = {
            f"{one.service_id}:{one.ordinal}\t {one.address}:{one.port}" for one in state.entries(Role.NAT_BACKENDS, 4)
        }
        for line in printed(path, "nat-dump.txt"):
            assert (line.strip() in backends) if line.startswith("\t") else (line.rstrip() in frontends), line
            lines += 1
        routes = {str(one.prefix): one.target for one in state.entries(Role.ROUTES, 4)}
        for line in printed(path, "routes-dump.txt"):
            prefix, words = line.strip().split(": ", 1)
            flags = set(words.split()) & set(ROUTE_FLAGS.values())
            target = routes.pop(prefix)
            assert flags == set(target.flag_words) - NEVER_IN_TEXT, line
            assert (f"idx {target.ifindex}" in words) == (target.ifindex is not None)
            # A next hop is not printed for hosts, nor is the word for "not local".
            lines += 1
        assert routes == {}
        members = {
            (f"0x{one.set_id:x}", f"{one.prefix.network_address}:{one.port} (proto {one.protocol})")
            if one.protocol
            else (f"0x{one.set_id:x}", str(one.prefix))
            for one in state.entries(Role.IP_SETS, 4)
        }
        current = ""
        for line in printed(path, "ipsets-dump.txt"):
            if line.startswith("IP set "):
                current = line.removeprefix("IP set ")
            elif line.strip():
                assert (current, line.strip()) in members, line
                lines += 1
        interfaces = BpfLookups(state).interfaces
        for line in printed(path, "ifstate-dump.txt"):
            match = re.match(r"\s*(\d+) : .*IngressPolicyV4: (-?\d+), EgressPolicyV4: (-?\d+).*name: (\S+)}", line)
            if match is not None:
                one = interfaces[int(match[1])]
                assert (one.name, one.ingress_policy_v4, one.egress_policy_v4) == (
                    match[4],
                    int(match[2]),
                    int(match[3]),
                )
                lines += 1
    assert lines > 100


def test_counters_are_those_that_calico_bpf_printed() -> None:
    captions = {(name.category, name.caption): index for index, name in enumerate(COUNTERS) if name.caption}
    compared = 0
    for path, state in recorded_nodes():
        lookups = BpfLookups(state)
        numbers = {one.name: one.ifindex for one in lookups.interfaces.values()}
        for file in sorted((path / "calico-bpf").glob("counters-*.txt")):
            interface = file.stem.removeprefix("counters-")
            if interface not in numbers:
                continue
            category, rows = "", []
            for line in file.read_text(encoding="utf-8").splitlines():
                cells = [cell.strip() for cell in line.split("|")[1:-1]]
                if len(cells) != 5 or cells[0] == "CATEGORY":
                    continue
                category = cells[0] or category
                if cells[2]:
                    rows.append([category, cells[1], cells[2], cells[3]])
                else:
                    rows[-1][1] += f" {cells[1]}"
            for category, caption, ingress, egress in rows:
                index = captions[(category, caption)]
                for hook, text in ((0, ingress), (1, egress)):
                    found = lookups.counters(numbers[interface], hook)
                    assert found is not None
                    # Printed a moment after the maps were dumped.
                    assert 0 <= int(text) - found.cells[index] <= 3, (file, category, caption)
                    compared += 1
    assert compared > 500


@pytest.mark.parametrize("role", [Role.CONNTRACK, Role.COUNTERS])
def test_layouts_were_chosen_by_size_and_name(role: Role) -> None:
    for _, state in recorded_nodes():
        chosen = state.map(role, 4 if role is Role.CONNTRACK else 0)
        assert chosen is not None
        assert chosen.used
        assert find_layout(chosen.info) == chosen.layout
