"""Which network plugin seems to run on a node without Calico, for a message that helps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Sign(NamedTuple):
    """Something only one network plugin makes: a name of an interface or of an nftables table, or its beginning."""

    plugin: str
    where: str
    name: str
    prefix: bool = False

    def fits(self, name: str) -> bool:
        """Whether ``name`` is this sign."""
        return name.startswith(self.name) if self.prefix else name == self.name


SIGNS: tuple[Sign, ...] = (
    # cilium/cilium pkg/defaults/defaults.go (HostDevice), pkg/datapath/linux: names of its devices and endpoints.
    Sign("Cilium", "interface", "cilium_host"),
    Sign("Cilium", "interface", "cilium_net"),
    Sign("Cilium", "interface", "cilium_vxlan"),
    Sign("Cilium", "interface", "lxc", prefix=True),
    # antrea-io/antrea pkg/agent/config: gateway and tunnel; its nftables table since 1.14.
    Sign("Antrea", "interface", "antrea-gw0"),
    Sign("Antrea", "interface", "antrea-tun0"),
    # ovn-kubernetes go-controller/pkg/types/const.go: K8sMgmtIntfName.
    Sign("OVN-Kubernetes", "interface", "ovn-k8s-mp0"),
    Sign("OVN-Kubernetes", "table", "ovn-kubernetes"),
    Sign("Kube-OVN", "interface", "ovn0"),  # kubeovn/kube-ovn pkg/util/const.go: NodeNic
    Sign("Kube-router", "interface", "kube-bridge"),  # cloudnativelabs/kube-router pkg/controllers/routing
    Sign("Weave Net", "interface", "weave"),  # weaveworks/weave net/bridge.go: WeaveBridgeName
    # kubernetes-sigs/kindnet: its nftables tables; kind's older kindnetd only has veths named veth….
    Sign("kindnet", "table", "kindnet", prefix=True),
    # flannel-io/flannel pkg/backend/vxlan: "flannel.<VNI>"; its nftables tables since 0.25.
    Sign("Flannel", "interface", "flannel.", prefix=True),
    Sign("Flannel", "interface", "flannel-wg", prefix=True),
    Sign("Flannel", "table", "flannel-ipv4"),
    Sign("Flannel", "table", "flannel-ipv6"),
    Sign("AWS VPC CNI", "interface", "eni", prefix=True),  # aws/amazon-vpc-cni-k8s: AWS_VPC_K8S_CNI_VETHPREFIX
    Sign("Azure CNI", "interface", "azv", prefix=True),  # Azure/azure-container-networking: hostVEthInterfacePrefix
    # GKE's GKE_DATAPATH v1 and containernetworking/plugins of type bridge. Weakest, so last.
    Sign("GKE (ptp)", "interface", "gke", prefix=True),
    Sign("a bridge plugin", "interface", "cni0"),
    Sign("a bridge plugin", "interface", "cbr0"),
)
"""In order of weight: the first plugin with a sign is named."""


def plugin_hint(interfaces: Iterable[str], tables: Iterable[str]) -> str:
    """A clause for the message, such as "cilium_host looks like Cilium"; "" when nothing is recognised."""
    names = {"interface": sorted(interfaces), "table": sorted(tables)}
    for sign in SIGNS:
        for name in names[sign.where]:
            if sign.fits(name):
                return f"{sign.where} {name} looks like {sign.plugin}"
    return ""
