"""Listings of programs, maps, links and attachments (``bpftool -j … show``, ``tcx-query.json``, ``pins.txt``).

Calico's own programs and maps keep their names, everybody else's are replaced. Members that nothing is told from are
left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from calico_debug.decode.bpf_layouts import identify
from calico_debug.redact.bpf_vocabulary import PLACES, PROGRAM_WORDS, VERBATIM
from calico_debug.redact.numbers import NumberMap
from calico_debug.redact.text import TextRedactor

POLICY_PROGRAM: Final = re.compile(r"(p(?P<family>[46])[EIx]_)(?P<interface>.*?)(_\d{1,2})?")
"""felix/dataplane/linux/bpf_ep_mgr.go, policyProgramName; parts of a policy that was split have a number behind."""

NAME_LENGTH: Final = 15
"""Characters of a program's name that the kernel keeps."""

_INTERFACE: Final = re.compile(r"cali[0-9a-f]{0,11}")
_SETTINGS: Final = re.compile(
    r"(?:tc_pream|xdp_prea|conntrac|connect_)\.(?:rodata|bss|data)|\.rodata(?:\.str1\.1|\.cali_de)?"
)
"""Names of the maps that hold settings of Calico's programs: of 15 characters, as libbpf makes them."""

_SECTION: Final = re.compile(r"(.*?)(\.(?:rodata|bss|data).*)?")
_HOOK: Final = re.compile(r"(.*)(_ingress|_egress)")

_PROGRAM: Final = """
    id type tag gpl_compatible loaded_at uid orphaned bytes_xlated jited bytes_jited bytes_memlock map_ids btf_id
    run_time_ns run_cnt recursion_misses name pinned
"""
_MAP: Final = """
    id type flags bytes_key bytes_value max_entries bytes_memlock frozen btf_id owner_prog_type owner_jited ifindex
    name pinned
"""
_LINK: Final = "id type prog_id prog_type attach_type ifindex cgroup_id pinned"
_NET: Final = "xdp tc devname ifindex mode id prog_id link_id kind name prog_flags link_flags"
_TCX: Final = "ifindex ifname hook prog_ids prog_flags link_ids"
_CGROUP: Final = "cgroup programs id attach_type attach_flags name"

_WORDS: Final = re.compile(r"[a-z0-9_/ -]*")
"""What the kernel's own words are made of."""


class ListingRedactor:
    """Changes listings of one node."""

    def __init__(
        self, text: TextRedactor, numbers: NumberMap, tags: Mapping[str, str], interfaces: Mapping[str, str]
    ) -> None:
        """``tags`` are those of policy programs with what they become. ``interfaces`` are the node's interfaces with
        what they become.
        """
        self._text = text
        self._numbers = numbers
        self._tags = tags
        self._interfaces = interfaces

    def listing(self, file: str, document: Any) -> Any:
        """A document of `FILES`."""
        kept = frozenset(FILES[file].split())
        return self._value(document, "", kept)

    def pins(self, data: str) -> str:
        """``pins.txt``."""
        return "".join(f"{self.path(line)}\n" for line in data.splitlines())

    def program(self, name: str) -> str:
        """A program's name."""
        found = POLICY_PROGRAM.fullmatch(name)
        if not self._text.names:
            return name
        if found is not None:
            return f"{found[1]}{self._truncated(found['interface'])}{found[4] or ''}"
        return name if self._is_fixed(name) else self._name(name)

    def map(self, name: str) -> str:
        """A map's name."""
        bare = name.removesuffix("_old")
        if not self._text.names or identify(bare) is not None or _SETTINGS.fullmatch(name):
            return name
        found = _SECTION.fullmatch(name)
        before, behind = (found[1], found[2] or "") if found else (name, "")
        behind = behind if behind in (".rodata", ".bss", ".data") else self._name(behind)
        return f"{self._name(before)}{behind}"

    def path(self, path: str) -> str:
        """A path in the BPF file system or of a cgroup."""
        return "/".join(map(self._component, path.split("/"))) if self._text.names else self._text.text(path)

    # ------------------------------------------------------------------------------------------------------ internals

    @staticmethod
    def _is_fixed(name: str) -> bool:
        """Whether a program is one of those that Calico's image holds."""
        *before, last = name.split("_")
        cut = len(name) == NAME_LENGTH and any(word.startswith(last) for word in PROGRAM_WORDS)
        return PROGRAM_WORDS.issuperset(before) and (last in PROGRAM_WORDS or cut)

    def _component(self, name: str) -> str:
        if name in PLACES:
            return name
        found = _HOOK.fullmatch(name)
        if found is not None and (new := self._pinned_interface(found[1])):
            return f"{new}{found[2]}"
        mapped = self.map(name)
        return mapped if mapped == name else self.program(name)

    def _pinned_interface(self, name: str) -> str:
        """An interface as pins spell it: without dots (felix/bpf/tc/attach.go)."""
        for old, new in self._interfaces.items():
            if name == old.replace(".", ""):
                return new.replace(".", "")
        return ""

    def _truncated(self, name: str) -> str:
        """An interface's name of which a program's has only the beginning."""
        if name in self._interfaces:
            return self._interfaces[name]
        if _INTERFACE.fullmatch(name):
            return self._text.interface_start(name)
        whole = next((old for old in sorted(self._interfaces) if name and old.startswith(name)), None)
        return self._interfaces[whole][: len(name)] if whole is not None else self._name(name)

    def _name(self, name: str) -> str:
        return self._text.text(name, is_name=True)

    def _value(self, value: Any, key: str, kept: frozenset[str]) -> Any:
        if isinstance(value, list):
            return [self._value(entry, key, kept) for entry in value]
        if isinstance(value, dict):
            return {name: self._member(name, entry, value, kept) for name, entry in value.items() if name in kept}
        if not isinstance(value, str):
            return value
        if key in ("pinned", "cgroup"):
            return self.path(value)
        if key in VERBATIM and _WORDS.fullmatch(value):
            return value
        return self._name(value)

    def _member(self, key: str, entry: Any, whole: Mapping[str, Any], kept: frozenset[str]) -> Any:
        if key == "name":
            return (self.map if "bytes_key" in whole else self.program)(str(entry))
        if key == "tag":
            return self._tag(str(entry), str(whole.get("name", "")))
        return self._value(entry, key, kept)

    def _tag(self, tag: str, name: str) -> str:
        """Tags of Calico's fixed programs tell only the release."""
        return tag if self._is_fixed(name) else self._tags.get(tag) or self._numbers.tag(tag)


FILES: Final[Mapping[str, str]] = {
    "bpf/prog-show.json": _PROGRAM,
    "bpf/map-show.json": _MAP,
    "bpf/link-show.json": _LINK,
    "bpf/net-show.json": _NET,
    "bpf/tcx-query.json": _TCX,
    "bpf/cgroup-tree.json": _CGROUP,
}
"""Listings and the members that are kept in them."""
