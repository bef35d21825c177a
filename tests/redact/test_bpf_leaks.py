"""An eBPF node full of one network's addresses and of words that nobody could guess: nothing of them is written."""

from __future__ import annotations

import json
import random
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import count
from typing import Any

from calico_debug.decode.bpf_instructions import from_bytes
from calico_debug.decode.bpf_structs import Kind, Layout
from calico_debug.model.bytecode import Instruction
from calico_debug.record.recorder import Recorder
from calico_debug.redact.bpf_entries import LEFT_OUT
from calico_debug.redact.redactor import KINDS, Redactor
from calico_debug.state.bpf_recorded import FOLDER
from calico_debug.state.node import POLICY_DEBUG_FOLDER
from tests.bytecode.felix import STATE_FD, Policy, Rule, Rules, Style, Tier, debug_file
from tests.decode.bpf_samples import FILLABLE, as_dump, draw, draw_key, map_info
from tests.evidence.bpf_node import SETTINGS, BpfNode, listed_map
from tests.evidence.memory import MemoryNode, MemorySource
from tests.record.worlds import MemorySink, quiet_world
from tests.walk.test_bpf_untracked import listing

NETWORKS: dict[int, Any] = {4: ip_address("198.18.7.0"), 6: ip_address("2001:db8:c0de:f00d::")}
SECRETS = {4: bytes((198, 18, 7)), 6: bytes.fromhex("0db8c0def00d")}
SET, RULE = 0xC0DE_F00D_1234_5678, 0xF00D_C0DE_8765_4321
_numbers = count(1)


def canary() -> str:
    """A name short enough for an interface."""
    return f"canary{next(_numbers)}x"


def host(family: int, rng: random.Random) -> IPv4Address | IPv6Address:
    return type(NETWORKS[family])(int(NETWORKS[family]) + rng.randrange(1, 250))


def filled(layout: Layout, values: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Values with every address, name and id replaced by a secret."""
    variants = [field for _, variant in layout.variants for field in variant.fields]
    for field in (*layout.fields, *variants):
        if field.name not in values:
            continue
        if field.kind is Kind.ADDRESS:
            values[field.name] = host(4 if field.size == 4 else 6, rng)
        elif field.kind is Kind.TEXT:
            values[field.name] = canary()
        elif field.name in ("set_id", "rule_id"):
            values[field.name] = SET if field.name == "set_id" else RULE
        elif field.name == "next_hop_or_ifindex":
            values |= {"flags": 0x10, field.name: host(4 if field.size == 4 else 6, rng).packed}
        elif field.name == "prefix_length":
            values[field.name] = 8 * (layout.size - 4)
    return values


def debug(family: int) -> bytes:
    net = str(NETWORKS[family])
    rule = Rule(
        "allow",
        RULE,
        source_nets=(f"{net}/{24 if family == 4 else 64}",),
        not_destination_nets=(str(host(family, random.Random(family))) + ("/32" if family == 4 else "/128"),),
        destination_set=SET,
    )
    policy = Policy(canary(), (rule,), "NetworkPolicy", canary())
    rules = Rules(tiers=(Tier(canary(), (policy,), "deny", RULE + 1),), suppress_host=True)
    return debug_file(rules, Style(version=family), error=f"{canary()}: {net}", interface=canary())


def instructions(content: bytes) -> tuple[Instruction, ...]:
    return from_bytes(b"".join(bytes(slot["inst"]) for slot in json.loads(content)["policyInfo"]))


def node() -> MemoryNode:
    rng = random.Random(5)
    made = BpfNode()
    files = dict(made.evidence()._files)
    maps, programs = [listed_map(info) for info in made.maps], list(made.programs)
    for number, layout in enumerate(FILLABLE):
        info = map_info(layout, 1000 + number)
        key = layout.key.pack(filled(layout.key, draw_key(layout, rng, 0), rng))
        value = layout.value.pack(filled(layout.value, draw(layout.value, rng), rng)).ljust(info.value_stride, b"\0")
        maps.append({**listed_map(info), "pids": [{"comm": canary()}]})
        files[f"{FOLDER}map-{info.id}.json"] = json.dumps(as_dump({key: value}, info))
    for family in (4, 6):
        content = debug(family)
        files[f"{POLICY_DEBUG_FOLDER}{canary()}_ingress_v{family}.json"] = content
        state = next(entry["id"] for entry in maps if entry["name"] == "cali_state6")
        programs.append({"id": 500 + family, "name": f"p{family}I_{canary()}", "type": "sched_cls", "map_ids": [state]})
        listed = listing(
            [
                Instruction(one.code, one.destination, one.source, one.offset, state, one.helper)
                if (one.source, one.immediate) == (1, STATE_FD)
                else one
                for one in instructions(content)
            ]
        )
        files[f"{FOLDER}xlated-{500 + family}-{canary()}.json"] = json.dumps(listed)
    block = {"interface": canary(), **{name: host(6, rng).packed for name in ("host_ip", "interface_ip")}}
    four = {**block, **{name: host(4, rng).packed.ljust(16, b"\0") for name in ("host_ip", "host_tunnel_ip")}}
    settings = as_dump({bytes(4): SETTINGS.pack(four) + SETTINGS.pack(block)}, made.maps[-1])
    files |= {
        f"{FOLDER}rodata-202.json": json.dumps(settings),
        f"{FOLDER}prog-show.json": json.dumps([*programs, {"id": 9, "name": canary(), "pinned": [f"/{canary()}"]}]),
        f"{FOLDER}map-show.json": json.dumps([*maps, {**maps[0], "id": 3, "name": canary()}]),
        f"{FOLDER}tcx-query.json": json.dumps([{"ifindex": 3, "ifname": canary(), "hook": "tcx/x", "prog_ids": [1]}]),
        f"{FOLDER}cgroup-tree.json": json.dumps([{"cgroup": f"/{canary()}/{canary()}", "programs": []}]),
        f"{FOLDER}pins.txt": f"/sys/fs/bpf/{canary()}\n/sys/fs/bpf/tcx/{canary()}_ingress\n",
        f"{FOLDER}{canary()}.json": json.dumps(canary()),
    }
    return MemoryNode(files, canary())


def spelled(secret: bytes) -> list[bytes]:
    """The ways in which files of a bundle spell bytes, in either order."""
    return [
        separator.join(form.format(octet) for octet in order).encode()
        for order in (secret, secret[::-1])
        for form, separator in (('"0x{:02x}"', ","), ('"0x{:02x}"', ", "), ("{}", ","), ("{}", ", "), ("{:02x}", ""))
    ]


def test_no_secret_gets_out() -> None:
    evidence = node()
    source = MemorySource({}, {evidence.name: evidence})
    sink = MemorySink()
    redactor = Redactor(bytes(range(32)), KINDS, (), source.nodes())
    account = Recorder(source, sink, quiet_world(), "test", rewriter=redactor).record(source.nodes())
    missing = {path.rpartition("/")[2]: record.status for path, record in account.files.items() if not record.is_ok}
    expected = sum(layout.role in LEFT_OUT for layout in FILLABLE)
    assert len(missing) == expected, missing
    assert len(sink.files) > len(FILLABLE)
    numbers = [number.to_bytes(8)[start : start + 4] for number in (SET, RULE, RULE + 1) for start in (0, 4)]
    forms = [form for secret in (*SECRETS.values(), *numbers) for form in spelled(secret)]
    texts = (b"canary", b"198.18.7", b"2001:db8:c0de", str(SET).encode(), str(RULE).encode(), f"{SET:x}".encode())
    originals = b"".join(
        content if isinstance(content, bytes) else content.encode() for content in evidence._files.values()
    )
    assert all(any(form in originals for form in spelled(secret)) for secret in (*SECRETS.values(), *numbers))
    for path, data in sink.files.items():
        for secret in (*forms, *texts):
            assert secret not in path.encode() + data, (path, secret, data[max(data.find(secret) - 80, 0) :][:200])
