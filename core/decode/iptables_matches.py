"""Every match of iptables that is understood; any other one becomes an `UnknownStatement` that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calico_debug.decode.iptables_header_matches import HEADER_MATCHES
from calico_debug.decode.iptables_recent import RECENT
from calico_debug.decode.iptables_state_matches import STATE_MATCHES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calico_debug.decode.iptables_extensions import Extension

MATCHES: Mapping[str, Extension] = {**HEADER_MATCHES, **STATE_MATCHES, "recent": RECENT}
"""By the name behind ``-m``."""
