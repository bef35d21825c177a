"""A kernel's maps as dumps in a bundle hold them; lookups answer as the kernel would."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from calico_debug.decode.bpftool_dumps import decode_dump
from calico_debug.errors import EvidenceError, MissingEvidence
from calico_debug.evidence.source import NodeEvidence
from calico_debug.model.bpf_objects import MapInfo, RawEntries

FOLDER = "bpf/"

LPM_TRIE = "lpm_trie"
PREFIX_LENGTH = 4
"""Bytes of the prefix length in front of an lpm_trie's key (struct bpf_lpm_trie_key)."""


class RecordedMaps:
    """Implements `KernelMaps` over ``bpf/map-<name>.json`` and ``bpf/rodata-<id>.json``. A dump is read when it is
    first asked for, and kept once something was looked up in it.
    """

    def __init__(self, evidence: NodeEvidence) -> None:
        """Nothing is read yet."""
        self._evidence = evidence
        self._files: dict[int, str] = {}
        self._tables: dict[str, Mapping[bytes, bytes]] = {}
        self._tries: dict[str, Mapping[int, Mapping[int, bytes]]] = {}

    def file_of(self, info: MapInfo) -> str:
        """The dump of a map: by its id where there is one, else by its name. Raises `MissingEvidence`."""
        if info.id not in self._files:
            self._files[info.id] = self._find_file(info)
        return self._files[info.id]

    def _find_file(self, info: MapInfo) -> str:
        names = (f"{FOLDER}map-{info.id}.json", f"{FOLDER}rodata-{info.id}.json", f"{FOLDER}map-{info.name}.json")
        files = self._evidence.files()
        for name in names:
            if name in files:
                return name
        raise MissingEvidence(
            f"map {info.name} (id {info.id}) of {self._evidence.origin} is not recorded: write {names[-1]} with "
            f"`bpftool -j map dump id {info.id}`"
        )

    def lookup(self, info: MapInfo, key: bytes) -> bytes | None:
        """See `KernelMaps`."""
        if len(key) != info.key_size:
            raise EvidenceError(
                f"a key of {len(key)} bytes does not fit map {info.name}, whose keys have {info.key_size}"
            )
        if info.type == LPM_TRIE:
            return self._longest_match(info, key)
        return self._table(info).get(key)

    def batches(self, info: MapInfo) -> Iterator[RawEntries]:
        """See `KernelMaps`."""
        file = self.file_of(info)
        return decode_dump(self._evidence.read(file), info, f"{file} of {self._evidence.origin}")

    def close(self) -> None:
        """See `KernelMaps`. Nothing is held."""

    def _table(self, info: MapInfo) -> Mapping[bytes, bytes]:
        file = self.file_of(info)
        if file not in self._tables:
            self._tables[file] = dict(chain.from_iterable(_pairs(batch, info) for batch in self.batches(info)))
        return self._tables[file]

    def _longest_match(self, info: MapInfo, key: bytes) -> bytes | None:
        wanted = int.from_bytes(key[:PREFIX_LENGTH], "little")
        data, bits = int.from_bytes(key[PREFIX_LENGTH:], "big"), (len(key) - PREFIX_LENGTH) * 8
        trie = self._trie(info)
        for length in sorted(trie, reverse=True):
            if length <= wanted:
                found = trie[length].get(data >> (bits - length))
                if found is not None:
                    return found
        return None

    def _trie(self, info: MapInfo) -> Mapping[int, Mapping[int, bytes]]:
        file = self.file_of(info)
        if file not in self._tries:
            bits = (info.key_size - PREFIX_LENGTH) * 8
            trie: dict[int, dict[int, bytes]] = {}
            for key, value in self._table(info).items():
                length = int.from_bytes(key[:PREFIX_LENGTH], "little")
                if length > bits:
                    raise EvidenceError(
                        f"{file} of {self._evidence.origin} holds a prefix of {length} bits in a key of {bits}: the "
                        "file is damaged; record it again"
                    )
                trie.setdefault(length, {})[int.from_bytes(key[PREFIX_LENGTH:], "big") >> (bits - length)] = value
            self._tries[file] = trie
        return self._tries[file]


def _pairs(batch: RawEntries, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    size, stride = info.key_size, info.value_stride * batch.cpus
    for place in range(batch.count):
        yield batch.keys[place * size : (place + 1) * size], batch.values[place * stride : (place + 1) * stride]
