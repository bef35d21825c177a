"""A made-up eBPF node: pods with programs on clsact or tcx, jump maps, settings, and the usual maps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from calico_debug.decode.bpf_globals import TC_GLOBALS
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.model.bpf_objects import MapInfo
from tests.decode.bpf_samples import as_dump
from tests.evidence.memory import MemoryNode

NONE = 0xFFFFFFFF
SETTINGS = TC_GLOBALS[2]
POD = "cali1"
USED = (
    "cali_v4_ct4",
    "cali_v4_routes",
    "cali_v4_nat_fe3",
    "cali_v4_nat_be",
    "cali_counters6",
    "cali_iface4",
    "cali_v4_frgfwd3",
)

Entries = Mapping[str, Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]]


def settings(interface: str, main: int, policy: int) -> bytes:
    four = SETTINGS.pack({"interface": interface.ljust(15, "-"), "jumps": (main, policy, *([NONE] * 38))})
    return four + SETTINGS.pack({"jumps": (NONE,) * 40, "log_filter_jump": NONE})


def listed_map(info: MapInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "type": info.type,
        "name": info.name,
        "flags": info.flags,
        "bytes_key": info.key_size,
        "bytes_value": info.value_size,
        "max_entries": info.max_entries,
    }


class BpfNode:
    """Ids: programs 10 and 11 are the pod's preambles, 20 and 21 main, 30 and 31 policies; maps are numbered from 100.

    Change ``maps``, ``programs``, ``slots`` and ``files`` before `evidence`.
    """

    def __init__(self, entries: Entries | None = None) -> None:
        self.entries = dict(entries or {})
        self.maps: list[MapInfo] = []
        self.ids: dict[str, int] = {}
        for name in (*USED, "cali_progs_ing2", "cali_progs_egr2", "cali_jump_ing2", "cali_jump_egr2"):
            self.add_map(name)
        for name, number in (("in.rodata", 201), ("eg.rodata", 202)):
            self.maps.append(MapInfo(number, name, "array", 4, 2 * SETTINGS.size, 1))
        used = [self.ids[name] for name in USED]
        self.programs = [
            self.program(10, "cali_tc_preambl", [self.ids["cali_progs_ing2"], self.ids["cali_jump_ing2"], 201]),
            self.program(11, "cali_tc_preambl", [self.ids["cali_progs_egr2"], self.ids["cali_jump_egr2"], 202]),
            self.program(20, "calico_tc_main", used),
            self.program(21, "calico_tc_main", used),
            self.program(30, "p4E_cali1", []),
            self.program(31, "p4I_cali1", []),
        ]
        self.slots: dict[str, dict[int, int]] = {
            "cali_progs_ing2": {0: 20},
            "cali_progs_egr2": {0: 21},
            "cali_jump_ing2": {5: 30},
            "cali_jump_egr2": {5: 31},
        }
        self.settings = {201: settings(POD, 0, 5), 202: settings(POD, 0, 5)}
        self.tcx = [self.hook("tcx/ingress", 10), self.hook("tcx/egress", 11)]
        self.files: dict[str, bytes | str] = {
            "bpf/net-show.json": '[{"xdp":[],"tc":[]}]',
            "bpf/link-show.json": "[]",
            "bpf/cgroup-tree.json": "[]",
            "bpf/pins.txt": "".join(f"/sys/fs/bpf/tc/globals/{name}\n" for name in self.ids),
        }

    def add_map(self, name: str, number: int = 0) -> int:
        layout = BY_NAME[name][-1]
        number = number or 100 + len(self.maps)
        self.maps.append(MapInfo(number, name, layout.types[-1], layout.key.size, layout.value.size, layout.size))
        self.ids[name] = number
        return number

    @staticmethod
    def program(number: int, name: str, maps: Sequence[int]) -> dict[str, Any]:
        return {"id": number, "type": "sched_cls", "name": name, "map_ids": list(maps)}

    @staticmethod
    def hook(hook: str, *programs: int) -> dict[str, Any]:
        return {"ifindex": 3, "ifname": POD, "hook": hook, "prog_ids": list(programs)}

    def evidence(self) -> MemoryNode:
        files = dict(self.files)
        files.setdefault("bpf/prog-show.json", json.dumps(self.programs))
        files.setdefault("bpf/map-show.json", json.dumps([listed_map(info) for info in self.maps]))
        files.setdefault("bpf/tcx-query.json", json.dumps(self.tcx))
        for info in self.maps:
            pairs: dict[bytes, bytes] = {}
            if info.id in self.settings:
                pairs = {bytes(4): self.settings[info.id]}
            elif info.name in self.slots:
                packed = {i.to_bytes(4, "little"): p.to_bytes(4, "little") for i, p in self.slots[info.name].items()}
                pairs = packed
            elif info.name in BY_NAME:
                layout = BY_NAME[info.name][-1]
                stride = info.value_stride if info.per_cpu else 0
                for key, value in self.entries.get(info.name, ()):
                    pairs[layout.key.pack(key)] = layout.value.pack(value).ljust(stride, b"\0")
            kind = "rodata" if info.name.endswith(".rodata") else "map"
            name = str(info.id) if kind == "rodata" else info.name
            files.setdefault(f"bpf/{kind}-{name}.json", json.dumps(as_dump(pairs, info)))
        return MemoryNode({name: data for name, data in files.items() if data != "absent"})
