"""A bundle of real maps and programs lists the same as the kernel they are in."""

from __future__ import annotations

import ctypes
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from calico_debug.agent.bpf import LiveBpfNode, LiveMaps
from calico_debug.agent.bpf_library import library
from calico_debug.agent.evidence import LiveSource
from calico_debug.cli.archive import new_bundle
from calico_debug.decode.bpf_layouts import BY_NAME
from calico_debug.evidence.bundle import open_bundle
from calico_debug.explain.listing.node import NodeListings
from calico_debug.model.bpf_objects import MapInfo
from calico_debug.record.bpf_files import dump_json
from calico_debug.record.recorder import Recorder
from calico_debug.redact.redactor import KINDS, Redactor
from tests.decode.bpf_samples import draw, draw_key, map_info
from tests.evidence.bpf_node import settings
from tests.kernel.bpf_kernel import SCHED_CLS, fill, kernel_map, need_bpf
from tests.record.worlds import every_listing, quiet_world

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

pytestmark = pytest.mark.kernel

TCX_INGRESS, TCX_EGRESS = 46, 47
CLONE_NEWNET = 0x40000000
LOOPBACK = 1
USED = (
    "cali_v4_ct4",
    "cali_v4_routes",
    "cali_v4_nat_fe3",
    "cali_v4_nat_be",
    "cali_counters6",
    "cali_iface4",
    "cali_state6",
)
MAP_FD = 0x1
"""BPF_PSEUDO_MAP_FD: the instruction names a map by its descriptor (include/uapi/linux/bpf.h)."""


@pytest.mark.parametrize("kind", ["hash", "lru_hash", "percpu_array", "percpu_hash", "lpm_trie", "array"])
def test_dumps_are_those_of_bpftool(kind: str) -> None:
    need_bpf()
    rng = random.Random(kind)
    size = 4 if "array" in kind else 12
    info = MapInfo(0, "cd_dump", kind, size, 20, 64, 1 if kind == "lpm_trie" else 0)
    with kernel_map(info) as (made, descriptor):
        cpus = LiveMaps()._cpus if made.per_cpu else 1
        for number in range(40):
            key = number.to_bytes(4, "little") if size == 4 else struct.pack("<I", 64) + rng.randbytes(8)
            fill(descriptor, {key: rng.randbytes(made.value_stride * cpus)})
        maps = LiveMaps()
        try:
            ours = json.loads(b"".join(dump_json(maps.batches(made), made)))
        finally:
            maps.close()
        tool = shutil.which("bpftool", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        assert tool is not None
        theirs = json.loads(subprocess.check_output([tool, "-j", "map", "dump", "id", str(made.id)]))
    plain = [{key: entry[key] for key in ("key", "value", "values") if key in entry} for entry in theirs]
    order = json.dumps
    assert len(ours) >= 40
    assert sorted(ours, key=order) == sorted(plain, key=order)


def test_a_node() -> None:
    need_bpf()
    # A process of its own enters the namespace, which ends with it.
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if told["unsupported"]:
        pytest.skip(f"this kernel attaches nothing with tcx: {told['unsupported']}")
    assert told["live"] == told["bundle"]
    assert all(told["live"][name] for name in ("conntrack", "nat", "routes", "attachments"))
    assert {name: len(rows) for name, rows in told["redacted"].items()} == {
        name: len(rows) for name, rows in told["live"].items()
    }
    assert told["redacted"]["conntrack"] != told["live"]["conntrack"]
    why = [told["left out"][name] for name in told["files"] if name in told["left out"]]
    assert all("what is left of packets" in one for one in why)
    assert len(why) == 1
    assert {name.partition("-")[0] for name in told["files"]} >= {"map", "rodata", "xlated", "prog", "tcx"}


def load(name: str, descriptors: list[int]) -> int:
    """A program that names these maps, and returns 0."""
    wide = b"".join(struct.pack("<BBhiBBhi", 0x18, 1 | MAP_FD << 4, 0, one, 0, 0, 0, 0) for one in descriptors)
    code = wide + bytes.fromhex("b700000000000000") + bytes.fromhex("9500000000000000")
    descriptor = int(library().bpf_prog_load(SCHED_CLS, name.encode(), b"GPL", code, len(code) // 8, None))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), f"cannot load {name}")
    return descriptor


def build(stack: ExitStack) -> str:
    """Calico's programs on the loopback device: what is not supported here, "" when they are there."""
    maps: dict[str, int] = {}
    rng = random.Random(1)
    for name in (*USED, "cali_progs_ing2", "cali_progs_egr2", "cali_jump_ing2", "cali_jump_egr2"):
        layout = BY_NAME[name][-1]
        made, maps[name] = stack.enter_context(kernel_map(map_info(layout, entries=min(layout.size, 1024))))
        if name in ("cali_v4_ct4", "cali_v4_nat_fe3", "cali_v4_nat_be", "cali_v4_routes"):
            key = layout.key.pack(draw_key(layout, rng, 0))
            fill(maps[name], {key: layout.value.pack(draw(layout.value, rng)).ljust(made.value_stride, b"\0")})
    main = load("calico_tc_main", [maps[name] for name in USED])
    for side, letter, hook in (("ing", "E", TCX_INGRESS), ("egr", "I", TCX_EGRESS)):
        value = settings("lo", 0, 5)
        rodata = MapInfo(0, f"{side}.rodata", "array", 4, len(value), 1)
        _, settings_map = stack.enter_context(kernel_map(rodata))
        fill(settings_map, {bytes(4): value})
        policy = load(f"p4{letter}_lo", [maps["cali_state6"]])
        fill(maps[f"cali_progs_{side}2"], {bytes(4): main.to_bytes(4, "little")})
        fill(maps[f"cali_jump_{side}2"], {(5).to_bytes(4, "little"): policy.to_bytes(4, "little")})
        preamble = load("cali_tc_preambl", [maps[f"cali_progs_{side}2"], maps[f"cali_jump_{side}2"], settings_map])
        if library().bpf_link_create(preamble, LOOPBACK, hook, None) < 0:
            return os.strerror(ctypes.get_errno())
    return ""


def listings(source: EvidenceSource) -> dict[str, list[Any]]:
    return every_listing(NodeListings(source, "n1"))


def write_and_tell() -> dict[str, Any]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return {"unsupported": os.strerror(ctypes.get_errno())}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        if why := build(stack):
            return {"unsupported": why}
        source = LiveSource("n1")
        assert isinstance(source.node("n1"), LiveBpfNode)
        target = Path(directory) / "b.tar"
        with new_bundle(target) as sink:
            Recorder(source, sink, quiet_world(), "calico-debug test").record(["n1"])
        hidden = Path(directory) / "hidden.tar"
        redactor = Redactor(bytes(range(32)), KINDS, (), ["n1"])
        with new_bundle(hidden) as sink:
            account = Recorder(source, sink, quiet_world(), "calico-debug test", rewriter=redactor).record(["n1"])
        redacted = every_listing(NodeListings(open_bundle(hidden), redactor.node_name("n1")))
        left_out = {path.rpartition("/")[2]: one.status for path, one in account.files.items() if not one.is_ok}
        bundle = open_bundle(target)
        files = [name.removeprefix("bpf/") for name in bundle.node("n1").files() if name.startswith("bpf/")]
        return {
            "unsupported": "",
            "files": files,
            "live": listings(source),
            "bundle": listings(bundle),
            "redacted": redacted,
            "left out": left_out,
        }


if __name__ == "__main__":
    print(json.dumps(write_and_tell()))  # noqa: T201
