"""Bundle files with addresses, names or both replaced; implements `calico_debug.record.recorder.Rewriter`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from calico_debug.decode.json_text import first_wins, parse_json
from calico_debug.errors import EvidenceError
from calico_debug.evidence.manifest import ADDRESSES, NAMES
from calico_debug.explain.attribution import HOST_PROFILE
from calico_debug.intent.convert import convert
from calico_debug.intent.ip_sets import ip_sets, set_number
from calico_debug.intent.model import Direction
from calico_debug.model.cluster import PolicyObject
from calico_debug.policy.chains import IPTABLES_NAME_LIMIT, NFTABLES_NAME_LIMIT, limited_id
from calico_debug.policy.identity import CHAIN_PREFIXES, chain_ids
from calico_debug.policy.rule_ids import renamed_ids
from calico_debug.redact.bpf_node import BpfRedactor, is_taken
from calico_debug.redact.lines import redact_connections, redact_rules, redact_settings, redact_variables
from calico_debug.redact.nft import redact_nft
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.objects import redact_ip, redact_objects, redact_spec
from calico_debug.redact.text import TextRedactor

if TYPE_CHECKING:
    from calico_debug.evidence.source import NodeEvidence
    from calico_debug.model.bpf_objects import MapInfo, RawEntries

KINDS = (ADDRESSES, NAMES)
"""What can be asked to be replaced."""

SAID: Mapping[str, str] = {
    ADDRESSES: "addresses: every IP and MAC address is replaced, keeping which networks hold which addresses",
    NAMES: "names: those of objects, labels, interfaces and ports are replaced, the same name by the same word",
}
"""Sentences for the manifest."""

SELECTORS_SAID = "selectors with contains, starts with or ends with no longer fit the labels they fitted"

PROGRAMS_SAID = (
    "eBPF: in policy programs, constants that are addresses, ids of rules or ids of IP sets are replaced; the tags of "
    "these programs are computed anew, and agree with debug files where they did before"
)

JSON_FILES: Mapping[str, Callable[[Any, TextRedactor], Any]] = {
    "nft-ruleset.json": redact_nft,
    "ip-addr.json": redact_ip,
    "ip-link.json": redact_ip,
    "ip-neigh.json": redact_ip,
    "ip-route-all.json": redact_ip,
    "ip-route.json": redact_ip,
    "ip-rule.json": redact_ip,
    "ip6-route-all.json": redact_ip,
    "ip6-rule.json": redact_ip,
}
TEXT_FILES: Mapping[str, Callable[[str, TextRedactor], str]] = {
    "iptables-save.txt": redact_rules,
    "iptables-legacy-save.txt": redact_rules,
    "ip6tables-save.txt": redact_rules,
    "ip6tables-legacy-save.txt": redact_rules,
    "ipset-save.txt": redact_rules,
    "conntrack.txt": redact_connections,
    "conntrack6.txt": redact_connections,
    "sysctl.txt": redact_settings,
    "felix-env.txt": redact_variables,
}
"""Files of a node whose content is understood well enough to be redacted; others are left out."""


_DIRECTIONS: tuple[Direction, ...] = ("ingress", "egress")


class Redactor:
    """One consistent replacement for all files of a bundle."""

    def __init__(
        self,
        key: bytes,
        kinds: Iterable[str],
        policies: Sequence[PolicyObject] = (),
        nodes: Iterable[str] = (),
        namespaces: Iterable[str] = (),
    ) -> None:
        """``key`` is 16 to 64 bytes that nobody else knows, ``kinds`` are of `KINDS`; ``policies`` are the cluster's,
        whose chains and rules get the names and ids that Felix would give them, as the profiles of ``namespaces`` do.
        The names of policies and of ``nodes`` keep their order.
        """
        self._kinds = frozenset(kinds)
        self._policies, self._namespaces = policies, tuple(namespaces)
        self.numbers = NumberMap(key, names=NAMES in self._kinds)
        self._bpf: dict[str, BpfRedactor] = {}
        chains: dict[bool, dict[str, str]] = {False: {}, True: {}}
        self.text = TextRedactor(key, addresses=ADDRESSES in self._kinds, names=NAMES in self._kinds, chains=chains)
        if NAMES in self._kinds:
            self.text.keep_order([*nodes, *(policy.name for policy in policies)])
            for policy in policies:
                self._add_chains(policy, chains)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is replaced, of `KINDS`."""
        return tuple(kind for kind in KINDS if kind in self._kinds)

    @property
    def said(self) -> tuple[str, ...]:
        """What was done, for the manifest."""
        sentences = tuple(SAID[kind] for kind in self.kinds)
        names = (SELECTORS_SAID,) if NAMES in self._kinds else ()
        return (
            *sentences,
            *names,
            *((PROGRAMS_SAID,) if any(node.has_policies for node in self._bpf.values()) else ()),
        )

    def prepare(self, nodes: Sequence[NodeEvidence]) -> None:
        """Look at the nodes that will be written, before anything is."""
        tags: dict[str, str] = {}
        for evidence in nodes:
            if any(map(is_taken, evidence.files())):
                self._bpf[evidence.name] = BpfRedactor(self.text, self.numbers, tags, evidence)
        for node in self._bpf.values():
            node.prepare()
        if NAMES in self._kinds:
            sets = self._renamed_sets()
            self.text.add_sets(sets)
            if self._bpf:
                self.numbers.add_rules(self._renamed_rules())
                self.numbers.add_sets({set_number(old): set_number(new) for old, new in sets.items()})
        for node in self._bpf.values():
            node.read_tags()

    @staticmethod
    def takes(file: str) -> bool:
        """Whether a node's file can be redacted at all."""
        return file in JSON_FILES or file in TEXT_FILES or is_taken(file)

    def file_name(self, node: str, file: str) -> str:
        """What a node's file is called in the bundle."""
        return self._bpf[node].file_name(file) if node in self._bpf else file

    def entries(self, node: str, info: MapInfo, batches: Iterator[RawEntries]) -> Iterator[RawEntries]:
        """Entries of a node's map. Raises `EvidenceError` for a map that must be left out."""
        return self._bpf[node].entries(info, batches)

    def node_name(self, name: str) -> str:
        """What a node is called in the bundle."""
        return self.text.text(name, is_name=True)

    def node_file(self, node: str, file: str, content: bytes) -> bytes:
        """The content to write. Raises `EvidenceError` for a file that must be left out."""
        if file in JSON_FILES:
            return self._json(content, file, JSON_FILES[file])
        try:
            if node in self._bpf and is_taken(file):
                return self._bpf[node].content(file, content)
            return TEXT_FILES[file](content.decode(), self.text).encode()
        except KeyError:
            raise EvidenceError(f"{file} cannot be redacted by this version") from None
        except UnicodeDecodeError:
            raise EvidenceError(f"{file} cannot be redacted: it is not text") from None
        except EvidenceError as error:
            raise EvidenceError(f"{file} cannot be redacted: {error}") from None

    def cluster_file(self, file: str, content: bytes) -> bytes:
        """The same for a list of cluster objects."""
        return self._json(content, file, redact_objects)

    def message(self, text: str) -> str:
        """An error's text without what was replaced elsewhere."""
        return self.text.known(text)

    def _json(self, content: bytes, file: str, redact: Callable[[Any, TextRedactor], Any]) -> bytes:
        if not content.strip():
            return content
        try:
            # ip repeats keys behind "encap", and its readers take the first.
            document = parse_json(content, file, object_pairs_hook=first_wins)
            return json.dumps(redact(document, self.text)).encode() + b"\n"
        except EvidenceError as error:
            raise EvidenceError(f"{file} cannot be redacted: {error}") from None

    def _add_chains(self, policy: PolicyObject, chains: Mapping[bool, dict[str, str]]) -> None:
        if policy.kind.startswith("Staged"):
            return
        for old, new in zip(chain_ids(policy), chain_ids(self._renamed(policy)), strict=True):
            for prefix in CHAIN_PREFIXES:
                for layered, limit in ((False, IPTABLES_NAME_LIMIT), (True, NFTABLES_NAME_LIMIT)):
                    chains[layered][limited_id(prefix, old, limit)] = limited_id(prefix, new, limit)

    def _renamed_rules(self) -> Mapping[int, int]:
        def pairs(names: Iterable[str]) -> list[tuple[str, str]]:
            return [(name, self.text.text(name, is_name=True)) for name in dict.fromkeys(names)]

        policies = [(policy, self._renamed(policy)) for policy in self._policies]
        tiers = pairs(policy.tier for policy in self._policies if policy.tier)
        profiles = pairs((HOST_PROFILE, *(f"kns.{name}" for name in self._namespaces)))
        return renamed_ids(policies, tiers, profiles)

    def _renamed_sets(self) -> Mapping[str, str]:
        """Felix's ids of the IP sets that policies ask for, which are digests of selectors, made of the new ones."""
        found: dict[str, str] = {}
        for policy in self._policies:
            try:
                renamed = replace(self._renamed(policy), spec=redact_spec(policy.spec, self.text))
            except EvidenceError:
                continue
            before, after = convert(policy), convert(renamed)
            for direction in _DIRECTIONS:
                for old, new in zip(before.rules(direction), after.rules(direction), strict=False):
                    pairs = zip(ip_sets(old), ip_sets(new), strict=False)
                    found.update((one.id, other.id) for one, other in pairs)
        return found

    def _renamed(self, policy: PolicyObject) -> PolicyObject:
        namespace, name, tier = (
            self.text.text(part, is_name=True) for part in (policy.namespace, policy.name, policy.tier)
        )
        return replace(policy, namespace=namespace, name=name, tier=tier)
