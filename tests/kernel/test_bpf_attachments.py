"""Programs attached with tcx in a namespace of their own, found by the live node."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

import pytest

from calico_debug.agent.bpf import LiveBpfNode, query_tcx
from calico_debug.agent.bpf_library import library
from calico_debug.state.bpf import BpfState
from tests.kernel.bpf_kernel import kernel_program, need_bpf, program_id

pytestmark = pytest.mark.kernel

TCX_INGRESS, TCX_EGRESS = 46, 47
CLONE_NEWNET = 0x40000000


def test_tcx_programs_of_this_namespace() -> None:
    need_bpf()
    # A process of its own enters the namespace, which ends with it.
    done = subprocess.run([sys.executable, "-m", __name__], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if told["unsupported"]:
        pytest.skip(f"this kernel attaches nothing with tcx: {told['unsupported']}")
    ingress, egress = told["programs"]
    listed = {entry["hook"]: entry for entry in told["query"]}
    assert listed["tcx/ingress"]["prog_ids"] == [ingress]
    assert listed["tcx/egress"]["prog_ids"] == [egress]
    assert {entry["ifname"] for entry in told["query"]} == {"lo"}
    assert sorted(told["attachments"]) == [
        ["lo", "egress", egress, told["links"][1]],
        ["lo", "ingress", ingress, told["links"][0]],
    ]


def attach_and_tell() -> dict[str, object]:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return {"unsupported": os.strerror(ctypes.get_errno())}
    with kernel_program("cali_tc_preambl") as first, kernel_program("cali_tc_preambl") as second:
        links = []
        for program, hook in ((first, TCX_INGRESS), (second, TCX_EGRESS)):
            link = library().bpf_link_create(program, 1, hook, None)
            if link < 0:
                return {"unsupported": os.strerror(ctypes.get_errno())}
            links.append(link)
        query = list(query_tcx())
        live = LiveBpfNode("n1")
        state = BpfState(live)
        return {
            "unsupported": "",
            "programs": [program_id(first), program_id(second)],
            "links": [int(link_id(link)) for link in links],
            "query": query,
            "attachments": [
                [one.interface, one.hook, one.program_id, one.link_id]
                for one in state.attachments
                if one.mechanism == "tcx"
            ],
        }


def link_id(descriptor: int) -> int:
    info = ctypes.create_string_buffer(128)
    size = ctypes.c_uint32(128)
    assert library().bpf_obj_get_info_by_fd(descriptor, info, ctypes.byref(size)) == 0
    return int.from_bytes(info.raw[4:8], "little")


if __name__ == "__main__":
    print(json.dumps(attach_and_tell()))  # noqa: T201
