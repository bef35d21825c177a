"""A redacted recording explains every probed flow as the recording does, and holds none of its names and addresses."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from calico_debug.drift.report import find_drift
from calico_debug.explain.chainlookup import ChainDirectory
from calico_debug.explain.engine import Engine
from calico_debug.policy.chains import ChainKind, chain_role
from calico_debug.redact.addresses import EMBEDDING, SPECIAL
from calico_debug.redact.objects import FIELDS
from calico_debug.redact.redactor import JSON_FILES, KINDS, Redactor
from calico_debug.redact.text import USUAL_INTERFACE
from calico_debug.redact.vocabulary import KEPT
from calico_debug.state.cluster import load_cluster
from tests.recordings import DATA, Recording, recordings
from tests.redact.worlds import Asked, Redacted, without_sentences

pytestmark = pytest.mark.slow

NETFILTER = [*recordings("-nft"), *recordings("-iptables")]
BPF = recordings("-bpf")
RECORDINGS = [*NETFILTER, *BPF]
CALICO_INTERFACES = frozenset({"vxlan.calico", "bpfin.cali", "bpfout.cali"})
FLOWS = 60
"""Different flows of a recording that are asked about."""


@cache
def redacted(recording: Recording, kinds: tuple[str, ...]) -> Redacted:
    return Redacted(recording.source, kinds)


def questions(recording: Recording) -> Iterator[dict[str, str | None]]:
    probes = recording.json("probes.json") or []
    seen = set()
    for probe in probes:
        source, target, port = probe["src_ip"], probe["dst_ip"], probe["dport"]
        spelled = f"[{target}]" if ":" in target and port else target
        protocol = "icmpv6" if ":" in target and probe["proto"] == "icmp" else probe["proto"]
        asked = (source, f"{spelled}:{port}" if port else spelled, protocol)
        if asked not in seen:
            seen.add(asked)
            yield {"source": asked[0], "destination": asked[1], "protocol": asked[2]}
        if len(seen) >= FLOWS:
            return
    cluster = load_cluster(recording.source)
    for pod in cluster.pods:
        for service in cluster.services:
            if service.ports and pod.addresses:
                target = f"svc/{service.namespace}/{service.name}:{service.ports[0].port}"
                yield {"source": f"{pod.namespace}/{pod.name}", "destination": target, "protocol": None}


CASES = [(recording, KINDS) for recording in RECORDINGS] + [
    (recording, (kind,)) for recording in RECORDINGS if recording.path.parent == DATA for kind in KINDS
]


@pytest.mark.parametrize(
    ("recording", "kinds"), CASES, ids=lambda value: getattr(value, "name", None) or ",".join(value)
)
def test_the_same_is_explained(recording: Recording, kinds: tuple[str, ...]) -> None:
    pair = redacted(recording, kinds)
    before, after = Asked(pair.source), Asked(pair.bundle)
    compared = 0
    for question in questions(recording):
        words = {key: text and re.sub(r"^svc/(.*)", r"\1", text) for key, text in question.items() if key != "protocol"}
        new = {key: pair.name(text or "") for key, text in words.items()}
        if str(question["destination"]).startswith("svc/"):
            new["destination"] = f"svc/{new['destination']}"
        expected = before.explain(**question)  # type: ignore[arg-type]
        found = after.explain(**new, protocol=question["protocol"])
        assert without_sentences(found) == pair.mapped(expected), question
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("recording", NETFILTER, ids=lambda recording: recording.name)
def test_chains_are_still_found(recording: Recording) -> None:
    """Also those with a hash in their names, without the help of comments."""
    pair = redacted(recording, KINDS)
    after = Engine(pair.bundle)
    directory = ChainDirectory(after.cluster, after.states)
    found = 0
    for state in after.states.values():
        for family, table in state.ruleset.tables():
            for policy in after.cluster.policies():
                for place in directory._policy(policy).programmed:
                    role = chain_role(place.chain)
                    assert role is not None
                    assert role.kind is ChainKind.POLICY
                    found += (place.family, place.table) == (family, table)
    before = Engine(pair.source)
    old = ChainDirectory(before.cluster, before.states)
    expected = [len(old._policy(policy).programmed) for policy in before.cluster.policies()]
    assert found
    assert [len(directory._policy(policy).programmed) for policy in after.cluster.policies()] == expected


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_nothing_drifts_that_did_not(recording: Recording) -> None:
    """Names of IP sets are digests of selectors: they have to be those of the new ones."""
    pair = redacted(recording, KINDS)
    before = find_drift(pair.source, pair.source.nodes())
    after = find_drift(pair.bundle, pair.bundle.nodes())
    assert Counter(one.code for one in after.found) == Counter(one.code for one in before.found)
    assert after.compared == before.compared
    assert after.compared


def words_of(source: Any) -> set[str]:
    """Names of the cluster, whole and in parts, that say something of it."""
    cluster = load_cluster(source)
    names = set(source.nodes()) | set(cluster.namespaces)
    for labels in cluster.namespaces.values():
        names |= set(labels.values())
    for pod in cluster.pods:
        names |= {pod.name, pod.namespace, pod.service_account, *pod.labels, *pod.labels.values()}
    for service in cluster.services:
        names |= {service.name, *(port.name for port in service.ports)}
    for policy in cluster.policies():
        names |= {policy.name, policy.tier}
    parts = {part for name in names for part in re.split(r"[./]", name)}
    return {word for word in names | parts if word and not all(part in KEPT for part in re.split(r"[./]", word))}


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.name)
def test_nothing_leaks(recording: Recording) -> None:
    pair = redacted(recording, KINDS)
    archive = b"\n".join(path.encode() + b"\n" + data for path, data in pair.files.items())
    text = archive.decode()
    for word in words_of(pair.source) - keys_of_formats(pair.source):
        if not USUAL_INTERFACE.fullmatch(word) and not re.fullmatch(r"\d{1,6}", word):
            assert not re.search(rf"(?<![A-Za-z0-9-]){re.escape(word)}(?![A-Za-z0-9-])", text), word
    for interface in {
        name for node in pair.source.nodes() for name in Asked(pair.source).engine.states[node].interfaces
    }:
        assert USUAL_INTERFACE.fullmatch(interface) or interface in CALICO_INTERFACES or interface not in text
    special = [ip_network(network) for network in (*SPECIAL, *EMBEDDING)]
    originals = addresses(b"\n".join(original_files(pair.source)).decode())
    assert len(originals) > 20
    # An address of the recording can be what another one became, as in any permutation: what stands for itself leaks.
    for address in originals:
        if not any(
            ip_address(address) in network for network in special if network.version == ip_address(address).version
        ):
            assert pair.name(address) != address or address.endswith("0")
    for digest in set(re.findall(r"cali:([A-Za-z0-9_-]{16})", b"\n".join(original_files(pair.source)).decode())):
        assert digest not in text


def keys_of_formats(source: Any) -> set[str]:
    """What nft, ip and Kubernetes call the members of their JSON."""
    found = {*FIELDS, "size", "status", "tool", "files", "nodes"}

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            found.update(value)
        for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(entry)

    for node in source.nodes():
        for file in JSON_FILES:
            if file in source.node(node).files():
                collect(json.loads(source.node(node).read(file)))
    return found


def original_files(source: Any) -> Iterator[bytes]:
    for node in source.nodes():
        evidence = source.node(node)
        yield from (evidence.read(file) for file in evidence.files() if Redactor.takes(file))
    yield from (source.read_cluster(file) for file in source.cluster_files())


def addresses(text: str) -> set[str]:
    found = set(re.findall(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])", text))
    return {address for address in found if all(int(part) < 256 for part in address.split("."))}


def test_there_are_recordings_to_compare() -> None:
    assert {recording.path.name for recording in RECORDINGS} >= {"v3.32.1-nft.tar.xz", "v3.32.1-iptables.tar.xz"}
