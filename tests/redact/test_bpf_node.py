"""The files of a made-up eBPF node: what each is taken for, and what is left out."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.decode.bpf_instructions import tags
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.errors import EvidenceError
from calico_debug.redact.bpf_node import BpfRedactor, is_taken
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor
from tests.bytecode.felix import Policy, Rule, Rules, Tier, debug_file
from tests.evidence.bpf_node import BpfNode

KEY = bytes(range(32))
FOLDER = "var-run-calico-bpf/policy/"
DEBUG = f"{FOLDER}secretnic.1234_ingress_v4.json"
CONTENT = debug_file(
    Rules(tiers=(Tier("t", (Policy("p", (Rule("allow", 7, source_nets=("198.18.7.0/24",)),)),)),), suppress_host=True),
    interface="secretnic.1234",
)


def node(**changes: Any) -> BpfNode:
    made = BpfNode({"cali_iface4": [({"ifindex": 3}, {"flags": 3, "name": "secretnic.1234"})]})
    made.files |= {
        DEBUG: CONTENT,
        "ip-link.json": '[{"ifindex": 3, "ifname": "secretnic.1234"}, {"ifindex": 4, "ifname": "a.b.c.d.e.f.g.h"}]',
    }
    made.files |= changes
    return made


def redactor(made: BpfNode, *, names: bool = True) -> BpfRedactor:
    text = TextRedactor(KEY, addresses=True, names=names, chains={True: {}, False: {}})
    found = BpfRedactor(text, NumberMap(KEY, names=names), {}, made.evidence())
    found.prepare()
    found.read_tags()
    return found


def written(found: BpfRedactor, file: str, made: BpfNode) -> Any:
    return json.loads(found.content(file, made.evidence().read(file)))


def test_which_files_are_taken() -> None:
    files = [file for file in node().evidence().files() if file != "ip-link.json"]
    assert len(files) > 15
    assert all(map(is_taken, files))
    assert is_taken("bpf/xlated-7-p4I_eth0.json")
    for file in ("bpf/feature.json", f"{FOLDER}notes.txt", "bpf/map-x.txt", "ip-link.json", "calico-bpf/map-x.json"):
        assert not is_taken(file)


def test_interfaces_have_one_name_that_fits() -> None:
    made = node()
    found = redactor(made)
    name = written(found, DEBUG, made)["ifacename"]
    assert len(name) <= 15
    assert "secretnic" not in name
    assert found.file_name(DEBUG) == f"{FOLDER}{name}_ingress_v4.json"
    layout = BY_NAME["cali_iface4"][-1]
    [entry] = written(found, "bpf/map-cali_iface4.json", made)
    assert layout.value.unpack(bytes(int(octet, 16) for octet in entry["value"]))["name"] == name


def test_names_of_dumps_follow_those_of_programs() -> None:
    found = redactor(node())
    assert found.file_name("bpf/xlated-30-p4E_cali1.json").startswith("bpf/xlated-30-p4E_cali")
    assert "secret" not in found.file_name("bpf/xlated-31-p4I_secretnic.1.json")
    assert found.file_name("bpf/xlated-31.json") == "bpf/xlated-31.json"
    assert redactor(node(), names=False).file_name(DEBUG) == DEBUG


def test_a_tag_that_agreed_agrees() -> None:
    [before] = decode_policy_debug(CONTENT, DEBUG).programs
    made = node()
    made.programs[4]["tag"] = max(tags(before.instructions))
    made.programs[5]["tag"] = "0123456789abcdef"
    found = redactor(made)
    [after] = decode_policy_debug(found.content(DEBUG, CONTENT), DEBUG).programs
    programs = {entry["id"]: entry for entry in written(found, "bpf/prog-show.json", made)}
    assert programs[30]["tag"] in tags(after.instructions)
    assert programs[30]["tag"] != made.programs[4]["tag"]
    assert programs[31]["tag"] not in {*tags(after.instructions), "0123456789abcdef"}


def test_several_maps_of_a_name() -> None:
    """Felix keeps a map of another size while it replaces it."""
    made = node()
    number = made.add_map("cali_counters6", 300)
    made.maps[-1] = replace(made.maps[-1], value_size=BY_NAME["cali_counters6"][0].value.size)
    assert len({layout.value.size for layout in BY_NAME["cali_counters6"]}) == 2
    found = redactor(made)
    for info in (one for one in made.maps if one.name == "cali_counters6"):
        value = [f"0x{octet:02x}" for octet in bytes(info.value_stride)]
        dump = json.dumps([{"key": ["0x00"] * 8, "values": [{"cpu": 0, "value": value}]}]).encode()
        for file in ("bpf/map-cali_counters6.json", f"bpf/map-{info.id}.json"):
            assert len(json.loads(found.content(file, dump))[0]["values"][0]["value"]) == info.value_size
    assert number == 300


def test_a_formatted_part_is_not_copied() -> None:
    layout = BY_NAME["cali_v4_nat_be"][-1]
    listed = [
        [f"0x{octet:02x}" for octet in data]
        for data in (
            layout.key.pack({"service_id": 1, "ordinal": 0}),
            layout.value.pack({"address": ip_address("198.18.7.9"), "port": 80}),
        )
    ]
    entry = {"key": listed[0], "value": listed[1], "formatted": {"value": {"canary": "198.18.7.9"}}}
    found = redactor(node()).content("bpf/map-cali_v4_nat_be.json", json.dumps([entry]).encode())
    assert set(json.loads(found)[0]) == {"key", "value"}
    assert b"canary" not in found


@pytest.mark.parametrize(
    ("file", "content", "why"),
    [
        ("bpf/map-unheard_of.json", "[]", "no map of that name or id is in map-show.json"),
        ("bpf/rodata-77.json", "[]", "no map of that name or id is in map-show.json"),
        ("bpf/map-cali_v4_ct4.json", '[{"key":["0x00"],"value":["0x00"]}]', "it is another map's dump"),
        ("bpf/map-cali_v4_ct4.json", '[{"key":1}]', "cannot decode an entry"),
        ("bpf/xlated-20.json", "[]", "not known to be that of a policy program"),
        ("bpf/xlated-77.json", "[]", "not known to be that of a policy program"),
        ("bpf/xlated-30-p4E_cali1.json", "[]", "it names no state map"),
        ("bpf/prog-show.json", "{", "is not complete JSON"),
        (DEBUG, "{}", "no policy debug file of Felix"),
    ],
)
def test_what_is_not_understood_is_left_out(file: str, content: str, why: str) -> None:
    with pytest.raises(EvidenceError, match=why):
        redactor(node()).content(file, content.encode())


def test_a_program_of_a_layout_that_is_not_known_is_left_out() -> None:
    made = node()
    state = made.add_map("cali_state6")
    made.maps[-1] = replace(made.maps[-1], value_size=999)
    made.programs[4]["map_ids"] = [state]
    with pytest.raises(EvidenceError, match="the state map's values have 999 bytes"):
        redactor(made).content("bpf/xlated-30-p4E_cali1.json", b"[]")
