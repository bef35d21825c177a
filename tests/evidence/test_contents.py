"""The table of files is the recordings' own."""

from __future__ import annotations

from calico_debug.evidence.contents import CLUSTER_FILES, IPTABLES_LEGACY_FILES, NODE_COMMANDS, cluster_remedy, remedy
from tests.evidence.memory import recorded_bundles


def test_the_recordings_have_these_names() -> None:
    recorded = {file.name for bundle in recorded_bundles() for file in bundle.glob("nodes/*/*")}
    assert set(NODE_COMMANDS) - set(IPTABLES_LEGACY_FILES) <= recorded
    listed = {file.name for bundle in recorded_bundles() for file in bundle.glob("cluster/*")}
    assert set(CLUSTER_FILES) <= listed


def test_remedies_name_commands() -> None:
    assert remedy("ip-addr.json", "n1") == "write it with `ip -j -d addr` on node n1"
    assert remedy("other.json", "n1") == "record it on node n1"
    assert "kubectl get endpointslices.discovery.k8s.io -A" in cluster_remedy("endpointslices.discovery.k8s.io.json")
    assert cluster_remedy("daemonsets.apps-kube-proxy.json") == (
        "write it with `kubectl get daemonsets.apps -A --field-selector metadata.name=kube-proxy -o json`"
    )
