"""What a node without Calico seems to run."""

from __future__ import annotations

import pytest

from calico_debug.state.cni import SIGNS, plugin_hint


@pytest.mark.parametrize(
    ("interfaces", "tables", "hint"),
    [
        (["lo", "eth0", "lxc12ab", "cilium_host"], [], "interface cilium_host looks like Cilium"),
        (["lo", "eth0", "lxc12ab"], [], "interface lxc12ab looks like Cilium"),
        (["lo", "cni0", "flannel.1"], [], "interface flannel.1 looks like Flannel"),
        (["lo", "antrea-gw0"], [], "interface antrea-gw0 looks like Antrea"),
        (["lo", "eth0", "eni4a6"], [], "interface eni4a6 looks like AWS VPC CNI"),
        (["lo", "eth0", "azv12"], ["filter"], "interface azv12 looks like Azure CNI"),
        (["lo", "eth0", "veth1"], ["kindnet-network-policies"], "table kindnet-network-policies looks like kindnet"),
        (["lo", "cni0"], [], "interface cni0 looks like a bridge plugin"),
        (["lo", "eth0"], ["nat"], ""),
        ([], [], ""),
    ],
)
def test_hints(interfaces: list[str], tables: list[str], hint: str) -> None:
    assert plugin_hint(interfaces, tables) == hint


def test_calico_is_no_sign_of_another() -> None:
    assert plugin_hint(["lo", "eth0", "cali12", "tunl0", "vxlan.calico", "wireguard.cali"], ["calico"]) == ""
    assert all(sign.where in ("interface", "table") for sign in SIGNS)
