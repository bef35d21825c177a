"""When a policy was last changed, as far as its object tells.

The API server counts changes of an object's ``spec`` in ``metadata.generation``; who wrote which fields when is in
``metadata.managedFields``, which kubectl prints only with --show-managed-fields. Source: Kubernetes API conventions,
"Metadata", and server-side apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from calico_debug.decode.json_text import parse_json
from calico_debug.decode.kubernetes import metadata
from calico_debug.decode.policies import POLICY_SOURCES, PolicySource
from calico_debug.errors import EvidenceError

if TYPE_CHECKING:
    from calico_debug.evidence.source import EvidenceSource
    from calico_debug.model.explanation import PolicyRef


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What is known of a policy's last change; times are RFC 3339 as the object has them, "" when it does not.

    ``written`` is the latest time at which someone's fields of the spec changed. Only with ``exact`` is a time known to
    be that of the last change: a spec of generation 1 is as it was created.
    """

    created: str = ""
    generation: int | None = None
    written: str = ""

    @property
    def exact(self) -> bool:
        """Whether the time of the last change is known, and not just a hint."""
        return self.generation == 1 and bool(self.created)

    @property
    def words(self) -> str:
        """One clause for people."""
        if self.exact:
            return f"created {self.created} and not changed since"
        if self.written:
            return f"last written {self.written} (managedFields: a hint, no proof), created {self.created or '?'}"
        if self.generation is not None and self.created:
            return f"created {self.created} and changed since (generation {self.generation}), when is not in evidence"
        return f"created {self.created}; whether it changed since is not in evidence" if self.created else "not known"


class PolicyChanges:
    """Looks policies' objects up, each list read once."""

    def __init__(self, source: EvidenceSource) -> None:
        """Nothing is read yet."""
        self._source = source
        self._lists: dict[PolicySource, Mapping[tuple[str, str], PolicyChange]] = {}

    def of(self, policy: PolicyRef | None) -> PolicyChange | None:
        """What is known of a policy, None when its object is not in evidence."""
        for source in POLICY_SOURCES:
            if policy is not None and source.kind == policy.kind:
                if source not in self._lists:
                    self._lists[source] = self._read(source)
                return self._lists[source].get((policy.namespace, policy.name))
        return None

    def _read(self, source: PolicySource) -> Mapping[tuple[str, str], PolicyChange]:
        present = set(self._source.cluster_files())
        file = next((file for file in source.files if file in present), None)
        if file is None:
            return {}
        try:
            document = parse_json(self._source.read_cluster(file), f"cluster/{file} of {self._source.origin}")
        except EvidenceError:
            # The policies themselves could not be read either, which is said where they are asked for.
            return {}
        items = document.get("items") if isinstance(document, dict) else None
        found = {}
        for item in items if isinstance(items, list) else ():
            try:
                meta = metadata(item)
                found[str(meta.get("namespace") or ""), str(meta["name"])] = _change(meta)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
        return found


def _change(meta: Mapping[str, Any]) -> PolicyChange:
    generation = meta.get("generation")
    managed = meta.get("managedFields")
    times = [
        one["time"]
        for one in (managed if isinstance(managed, list) else ())
        if isinstance(one, dict) and isinstance(one.get("time"), str) and "f:spec" in (one.get("fieldsV1") or {})
    ]
    return PolicyChange(
        str(meta.get("creationTimestamp") or ""),
        generation if isinstance(generation, int) and not isinstance(generation, bool) else None,
        max(times, default=""),
    )
