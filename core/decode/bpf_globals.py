"""Read-only data of Calico's programs: settings of each interface, and conntrack's timeouts.

Source: felix/bpf-gpl/globals.h of v3.28.0 (also v3.29, v3.30), v3.31.0, v3.32.1 and master of August 2026. Felix stores
them with Go structs of the same layout (felix/bpf/libbpf/libbpf_api.h, struct cali_tc_preamble_globals).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from calico_debug.decode.bpf_structs import Field, Kind, Layout, uint
from calico_debug.model.bpf import TcGlobals, XdpGlobals
from calico_debug.model.bpf_conntrack import CleanupTimeouts
from calico_debug.model.routing import Address

NO_JUMP = 0xFFFFFFFF
"""Felix's mark of an unused jump."""


def _tc(size: int, overlay: bool, tail: tuple[Field, ...], releases: str) -> Layout:
    shift = 4 if overlay else 0
    middle = (uint("overlay_tunnel_id", 76),) if overlay else ()
    return Layout(
        size,
        (
            Field("host_ip", 0, 16, Kind.BYTES),
            Field("interface_ip", 20, 16, Kind.BYTES),
            Field("host_tunnel_ip", 44, 16, Kind.BYTES),
            uint("flags", 60),
            uint("nat_in_ifindex", 68),
            uint("nat_out_ifindex", 72),
            *middle,
            Field("interface", 76 + shift, 16, Kind.TEXT),
            uint("log_filter_jump", 92 + shift),
            Field("jumps", 96 + shift, 160, Kind.UINTS, 4),
            *tail,
        ),
        f"struct cali_tc_global_data, globals.h ({releases})",
    )


_DSCP = (Field("dscp", 260, 1, Kind.INT),)
_MAGLEV = (*_DSCP, Field("istio_dscp", 261, 1, Kind.INT), uint("maglev_table_size", 264))

TC_GLOBALS: tuple[Layout, ...] = (
    _tc(256, False, (), "v3.28 to v3.30"),
    _tc(264, True, _DSCP, "v3.31"),
    _tc(268, True, _MAGLEV, "v3.32"),
    _tc(276, True, (*_MAGLEV, uint("fragment_timeout", 268), uint("host_ifindex", 272)), "master"),
)
"""By their size. A preamble's read-only data is two of them, for IPv4 and IPv6."""

XDP_GLOBALS = Layout(
    80,
    (Field("interface", 0, 16, Kind.TEXT), Field("jumps", 16, 64, Kind.UINTS, 4)),
    "struct cali_xdp_globals, globals.h",
)

TIMEOUTS = Layout(
    64,
    tuple(
        uint(name, 8 * place, 8)
        for place, name in enumerate(
            (
                "creation_grace",
                "tcp_syn_sent",
                "tcp_established",
                "tcp_fins_seen",
                "tcp_reset_seen",
                "udp",
                "generic",
                "icmp",
            )
        )
    ),
    "struct cali_ct_cleanup_globals, globals.h (v3.30 to master)",
)


def decode_tc_globals(data: bytes) -> dict[int, TcGlobals]:
    """Settings by IP version, 4 and 6, from the read-only data of a tc preamble. Raises `ValueError`."""
    layout = next((candidate for candidate in TC_GLOBALS if len(data) == 2 * candidate.size), None)
    if layout is None:
        known = ", ".join(str(2 * candidate.size) for candidate in TC_GLOBALS)
        raise ValueError(f"a preamble's settings have {len(data)} bytes instead of {known}: use a newer calico-debug")
    found = {}
    for place, family in enumerate((4, 6)):
        values = layout.unpack(data[place * layout.size : (place + 1) * layout.size])
        for name in ("host_ip", "interface_ip", "host_tunnel_ip"):
            values[name] = _address(values[name], family)
        values["interface"] = values["interface"].rstrip("-")
        values["jumps"] = _jumps(values["jumps"])
        (values["log_filter_jump"],) = _jumps((values["log_filter_jump"],))
        found[family] = TcGlobals(**values)
    return found


def decode_xdp_globals(data: bytes) -> dict[int, XdpGlobals]:
    """Settings by IP version from the read-only data of an XDP preamble. Raises `ValueError`."""
    if len(data) != 2 * XDP_GLOBALS.size:
        raise ValueError(f"an XDP preamble's settings have {len(data)} bytes instead of {2 * XDP_GLOBALS.size}")
    found = {}
    for place, family in enumerate((4, 6)):
        values = XDP_GLOBALS.unpack(data[place * XDP_GLOBALS.size : (place + 1) * XDP_GLOBALS.size])
        found[family] = XdpGlobals(values["interface"].rstrip("-"), _jumps(values["jumps"]))
    return found


def decode_timeouts(data: bytes) -> CleanupTimeouts:
    """Conntrack's timeouts from the read-only data of ``conntrack_cleanup``. Raises `ValueError`."""
    return CleanupTimeouts(**TIMEOUTS.unpack(data))


def _address(data: bytes, family: int) -> Address:
    return IPv4Address(data[:4]) if family == 4 else IPv6Address(data)


def _jumps(numbers: tuple[int, ...]) -> tuple[int | None, ...]:
    return tuple(None if number == NO_JUMP else number for number in numbers)
