"""Rules as Felix prints them into its policy debug files (felix/proto/felixbackend.proto, message Rule)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from calico_debug.explain.listing.names import protocol_word
from calico_debug.explain.listing.rule_text import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from calico_debug.model.bpf import IpSetMember

_SETS: Final = re.compile(r'\b((?:not_)?(?:src|dst)_(?:named_port_)?(?:ip_set|ip_port_set)_ids):"([^"]+)"')
"""IP sets in a rule as Felix prints it (felix/proto/felixbackend.proto, message Rule)."""
_NOISE: Final = re.compile(r'\s*\b(?:action|rule_id|original_\w+):"(?:[^"\\]|\\.)*"|\s*\bmetadata:\{.*\}\s*$')
"""What the dataplane does not look at: where the rule is from."""


def set_names(text: str) -> Iterator[tuple[str, str]]:
    """The IP sets that a rule names: the side that is looked up, and Felix's id of the set."""
    for field, name in _SETS.findall(text):
        yield _side(field), name


def member_text(member: IpSetMember) -> str:
    """A member in words: a prefix, an address, or an address with protocol and port."""
    if member.protocol:
        return f"{member.prefix.network_address} {protocol_word(member.protocol)} {member.port}"
    whole = member.prefix.prefixlen == member.prefix.max_prefixlen
    return str(member.prefix.network_address if whole else member.prefix)


def programmed_text(text: str) -> str:
    """What a rule matches as Felix prints it, without what says only where it is from; "" when it is not known."""
    return " ".join(_NOISE.sub("", text).split()) or (EVERYTHING if text else "")


def _side(field: str) -> str:
    word = "not " if field.startswith("not_") else ""
    side = "source" if "src_" in field else "destination"
    return f"{word}{side}{' with port' if 'port' in field else ''}"
