"""Every map of Calico v3.28 to master, and the choice of a layout for a map found on a node."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from calico_debug.decode import (
    bpf_layouts_conntrack,
    bpf_layouts_nat,
    bpf_layouts_network,
    bpf_layouts_node,
)
from calico_debug.decode.bpf_layout_types import MapLayout, Role
from calico_debug.model.bpf_objects import MapInfo

LAYOUTS: tuple[MapLayout, ...] = (
    *bpf_layouts_conntrack.MAPS,
    *bpf_layouts_nat.MAPS,
    *bpf_layouts_network.MAPS,
    *bpf_layouts_node.MAPS,
)


def _by_name() -> Mapping[str, tuple[MapLayout, ...]]:
    found: dict[str, tuple[MapLayout, ...]] = {}
    for layout in LAYOUTS:
        found[layout.name] = (*found.get(layout.name, ()), layout)
    return found


BY_NAME: Mapping[str, tuple[MapLayout, ...]] = _by_name()
"""Layouts by the map's full name; several where a map's values grew without a new version."""

_BASES: Mapping[str, MapLayout] = {layout.base: layout for layout in LAYOUTS}

VERSIONED = re.compile(r"(.+?)(\d*)")

CALICO_PREFIXES = ("cali_", "xdp_cali_")


def identify(name: str) -> tuple[Role, int, int] | None:
    """Role, family and version of a map by its name, also of versions unknown here; None when it is not Calico's."""
    if name in BY_NAME:
        layout = BY_NAME[name][0]
        return layout.role, layout.family, layout.version
    match = VERSIONED.fullmatch(name)
    base = _BASES.get(match[1]) if match else None
    if match is None or base is None:
        return None
    return base.role, base.family, int(match[2] or 0)


def versions(role: Role, family: int) -> Sequence[MapLayout]:
    """Every layout of a role, oldest first."""
    return sorted((x for x in LAYOUTS if x.role is role and x.family == family), key=lambda x: x.version)


def is_calico(name: str) -> bool:
    """Whether a map is one of Calico's shared maps, known or not; programs' own ``.rodata`` are not."""
    return name.startswith(CALICO_PREFIXES) and ".rodata" not in name and ".bss" not in name


def find_layout(info: MapInfo) -> MapLayout | str:
    """The layout of a map, or why there is none, as the end of a sentence that starts with the map's name."""
    known = BY_NAME.get(info.name, ())
    for layout in known:
        if (layout.key.size, layout.value.size) == (info.key_size, info.value_size):
            return layout
    found = f"has keys of {info.key_size} and values of {info.value_size} bytes"
    if known:
        expected = " or ".join(f"{layout.key.size} and {layout.value.size} ({layout.releases})" for layout in known)
        return f"{found} instead of {expected}: another release made it; use a newer calico-debug"
    place = identify(info.name)
    if place is not None:
        role, family, version = place
        names = ", ".join(dict.fromkeys(layout.name for layout in versions(role, family)))
        return f"is version {version} of a map of which {names} are known: use a newer calico-debug"
    return f"{found} and is not known: use a newer calico-debug if it is Calico's"
