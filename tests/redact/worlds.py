"""A source, what redaction makes of it, and their explanations in a form in which they are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from calico_debug.errors import CalicoDebugError
from calico_debug.evidence.bundle import Bundle
from calico_debug.explain.document import to_document
from calico_debug.explain.engine import Engine
from calico_debug.record.recorder import Recorder
from calico_debug.redact.redactor import Redactor
from calico_debug.state.cluster import load_cluster
from calico_debug.state.resolve import Resolver
from tests.record.worlds import MemorySink, quiet_world

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource

KEY = bytes(range(32))

FREE_TEXT = frozenset({"detail", "message", "at", "origin"})
"""Sentences, in which names stand between words of our own."""


OURS = frozenset(
    {
        "apiVersion",
        "kind",
        "verdict",
        "dataplane",
        "direction",
        "reason",
        "action",
        "code",
        "severity",
        "stage",
        "protocol",
    }
)
"""Fields whose values are words of docs/json.md."""


class MemoryFiles:
    """A bundle's files in memory; implements `calico_debug.evidence.bundle.BundleFiles`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files

    def names(self, directory: str) -> Sequence[str]:
        prefix = f"{directory}/" if directory else ""
        return sorted(name.removeprefix(prefix) for name in self.files if name.startswith(prefix))

    def directories(self, directory: str) -> Sequence[str]:
        return sorted({name.partition("/")[0] for name in self.names(directory) if "/" in name})

    def read(self, name: str) -> bytes | None:
        return self.files.get(name)


class Redacted:
    """A source, and what redaction makes of it."""

    def __init__(self, source: EvidenceSource, kinds: Sequence[str]) -> None:
        self.source = source
        cluster = load_cluster(self.source)
        self.redactor = Redactor(KEY, kinds, cluster.policies(), source.nodes(), cluster.namespaces)
        sink = MemorySink()
        recorder = Recorder(self.source, sink, quiet_world(), "calico-debug test", rewriter=self.redactor)
        self.account = recorder.record(self.source.nodes())
        self.files = sink.files
        self.bundle = Bundle("redacted", MemoryFiles(sink.files))

    def name(self, text: str) -> str:
        return self.redactor.text.text(text, is_name=True)

    def mapped(self, value: Any, key: str = "") -> Any:
        """An explanation as the redacted bundle should give it, without its sentences."""
        if isinstance(value, dict):
            return {k: self.mapped(v, k) for k, v in value.items() if k not in FREE_TEXT}
        if isinstance(value, list):
            return [self.mapped(entry, key) for entry in value]
        if key == "ruleId" and value:
            return f"{self.redactor.numbers.rule(int(value, 16)):016x}"
        return self.name(value) if isinstance(value, str) and key not in OURS else value


def without_sentences(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_sentences(entry) for key, entry in value.items() if key not in FREE_TEXT}
    return [without_sentences(entry) for entry in value] if isinstance(value, list) else value


class Asked:
    def __init__(self, source: Any) -> None:
        self.engine = Engine(source)
        self.resolver = Resolver(self.engine.cluster, self.engine.states)

    def explain(self, source: str, destination: str, protocol: str | None, via: str | None = None) -> Any:
        try:
            flow = self.resolver.resolve(source, destination, protocol=protocol, via=via)
            return to_document(self.engine.explain(flow))
        except CalicoDebugError as error:
            return {"error": type(error).__name__}
