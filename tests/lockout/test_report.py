"""Previews on a recorded cluster, whose node2 has a host endpoint with policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from calico_debug.doctor.model import ClusterView
from calico_debug.lockout.changes import decode_change
from calico_debug.lockout.judge import CUT, OPEN, SAVED, STAYS
from calico_debug.lockout.report import document, preview
from calico_debug.state.cluster import load_cluster
from tests.recordings import Recording, recordings

if TYPE_CHECKING:
    from calico_debug.lockout.report import Preview, Row

RECORDED = recordings("2.1-nft")[:1]
each = pytest.mark.parametrize("recording", RECORDED, ids=lambda one: one.name)

HOST = """
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node1-all, labels: {host: node1}}
spec: {node: node1, interfaceName: "*"%s}
"""
POLICY = """
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: %s}
spec: {tier: security, order: -1, selector: %s, types: [Ingress, Egress], ingress: [%s], egress: [%s]}
"""
DEFAULT_DENY = POLICY % ("deny-all", "all()", "{action: Deny}", "{action: Deny}")


def look(recording: Recording, manifest: str = "") -> Preview:
    state = load_cluster(recording.source)
    change = decode_change(manifest.encode(), "f") if manifest else None
    return preview(state, ClusterView(recording.source, state), change, {}, {})


def rows(found: Preview, node: str) -> dict[tuple[str, str], Row]:
    return {(row.name, row.direction): row for row in found.rows if row.node == node}


@each
def test_as_it_is(recording: Recording) -> None:
    found = look(recording)
    assert found.unpoliced == ("node1",)
    assert found.worst == SAVED
    assert rows(found, "node2")["kubelet", "ingress"].standing == STAYS
    assert any("not in evidence" in note for note in found.notes)


@each
def test_a_host_endpoint_alone_denies(recording: Recording) -> None:
    found = look(recording, HOST % "")
    node1 = rows(found, "node1")
    assert node1["kubelet", "ingress"].standing == CUT
    assert "end of tier security" in node1["kubelet", "ingress"].why
    assert node1["SSH", "ingress"].standing == SAVED
    assert node1["API server", "egress"].standing == SAVED
    assert found.unpoliced == ()
    # What the other node has is as before
    assert rows(found, "node2")["kubelet", "ingress"].standing == STAYS


@each
def test_without_failsafes_the_node_is_lost(recording: Recording) -> None:
    felix = """
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}
"""
    found = look(recording, HOST % "" + felix)
    node1 = rows(found, "node1")
    assert {node1[key].standing for key in (("API server", "egress"), ("BGP", "ingress"))} == {CUT}


@each
def test_who_may_come_is_not_known(recording: Recording) -> None:
    only = "{action: Allow, protocol: TCP, source: {nets: [10.9.0.0/16]}, destination: {ports: [22]}}"
    felix = "\n---\nkind: FelixConfiguration\napiVersion: projectcalico.org/v3\nmetadata: {name: default}\n"
    manifest = HOST % "" + POLICY % ("ssh", "has(host)", only, "") + felix + "spec: {failsafeInboundHostPorts: []}"
    row = rows(look(recording, manifest), "node1")["SSH", "ingress"]
    assert row.standing == OPEN
    assert "GlobalNetworkPolicy ssh, ingress rule 0 (Allow) lets it through for some addresses" in row.why


@each
def test_a_policy_for_all_cuts_dns_of_pods(recording: Recording) -> None:
    found = look(recording, DEFAULT_DENY)
    for node in ("node1", "node2"):
        row = rows(found, node)["DNS for pods", "egress"]
        assert row.standing == CUT
        assert "deny-all" in row.why
    assert rows(found, "node2")["API server for DNS", "egress"].standing == CUT


@each
def test_what_was_cut_before_is_not_of_the_change(recording: Recording) -> None:
    state = load_cluster(recording.source)
    first = look(recording, HOST % "")
    assert first.worst == CUT
    again = decode_change((HOST % "").encode(), "f").applied(state.cluster)
    assert [one.name for one in again.host_endpoints][-1] == "node1-all"
    told = document(first)
    assert told["kind"] == "LockoutPreview"
    assert told["worst"] == CUT


@each
def test_profiles_of_host_endpoints_that_calico_makes(recording: Recording) -> None:
    profile = ", profiles: [projectcalico-default-allow]"
    found = look(recording, (HOST % profile).replace("host: node1", "host: no"))
    assert rows(found, "node1")["kubelet", "ingress"].standing in (STAYS, CUT)


@each
def test_other_kinds_are_named(recording: Recording) -> None:
    found = look(recording, HOST % "" + "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
    assert any(note.startswith("ConfigMap x") for note in found.notes)
