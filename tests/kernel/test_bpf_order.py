"""Which of two programs at one tc hook runs first: what `bpf_checks.RUNNING_ORDER` says of tcx and clsact.

The program of clsact drops, that of tcx lets pass and ends the hook: a packet arrives only if tcx's ran first.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import sys

import pytest

from calico_debug.agent.bpf_library import library
from calico_debug.state.bpf_checks import RUNNING_ORDER
from tests.kernel.bpf_kernel import kernel_program, need_bpf

pytestmark = pytest.mark.kernel

ATTACH = {"ingress": 46, "egress": 47}
"""BPF_TCX_INGRESS, BPF_TCX_EGRESS."""
CLONE_NEWNET = 0x40000000
DROP = "1,6 0 0 2"
"""Classic BPF as tc takes it: one instruction, which returns 2, TC_ACT_SHOT."""


@pytest.mark.parametrize("hook", ATTACH)
def test_tcx_runs_before_clsact(hook: str) -> None:
    need_bpf()
    # A process of its own enters the namespace, which ends with it.
    done = subprocess.run([sys.executable, "-m", __name__, hook], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    if told["unsupported"]:
        pytest.skip(f"this kernel cannot have both: {told['unsupported']}")
    assert told["alone"] is False, "clsact's program drops"
    assert told["both"] is True, "tcx's program lets pass"
    order = RUNNING_ORDER[hook]
    assert order.index("tcx") < order.index("clsact")


def both(hook: str) -> dict[str, object]:
    """Whether a packet through the loopback device arrives, with clsact's program alone and with both."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        return {"unsupported": os.strerror(ctypes.get_errno())}
    for command in (
        "ip link set lo up",
        "tc qdisc add dev lo clsact",
        f"tc filter add dev lo {hook} protocol all bpf da bytecode",
    ):
        words = command.split() + ([DROP] if command.endswith("bytecode") else [])
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0:
            return {"unsupported": done.stderr.strip()}
    alone = arrives()
    with kernel_program("cali_tc_preambl") as program:
        link = library().bpf_link_create(program, 1, ATTACH[hook], None)
        if link < 0:
            return {"unsupported": os.strerror(ctypes.get_errno())}
        return {"unsupported": "", "alone": alone, "both": arrives()}


def arrives() -> bool:
    """Whether a datagram gets from one socket to another; loopback delivers before ``sendto`` returns."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        sender.sendto(b"?", receiver.getsockname())
        try:
            return receiver.recv(1) == b"?"
        except TimeoutError:
            return False


if __name__ == "__main__":
    print(json.dumps(both(sys.argv[1])))  # noqa: T201
