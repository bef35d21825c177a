from __future__ import annotations

from pathlib import Path

import pytest

from calico_debug.agent.capabilities import CAPABILITIES, NEEDED, has, lacking
from calico_debug.agent.commands import PACKAGES


def status(folder: Path, held: str) -> Path:
    path = folder / "status"
    path.write_text(f"Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t{held}\nCapBnd:\t000001ffffffffff\n")
    return path


def test_what_is_held(tmp_path: Path) -> None:
    # As capsh --decode reads it: cap_net_admin, cap_bpf.
    path = status(tmp_path, "0000008000001000")
    assert [name for name in CAPABILITIES if has(name, path)] == ["CAP_NET_ADMIN", "CAP_BPF"]
    assert lacking("bpftool", path) == "CAP_SYS_ADMIN"
    assert lacking("nft", path) == ""
    assert lacking("ip", path) == ""


@pytest.mark.parametrize("text", ["", "CapEff:", "CapEff:\tnothing\n"])
def test_a_kernel_that_does_not_tell(tmp_path: Path, text: str) -> None:
    path = tmp_path / "status"
    path.write_text(text)
    assert has("CAP_NET_ADMIN", path)
    assert has("CAP_NET_ADMIN", tmp_path / "none")


def test_every_program_is_known() -> None:
    assert {"ip"} == PACKAGES.keys() - NEEDED.keys()
    assert set(NEEDED.values()) <= CAPABILITIES.keys()
