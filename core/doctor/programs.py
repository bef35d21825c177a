"""What the dataplane of a node is, and what is wrong with its programs, jump maps and tables as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from calico_debug.doctor.model import Symptom, Unknown
from calico_debug.explain.dataplane import Dataplanes
from calico_debug.state.dataplane import EBPF

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.doctor.model import NodeView, Observation


def check_reading(node: NodeView) -> Iterator[Observation]:
    """Of an eBPF node, what was odd in the parts that other checks have read; so this one is the last."""
    if node.dataplane == EBPF:
        for finding in node.state.bpf.findings:
            yield Symptom(finding.code, finding.severity, finding.message)


STATUS_FOLDER = "var-run-calico-endpoint-status/"
"""The node's /var/run/calico/endpoint-status, as a bundle may have it; on by default since v3.30."""

STATUS_PARTS = 3


def check_dataplane(node: NodeView) -> Iterator[Observation]:
    """Calico's programs and tables, as explanations of flows check them too."""
    if not node.dataplane:
        hint = node.state.cni_hint()
        yield Symptom(
            "no-calico",
            "error",
            "no nftables table named calico, no iptables chains of Calico and no eBPF programs of it"
            + (f"; {hint}" if hint else ""),
        )
        return
    for finding in Dataplanes(node.cluster.source).findings(node.walker):
        if finding.code == "evidence":
            yield Unknown(finding.message)
        else:
            yield Symptom(finding.code, finding.severity, finding.message)


def check_status(node: NodeView) -> Iterator[Observation]:
    """Running pods whose endpoint Felix has not reported as up, where its status files are in evidence.

    A file is called ``<orchestrator> <namespace/pod> <endpoint>``, each part escaped as in a URL; Felix writes it once
    policy is programmed and takes it away with the endpoint (felix/statusrep/status_file_reporter.go).
    """
    files = [file.removeprefix(STATUS_FOLDER) for file in node.evidence.files() if file.startswith(STATUS_FOLDER)]
    reported = {unquote(parts[1]) for file in files if len(parts := file.split(" ")) == STATUS_PARTS}
    for pod in node.cluster.state.pods if reported else ():
        name = f"{pod.namespace}/{pod.name}"
        if pod.node == node.name and pod.phase == "Running" and not pod.host_network and name not in reported:
            yield Symptom("endpoint-not-reported", "error", f"pod {name} runs here and has no file of status")


def check_readiness(node: NodeView) -> Iterator[Observation]:
    """Of an eBPF node, pods' interfaces whose programs Felix has not called ready."""
    if node.dataplane != EBPF or node.walker.datapath is None:
        return
    for interface in node.walker.datapath.lookups.interfaces.values():
        if interface.workload and not (interface.ready(4) or interface.ready(6)):
            yield Symptom(
                "endpoint-not-ready",
                "error",
                f"{interface.name} is a pod's interface, and its programs are ready for neither IPv4 nor IPv6",
            )
