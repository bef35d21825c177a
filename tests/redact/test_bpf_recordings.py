"""Redacted recordings of eBPF nodes: listings, and what proves that debug files tell of the loaded programs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address
from typing import Any

import pytest

from calico_debug.decode.bpf_instructions import fingerprint, from_xlated, tags
from calico_debug.decode.policy_debug import decode_policy_debug
from calico_debug.evidence.source import NodeEvidence
from calico_debug.explain.listing.node import NodeListings
from calico_debug.explain.listing.rule_text import EVERYTHING
from calico_debug.redact.bpf_comments import CommentRedactor
from calico_debug.redact.redactor import KINDS
from calico_debug.state.node import POLICY_DEBUG_FOLDER
from tests.bytecode.recorded import RECORDED
from tests.record.test_bpf_recordings import DEBUG_FILES, AskedCluster
from tests.record.worlds import every_listing
from tests.recordings import Recording
from tests.redact.test_recordings import questions
from tests.redact.worlds import Asked, Redacted, without_sentences

pytestmark = pytest.mark.slow

_NAMED = "ip pod service node member members prefix nextHop interface place clients tunnel tier name namespace"
NAMED = frozenset(_NAMED.split())
"""Members of listings' documents that hold names and addresses."""
_DUMP = re.compile(r"bpf/xlated-(\d+)-")


@cache
def redacted(recording: Recording) -> Redacted:
    return Redacted(recording.source, KINDS)


class Mapped:
    """Documents of a node as they should be afterwards."""

    def __init__(self, pair: Redacted, node: str) -> None:
        self._pair = pair
        self._names = {
            found[1]: pair.redactor.file_name(node, file).removeprefix(found[0]).removesuffix(".json")
            for file in pair.source.node(node).files()
            if (found := re.match(r"bpf/xlated-(\d+)-", file))
        }
        self._comments = CommentRedactor(pair.redactor.text, pair.redactor.numbers)

    def value(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: self.value(member, name) for name, member in value.items() if name != "text"}
        if isinstance(value, list):
            return [self.value(entry, key) for entry in value]
        return self._text(value, key) if isinstance(value, str) else value

    def _text(self, text: str, key: str) -> str:
        redactor = self._pair.redactor
        if found := re.match(r"program (\d+)(.*)", text):
            return f"program {found[1]}{found[2] and f' ({self._names[found[1]]})'}" if "(" in text else text
        if key == "ruleId":
            return f"{redactor.numbers.rule(int(text, 16)):016x}"
        if key == "programmed" and text != EVERYTHING:
            start = "Start of rule x "
            return self._comments.comment(f"{start}{text}").split(" ", 4)[4]
        if key in ("set", "id"):
            found = re.fullmatch(r"(?:(0x[0-9a-f]+))?(?: \()?([a-z]+:[\w-]+)?\)?", text)
            assert found, text
            number = f"{redactor.numbers.ip_set(int(found[1], 16)):#x}" if found[1] else ""
            name = redactor.text.set_name(found[2]) if found[2] else ""
            return f"{number} ({name})" if number and name else number or name
        is_program = key == "name" and re.match(r"cali|conntrack", text)
        return self._pair.name(text) if key in NAMED and not is_program else text


def documents(source: Any, node: str) -> dict[str, list[Any]]:
    listings = NodeListings(source, node)
    found = every_listing(listings)
    found["policies"] = [view.to_dict() for view in listings.policies()]
    found["findings"] = [{"code": finding.code, "severity": finding.severity} for finding in listings.findings]
    return found


def without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_texts(member) for name, member in value.items() if name != "text"}
    return [without_texts(entry) for entry in value] if isinstance(value, list) else value


def counted(rows: list[Any]) -> Counter[str]:
    return Counter(json.dumps(row, sort_keys=True) for row in rows)


@RECORDED
def test_the_same_is_listed(recording: Recording) -> None:
    pair = redacted(recording)
    for node in pair.source.nodes():
        mapped = Mapped(pair, node)
        before, after = documents(pair.source, node), documents(pair.bundle, pair.redactor.node_name(node))
        assert before["policies"]
        assert before["conntrack"]
        assert after.keys() == before.keys()
        for listing, rows in before.items():
            expected, found = counted(mapped.value(rows)), counted(without_texts(after[listing]))
            assert found == expected, (listing, next(iter(expected - found), ""), next(iter(found - expected), ""))


def proofs(evidence: NodeEvidence) -> Iterator[tuple[list[bool], list[bool]]]:
    """Of each debug file, by its parts: whether its tag is a loaded program's, and its numbers are those of a dump."""
    loaded = {entry["tag"] for entry in json.loads(evidence.read("bpf/prog-show.json"))}
    dumped = {
        fingerprint(from_xlated(json.loads(evidence.read(file))).instructions)
        for file in evidence.files()
        if _DUMP.match(file)
    }
    for file in evidence.files():
        if file.startswith(POLICY_DEBUG_FOLDER):
            codes = [part.instructions for part in decode_policy_debug(evidence.read(file), file).programs]
            yield [bool(tags(code) & loaded) for code in codes], [fingerprint(code) in dumped for code in codes]


@RECORDED
def test_debug_files_agree_with_programs_as_they_did(recording: Recording) -> None:
    pair = redacted(recording)
    for node in pair.source.nodes():
        before = sorted(proofs(pair.source.node(node)))
        assert any(any(by_tag) for by_tag, _ in before)
        assert sorted(proofs(pair.bundle.node(pair.redactor.node_name(node)))) == before


@pytest.mark.parametrize("hidden", ["nothing", DEBUG_FILES.pattern], ids=["with debug files", "without"])
@RECORDED
def test_a_live_node_is_redacted_while_it_is_read(recording: Recording, hidden: str) -> None:
    live = AskedCluster(recording, hidden)
    pair = Redacted(live, KINDS)
    assert pair.bundle.manifest.replaced == KINDS
    before, after = Asked(live), Asked(pair.bundle)
    compared = 0
    for question in questions(recording):
        if not str(question["destination"]).startswith("svc/"):
            new = {key: text and pair.name(text) for key, text in question.items() if key != "protocol"}
            found = after.explain(**new, protocol=question["protocol"])
            assert without_sentences(found) == pair.mapped(before.explain(**question)), question
            compared += 1
    assert compared > 50


def binaries(files: dict[str, bytes]) -> Iterator[bytes]:
    """The bytes that JSON files spell: entries of maps, instructions, immediates."""
    for path, data in files.items():
        if "/bpf/" in path or POLICY_DEBUG_FOLDER in path:
            for octets in re.findall(rb'\["0x[^\]]*\]', data):
                yield bytes.fromhex(re.sub(rb"[^0-9a-f]", b"", octets.replace(b"0x", b"")).decode())
            for octets in re.findall(rb'"inst": \[([\d, ]*)\]', data):
                yield bytes(map(int, octets.split(b",")))


@RECORDED
def test_no_address_is_left_as_bytes(recording: Recording) -> None:
    pair = redacted(recording)
    addresses = pair.redactor.text.addresses
    assert addresses is not None
    cluster = b"".join(pair.source.read_cluster(file) for file in pair.source.cluster_files()).decode()
    texts = set(re.findall(r"(?<![\d.])\d+(?:\.\d+){3}(?![\d.])|fd00:[0-9a-f:]+", cluster))
    originals = {ip_address(text) for text in texts}
    images = {addresses.address(one) for one in originals}
    secrets = [one.packed for one in originals - images if not one.packed.endswith(b"\0")]
    assert len(secrets) > 15
    haystack = b"|".join(binaries(pair.files))
    assert len(haystack) > 100_000
    kept = {
        file: pair.source.node(node).read(file)
        for node in pair.source.nodes()
        for file in pair.source.node(node).files()
    }
    before = b"|".join(binaries({f"/{file}": data for file, data in kept.items()}))
    assert any(secret in before for secret in secrets)
    for secret in secrets:
        assert secret not in haystack, secret
        assert secret[::-1] not in haystack, secret
