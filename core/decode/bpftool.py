"""What bpftool prints as JSON of programs, maps, links and attachments, and the listings that stand beside it.

Source: bpftool 7.1 to 7.5, tools/bpf/bpftool/{prog,map,link,net,cgroup,common}.c of Linux. Dumps of entries are in
`bpftool_dumps`. Damaged files are refused as a whole; single keys that are missing take the type's default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from calico_debug.decode.json_text import parse_objects
from calico_debug.errors import EvidenceError
from calico_debug.model.bpf_objects import Attachment, LinkInfo, MapInfo, ProgramInfo

Decoded = TypeVar("Decoded")

REMEDY = "record the file again with bpftool -j"


def decode_programs(data: bytes, what: str) -> Mapping[int, ProgramInfo]:
    """Programs by id from ``bpftool -j prog show``. Raises `EvidenceError` naming ``what``."""
    return {program.id: program for program in _each(_program, parse_objects(data, what), what)}


def decode_maps(data: bytes, what: str) -> Mapping[int, MapInfo]:
    """Maps by id from ``bpftool -j map show``. Raises `EvidenceError` naming ``what``."""
    return {info.id: info for info in _each(_map, parse_objects(data, what), what)}


def decode_links(data: bytes, what: str) -> Mapping[int, LinkInfo]:
    """Links by id from ``bpftool -j link show``. Raises `EvidenceError` naming ``what``."""
    return {link.id: link for link in _each(_link, parse_objects(data, what), what)}


def decode_net(data: bytes, what: str) -> Sequence[Attachment]:
    """XDP and tc programs from ``bpftool -j net show``; tcx where the version shows it. Raises `EvidenceError`."""
    found: list[Attachment] = []
    for document in parse_objects(data, what):
        for section, decode in (("xdp", _xdp), ("tc", _tc)):
            entries = document.get(section) or []
            if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
                raise EvidenceError(f"{what}: its part {section!r} is no list of objects; {REMEDY}")
            found.extend(_numbered(_each(decode, entries, what)))
    return found


def decode_tcx(data: bytes, what: str) -> Sequence[Attachment]:
    """Programs from ``tcx-query.json``: BPF_PROG_QUERY's program and link ids by interface and hook, in the order in
    which the kernel runs them. Raises `EvidenceError`.
    """
    found: list[Attachment] = []
    for entries in _each(_tcx, parse_objects(data, what), what):
        found.extend(entries)
    return found


def decode_cgroups(data: bytes, what: str) -> Sequence[Attachment]:
    """Programs from ``bpftool -j cgroup tree``. Raises `EvidenceError`."""
    found: list[Attachment] = []
    for entries in _each(_cgroup, parse_objects(data, what), what):
        found.extend(entries)
    return found


def decode_pins(data: bytes) -> Sequence[str]:
    """Paths from ``find /sys/fs/bpf``."""
    return [line for line in data.decode("utf-8", "surrogateescape").splitlines() if line.startswith("/")]


def _each(decode: Callable[[Mapping[str, Any]], Decoded], entries: Sequence[Any], what: str) -> list[Decoded]:
    found = []
    for entry in entries:
        try:
            found.append(decode(entry))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            shown = str(dict(entry))
            shown = shown if len(shown) <= 120 else shown[:117] + "..."
            raise EvidenceError(f"{what}: cannot decode {shown}: {reason}; {REMEDY}") from error
    return found


def _program(entry: Mapping[str, Any]) -> ProgramInfo:
    loaded = entry.get("loaded_at")
    return ProgramInfo(
        id=int(entry["id"]),
        name=str(entry.get("name", "")),
        type=str(entry.get("type", "")),
        tag=str(entry.get("tag", "")),
        map_ids=tuple(int(number) for number in entry.get("map_ids", ())),
        loaded_at=int(loaded) if loaded is not None else None,
        instructions_size=int(entry.get("bytes_xlated", 0)),
        pinned=_pins(entry),
    )


def _map(entry: Mapping[str, Any]) -> MapInfo:
    return MapInfo(
        id=int(entry["id"]),
        name=str(entry.get("name", "")),
        type=str(entry["type"]),
        key_size=int(entry["bytes_key"]),
        value_size=int(entry["bytes_value"]),
        max_entries=int(entry.get("max_entries", 0)),
        flags=int(entry.get("flags", 0)),
        frozen=bool(entry.get("frozen", 0)),
        pinned=_pins(entry),
    )


def _link(entry: Mapping[str, Any]) -> LinkInfo:
    kind = entry.get("type", "")
    ifindex = entry.get("ifindex")
    return LinkInfo(
        id=int(entry["id"]),
        # bpftool prints a type that it has no word for as a number.
        type=f"type {kind}" if isinstance(kind, int) else str(kind),
        program_id=int(entry.get("prog_id", 0)),
        ifindex=int(ifindex) if ifindex is not None else None,
        attach_type=str(entry.get("attach_type", "")),
        pinned=_pins(entry),
    )


def _pins(entry: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(path) for path in entry.get("pinned", ()))


def _xdp(entry: Mapping[str, Any]) -> Attachment:
    # "multi_attachments" are XDP programs of several modes at one device; Felix attaches in one.
    return Attachment(
        "xdp",
        "ingress",
        int(entry["id"]),
        str(entry["devname"]),
        int(entry["ifindex"]),
        name=str(entry.get("name", "")),
        mode=str(entry.get("mode", "")),
    )


NETKIT_HOOKS: Mapping[str, str] = {"peer": "ingress", "primary": "egress"}
"""Attach types of a netkit device as tc hooks: what the peer, the pod's end, sends enters the host
(felix/bpf/tc/attach.go of master, attachNetkitProgram).
"""


def _hook(text: str) -> tuple[str, str]:
    """Mechanism and hook of "tcx/ingress", "netkit/peer", …"""
    mechanism, _, hook = text.partition("/")
    return mechanism, NETKIT_HOOKS.get(hook, hook) if mechanism == "netkit" else hook


def _tc(entry: Mapping[str, Any]) -> Attachment:
    mechanism, hook = _hook(str(entry["kind"]))
    # clsact: "id" is the program's (net.c, dump_filter_idx); tcx and netkit: "prog_id" (net.c, show_dev_tc_bpf).
    program = entry["prog_id"] if "prog_id" in entry else entry["id"]
    link = entry.get("link_id")
    return Attachment(
        mechanism,
        hook,
        int(program),
        str(entry["devname"]),
        int(entry["ifindex"]),
        int(link) if link is not None else None,
        str(entry.get("name", "")),
    )


def _tcx(entry: Mapping[str, Any]) -> list[Attachment]:
    mechanism, hook = _hook(str(entry["hook"]))
    links = list(entry.get("link_ids", ()))
    return [
        Attachment(
            mechanism,
            hook,
            int(program),
            str(entry.get("ifname", "")),
            int(entry["ifindex"]),
            # A program attached without a link has link id 0 (kernel/bpf/mprog.c, bpf_mprog_query).
            (int(links[place]) or None) if place < len(links) else None,
            position=place,
        )
        for place, program in enumerate(entry["prog_ids"])
    ]


def _cgroup(entry: Mapping[str, Any]) -> list[Attachment]:
    path = str(entry.get("cgroup", ""))
    return _numbered(
        Attachment(
            "cgroup",
            # "cgroup_inet4_connect" of newer versions is "connect4" of older ones (libbpf_bpf_attach_type_str).
            CGROUP_HOOKS.get(str(program["attach_type"]), str(program["attach_type"])),
            int(program["id"]),
            name=str(program.get("name", "")),
            place=path,
        )
        for program in entry.get("programs", ())
    )


CGROUP_HOOKS: Mapping[str, str] = {
    f"cgroup_{'udp' if call in ('sendmsg', 'recvmsg') else 'inet'}{family}_{call}": f"{call}{family}"
    for call in ("connect", "sendmsg", "recvmsg", "bind", "getpeername", "getsockname")
    for family in (4, 6)
}


def _numbered(attachments: Any) -> list[Attachment]:
    """Positions of programs at the same place and hook, in their order."""
    seen: dict[tuple[str, str, int, str], int] = {}
    found = []
    for one in attachments:
        place = (one.mechanism, one.hook, one.ifindex, one.place)
        position = seen.get(place, 0)
        seen[place] = position + 1
        found.append(replace(one, position=position))
    return found
