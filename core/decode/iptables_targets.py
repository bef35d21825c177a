"""Targets of iptables rules as the statements that do the same. A table of options, and a function per target.

Semantics: Linux net/netfilter/xt_*.c, net/ipv4/netfilter/ipt_REJECT.c. Options: iptables-extensions(8) and the save
functions of iptables 1.8.9. What is not understood raises `NotUnderstoodError`.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from calico_debug.decode import iptables_symbols as symbols
from calico_debug.decode.ipset import ADDRESS, PORT
from calico_debug.decode.iptables_extensions import (
    DSCP,
    HOP_LIMIT,
    TRAFFIC_CLASS,
    Extension,
    mark_and_mask,
    span,
)
from calico_debug.decode.iptables_sets import decode_set
from calico_debug.decode.iptables_symbols import NotUnderstoodError, number
from calico_debug.model.nft import (
    Bitwise,
    Constant,
    Ct,
    Harmless,
    Log,
    Masquerade,
    Meta,
    Nat,
    Notrack,
    Redirect,
    Reject,
    SetCt,
    SetMeta,
    SetPayload,
    Statement,
    UnknownExpression,
    UpdateSet,
    Verdict,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from calico_debug.decode.iptables_extensions import Option, Setting
    from calico_debug.model.nft import Expression

VERDICTS: Mapping[str, Verdict] = {
    "ACCEPT": Verdict("accept"),
    "DROP": Verdict("drop"),
    "RETURN": Verdict("return"),
}


def changed_mark(mark: Expression, value: int, mask: int) -> Expression:
    """``(mark & ~mask) ^ value``, what --set-xmark writes."""
    kept = ~mask & symbols.WHOLE_MARK
    return Bitwise(mark, kept, value) if kept else Constant(value)


def _mark(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [SetMeta("mark", _new_mark(Meta("mark"), option)) for option in options]


def _new_mark(mark: Expression, option: Option) -> Expression:
    value, mask = mark_and_mask(option.value)
    match option.name:
        case "--set-xmark":
            return changed_mark(mark, value, mask)
        case "--set-mark":
            return changed_mark(mark, value, mask | value)
        case "--and-mark":
            return Bitwise(mark, value, 0)
        case "--or-mark":
            return changed_mark(mark, value, value)
        case "--xor-mark":
            return Bitwise(mark, symbols.WHOLE_MARK, value)
    raise NotUnderstoodError(option.name)


def _connection_mark(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    given = {option.name: option.value if option.values else "" for option in options}
    both = given.get("--mask", hex(symbols.WHOLE_MARK))
    packet_mask, connection_mask = number(given.get("--nfmask", both)), number(given.get("--ctmask", both))
    packet, connection = Meta("mark"), Ct("mark")
    if "--save-mark" in given:
        # (connection & ~ctmask) ^ (packet & nfmask): two values that are not constants mix unless one is replaced.
        whole = connection_mask == symbols.WHOLE_MARK
        value = _masked(packet, packet_mask) if whole else UnknownExpression("the connection's mark mixed with another")
        return [SetCt("mark", value)]
    if "--restore-mark" in given:
        whole = packet_mask == symbols.WHOLE_MARK
        value = _masked(connection, connection_mask) if whole else UnknownExpression("the mark mixed with another")
        return [SetMeta("mark", value)]
    return [SetCt("mark", _new_mark(connection, option)) for option in options]


def _masked(mark: Expression, mask: int) -> Expression:
    return mark if mask == symbols.WHOLE_MARK else Bitwise(mark, mask, 0)


def _reject(options: Sequence[Option], setting: Setting) -> list[Statement]:
    how = options[0].value if options else symbols.DEFAULT_REJECT[setting.family]
    return [Reject(*symbols.REJECTS[how])]


def _destination_nat(options: Sequence[Option], setting: Setting) -> list[Statement]:
    return [_nat("dnat", "--to-destination", options, setting)]


def _source_nat(options: Sequence[Option], setting: Setting) -> list[Statement]:
    return [_nat("snat", "--to-source", options, setting)]


def _nat(kind: str, name: str, options: Sequence[Option], setting: Setting) -> Statement:
    targets = [option.value for option in options if option.name == name]
    if len(targets) != 1:
        raise NotUnderstoodError(f"{len(targets)} times {name}")
    addresses, ports = _split_target(targets[0], setting.family)
    low, high = _ends(addresses)
    first = Constant(int(ip_address(low))) if low else None
    last = Constant(int(ip_address(high))) if high else None
    port, port_max = _port_range(ports, options)
    return Nat(kind, first, last, port, port_max)


def _split_target(text: str, family: str) -> tuple[str, str]:
    """ "10.0.0.1-10.0.0.9:80-90", "[fd00::1]:80", "fd00::1" or ":80" to its two parts."""
    if family == "ip6" and not text.startswith(":"):
        if not text.startswith("["):
            return text, ""
        addresses, _, ports = text.rpartition("]")
        return addresses.replace("[", "").replace("]", ""), ports.removeprefix(":")
    addresses, _, ports = text.partition(":")
    return addresses, ports


def _ends(text: str) -> tuple[str, str]:
    low, _, high = text.partition("-")
    return low, high


def _port_range(text: str, options: Sequence[Option]) -> tuple[Expression | None, Expression | None]:
    if not text:
        return None, None
    if "/" in text:
        raise NotUnderstoodError(f"shifted ports {text}")
    low, high = span(text, separator="-")
    if low != high or not any(option.name == "--random" for option in options):
        return Constant(low), Constant(high) if high != low else None
    return Constant(low), None


def _masquerade(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Masquerade(*_to_ports(options))]


def _redirect(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Redirect(*_to_ports(options))]


def _to_ports(options: Sequence[Option]) -> tuple[Expression | None, Expression | None]:
    text = next((option.value for option in options if option.name == "--to-ports"), "")
    return _port_range(text, options)


def _log(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Log(next((option.value for option in options if option.name == "--log-prefix"), ""))]


def _netlink_log(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    given = {option.name: option.value for option in options if option.values}
    return [Log(given.get("--nflog-prefix", ""), number(given.get("--nflog-group", "0"), 0xFFFF))]


def _no_tracking(_options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Notrack()]


def _connection_template(options: Sequence[Option], _setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        if option.name == "--notrack":
            found.append(Notrack())
        elif option.name.startswith("--zone"):
            raise NotUnderstoodError(option.name)  # conntrack then looks in another zone
        else:
            found.append(Harmless(f"CT {option.name}"))
    return found


def _queue(_options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return [Verdict("queue")]


def _dscp(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = DSCP[setting.family]
    return [SetPayload(field, Constant(number(option.value, 0x3F))) for option in options if option.values]


def _tos(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = TRAFFIC_CLASS[setting.family]
    value, slash, mask = options[0].value.partition("/")
    if options[0].name != "--set-tos":
        raise NotUnderstoodError(options[0].name)
    kept = ~number(mask, 0xFF) & 0xFF if slash else 0
    written = number(value, 0xFF)
    return [SetPayload(field, Bitwise(field, kept, written) if kept else Constant(written))]


def _hops(options: Sequence[Option], setting: Setting) -> list[Statement]:
    field = HOP_LIMIT[setting.family]
    option = options[0]
    if option.name.endswith("-set"):
        return [SetPayload(field, Constant(number(option.value, 255)))]
    return [SetPayload(field, UnknownExpression(f"{option.name} {option.value}"))]


def _set(options: Sequence[Option], setting: Setting) -> list[Statement]:
    found: list[Statement] = []
    for option in options:
        if option.name == "--add-set":
            name, directions = option.values
            lookup = decode_set(name, directions, False, setting.family, setting.sets)
            description = setting.sets.describe(name)
            if description is None or not set(description.dimensions) <= {ADDRESS, PORT}:
                raise NotUnderstoodError(f"--add-set {name}")  # a network with exceptions may stay without the address
            if not isinstance(lookup.source, str):
                continue  # the kernel adds nothing to a set of another family
            found.append(UpdateSet("add", lookup.key, name))
        elif option.name not in ("--exist", "--timeout"):
            raise NotUnderstoodError(option.name)
    return found


def _harmless(_options: Sequence[Option], _setting: Setting) -> list[Statement]:
    return []


_NAT_FLAGS = {"--random": 0, "--random-fully": 0, "--persistent": 0}
_HOPS = dict.fromkeys((f"--{name}-{how}" for name in ("ttl", "hl") for how in ("set", "inc", "dec")), 1)

TARGETS: Mapping[str, Extension] = {
    "MARK": Extension(
        dict.fromkeys(("--set-xmark", "--set-mark", "--and-mark", "--or-mark", "--xor-mark"), 1), _mark
    ),
    "CONNMARK": Extension(
        {
            "--set-xmark": 1, "--set-mark": 1, "--and-mark": 1, "--or-mark": 1, "--xor-mark": 1, "--save-mark": 0,
            "--restore-mark": 0, "--nfmask": 1, "--ctmask": 1, "--mask": 1,
        },
        _connection_mark,
    ),
    "REJECT": Extension({"--reject-with": 1}, _reject),
    "DNAT": Extension({"--to-destination": 1, **_NAT_FLAGS}, _destination_nat),
    "SNAT": Extension({"--to-source": 1, **_NAT_FLAGS}, _source_nat),
    "MASQUERADE": Extension({"--to-ports": 1, **_NAT_FLAGS}, _masquerade),
    "REDIRECT": Extension({"--to-ports": 1, **_NAT_FLAGS}, _redirect),
    "LOG": Extension(
        {
            "--log-prefix": 1, "--log-level": 1, "--log-tcp-sequence": 0, "--log-tcp-options": 0, "--log-ip-options": 0,
            "--log-uid": 0, "--log-macdecode": 0,
        },
        _log,
    ),
    "NFLOG": Extension(
        {
            "--nflog-group": 1, "--nflog-prefix": 1, "--nflog-range": 1, "--nflog-size": 1, "--nflog-threshold": 1,
        },
        _netlink_log,
    ),
    "NOTRACK": Extension({}, _no_tracking),
    "CT": Extension(
        {
            "--notrack": 0, "--helper": 1, "--timeout": 1, "--ctevents": 1, "--expevents": 1, "--zone": 1,
            "--zone-orig": 1, "--zone-reply": 1,
        },
        _connection_template,
    ),
    "NFQUEUE": Extension(
        {"--queue-num": 1, "--queue-balance": 1, "--queue-bypass": 0, "--queue-cpu-fanout": 0}, _queue
    ),
    "DSCP": Extension({"--set-dscp": 1}, _dscp),
    "TOS": Extension({"--set-tos": 1, "--and-tos": 1, "--or-tos": 1, "--xor-tos": 1}, _tos),
    "TTL": Extension(_HOPS, _hops),
    "HL": Extension(_HOPS, _hops),
    "SET": Extension({"--add-set": 2, "--del-set": 2, "--map-set": 2, "--exist": 0, "--timeout": 1}, _set),
}  # fmt: skip
"""Every target that is understood and does something that this version follows."""

HARMLESS_TARGETS = frozenset({
    "AUDIT", "CHECKSUM", "CLASSIFY", "CONNSECMARK", "IDLETIMER", "LED", "RATEEST", "SECMARK", "TCPMSS", "TCPOPTSTRIP",
    "TEE", "TRACE",
})  # fmt: skip
"""Targets that go on with the next rule and change nothing that Calico's or kube-proxy's rules ask for."""
