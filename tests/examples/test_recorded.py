"""The recorded cluster's namespaces are as the examples say, in every dataplane, and so the probes found them."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pytest

from calico_debug.cli.environment import open_tracer
from calico_debug.decode.assertions import decode_assertions
from calico_debug.state.cluster import load_cluster
from tests.cli.worlds import run
from tests.examples.environments import RECORDED
from tests.recordings import DATA, recordings
from tests.truth.happened import what_happened

if TYPE_CHECKING:
    from tests.recordings import Recording

FILES = sorted(RECORDED.glob("*.yaml"))
ALL = [
    *chain.from_iterable(recordings(f"v3.32.1-{kind}") for kind in ("nft", "iptables", "bpf", "v6-bpf", "vxlan-bpf"))
]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
@pytest.mark.parametrize("recording", ALL, ids=lambda one: one.name)
def test_every_assertion_is_met(recording: Recording, file: object) -> None:
    ran = run("assert", str(file), "--bundle", str(recording.path), open_tracer=open_tracer)
    assert (ran.code, ran.err) == (0, ""), ran.out


def test_probes_found_the_same() -> None:
    """Of services, those to the service's own address and to its backends."""
    (own,) = recordings("v3.32.1-nft")[:1]
    cluster = load_cluster(own.source)
    probes = what_happened(own)
    compared = 0
    for one in (expected for file in FILES for expected in decode_assertions(file.read_bytes(), file.name)):
        kind, _, name = one.destination.partition("/")
        service = cluster.service(*name.split("/")) if kind == "svc" else None
        if service is None:
            continue
        targets = {(str(service.cluster_addresses[0]), service.ports[0].port)}
        targets |= {(str(backend.address), backend.port) for backend in service.backends}
        for probe in probes:
            p = probe.probe
            asked = p["src"] == one.source and p["proto"] == (one.protocol or "tcp")
            if asked and (p["dst_ip"], p["dport"]) in targets and probe.verdict is not None:
                compared += 1
                assert probe.verdict in one.verdicts, (one, str(probe))
    assert compared >= 15


def test_all_files_are_asked() -> None:
    assert [path.stem for path in FILES] == ["stars", "yaobank"]
    assert len(ALL) >= 3


def test_after_the_freeze_one_is_not_met() -> None:
    stale = str(DATA / "v3.32.1-stale-nft.tar.xz")
    ran = run("assert", str(RECORDED / "stars.yaml"), "--bundle", stale, open_tracer=open_tracer)
    assert ran.code == 1
    assert "DENIED on node2 by GlobalNetworkPolicy platform.freeze, rule 0" in ran.out
